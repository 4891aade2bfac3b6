"""Where a run stands and what it must know of its past."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["History", "RunState"]


@dataclass
class History:
    """What a resumed run must know of its past, as plain values.

    Attributes:
        best: file, fitness, epoch and step of the best networks, the best first.
        validated_epoch, improved_epoch: the last epoch that was validated, and that was better; -1 for none.
        es_best: fitness that early stopping compares with.
        skipped, skipped_in_row: steps left out, ever and since the last good one.
        broken: names of samples that could not be read.
        epoch_loss, epoch_steps: sum of the losses of this epoch's steps, and their number.
        seconds: the run has taken.
        last_metrics: of the last validation.
        last_loss: mean of the last steps that were told; None before the first.
    """

    best: list[dict[str, Any]] = field(default_factory=list)
    validated_epoch: int = -1
    improved_epoch: int = -1
    es_best: float = -math.inf
    skipped: int = 0
    skipped_in_row: int = 0
    broken: list[str] = field(default_factory=list)
    epoch_loss: float = 0.0
    epoch_steps: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    last_metrics: dict[str, Any] = field(default_factory=dict)
    last_loss: float | None = None

    @classmethod
    def from_plain(cls, found: Mapping[str, Any]) -> History:
        """From a checkpoint; keys of another release are left out."""
        return cls(**{name: found[name] for name in cls.__dataclass_fields__ if name in found})

    @property
    def usable_best(self) -> dict[str, Any] | None:
        """The best network; None without one whose fitness is a number."""
        # an earlier release kept networks of no fitness, too, where there was no other
        return self.best[0] if self.best and math.isfinite(self.best[0]["fitness"]) else None


@dataclass
class RunState:
    """Where a run stands.

    Attributes:
        steps_per_epoch, steps: of an epoch and of the whole run.
        step: optimizer steps done, in earlier processes too.
        logged: (epoch, step) up to which the checkpoint that a process went on from knows the tables, the step as it
            was counted then: an epoch of it may have had another number of steps.
    """

    steps_per_epoch: int
    steps: int
    step: int = 0
    history: History = field(default_factory=History)
    logged: tuple[int, int] = (-1, 0)

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step was the last one of its epoch."""
        return self.step % self.steps_per_epoch == 0

    @property
    def last_epoch(self) -> int:
        """Epoch of the last step, from 0."""
        return (self.step - 1) // self.steps_per_epoch
