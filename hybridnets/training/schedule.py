"""The learning rate of each step. Free of torch.

`cosine` and `constant` are functions of the step alone, so a resumed run needs nothing but its step. `plateau`
(upstream's) depends on the losses of past epochs, which its state holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol, get_args

from hybridnets.errors import ExitCode, HnxError, did_you_mean

__all__ = ["Schedule", "ScheduleKind"]

ScheduleKind = Literal["cosine", "plateau", "constant"]

# upstream's plateau: torch's defaults but for the patience
_PATIENCE, _FACTOR, _THRESHOLD = 3, 0.1, 1e-4


class _Optimizer(Protocol):
    @property
    def param_groups(self) -> list[dict[str, Any]]: ...


class Schedule:
    """Linear warm-up, then a half cosine (Loshchilov & Hutter 2017, without restarts), a constant or steps down.

    Args:
        kind: cosine falls from `lr` to `floor * lr`, reached in the last step; constant stays; plateau is divided by
            ten when the loss of an epoch has not fallen for more than three epochs, as upstream's.
        lr: after the warm-up.
        steps: of the whole run.
        warmup: steps of the warm-up: step k of them has lr * (k + 1) / (warmup + 1).
        floor: smallest rate of the cosine, as a part of `lr`.

    Raises:
        HnxError: a value is out of range (exit code 2).
    """

    def __init__(self, kind: ScheduleKind, lr: float, steps: int, *, warmup: int = 0, floor: float = 0.01) -> None:
        if kind not in get_args(ScheduleKind):
            raise HnxError(
                f"Unknown schedule {kind!r}", fix=did_you_mean(kind, get_args(ScheduleKind)), code=ExitCode.USAGE
            )
        if not (0.0 < lr < math.inf and 0.0 <= floor <= 1.0 and steps >= 1 and warmup >= 0):
            raise HnxError(
                f"A schedule of {steps} steps with lr {lr:g}, warm-up {warmup} and floor {floor:g}",
                why="it needs a positive rate, at least one step, no negative warm-up, and a floor between 0 and 1",
                fix="correct the options",
                code=ExitCode.USAGE,
            )
        self.kind: ScheduleKind = kind
        self.lr, self.steps, self.warmup, self.floor = lr, steps, warmup, floor
        self._reduction, self._best, self._bad = 1.0, math.inf, 0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0; steps beyond the last have its rate."""
        if step < self.warmup:
            return self._reduction * self.lr * (step + 1) / (self.warmup + 1)
        if self.kind != "cosine":
            return self._reduction * self.lr
        way = min(1.0, (step - self.warmup) / max(1, self.steps - 1 - self.warmup))
        return self.lr * (self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * way)))

    def apply(self, optimizer: _Optimizer, step: int) -> float:
        """Set the rate of a step in every parameter group, and return it."""
        rate = self.rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def end_epoch(self, loss: float) -> None:
        """Tell the mean training loss of an epoch; only `plateau` listens. A NaN counts as no progress."""
        if self.kind != "plateau":
            return
        if loss < self._best * (1.0 - _THRESHOLD):
            self._best, self._bad = loss, 0
            return
        self._bad += 1
        if self._bad > _PATIENCE:
            self._reduction *= _FACTOR
            self._bad = 0

    def state_dict(self) -> dict[str, float]:
        """What `plateau` remembers: plain numbers; `best` is infinite before the first epoch."""
        return {"reduction": self._reduction, "best": self._best, "bad": self._bad}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a state, which only `plateau` has a use for: the others follow from the step alone."""
        if self.kind != "plateau":
            return
        self._reduction, self._best = float(state["reduction"]), float(state["best"])
        self._bad = int(state["bad"])
