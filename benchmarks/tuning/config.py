"""What `hnx tune` measures, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.accuracy.config import DEFAULT_STORE, check_project
from hybridnets.bundle import Bundle
from hybridnets.bundle.tuning import GOALS
from hybridnets.dataset import Split
from hybridnets.errors import ExitCode, HnxError, did_you_mean
from runtimes.base import RuntimeOptions, available_threads
from runtimes.registry import entry

__all__ = ["AGREEMENT_DROP", "LABEL_DROP", "TuneConfig"]

# points a task may lose: what the eye does not see, and some 100 images can just tell from nothing
LABEL_DROP = 0.5
# points of disagreement with float32 without labels: boxes at the threshold come and go without any being wrong
AGREEMENT_DROP = 3.0


@dataclass(frozen=True)
class TuneConfig:
    """One call of `hnx tune`.

    Attributes:
        bundle: the network.
        runtime: name or alias; the name afterwards.
        goal: `latency`: the time of one frame, with one under way. `throughput`: the time between frames with several.
        split: labelled images; its project must fit the bundle. None takes `frames`.
        frames: unlabelled picture, folder, pattern or video to measure agreement with float32 on.
        limit: images or frames at most.
        max_drop: points that every task may lose; None is 0.5 with labels and 3 without.
        threads: CPU threads at most; None is all this process may use.
        rounds: of timing; each goes through all settings twice.
        seconds: of one setting in one round, about.
        store: folder that an interrupted evaluation goes on from.

    Raises:
        HnxError: a value is out of range, nothing to measure losses on, or labels of another network (exit code 2).
    """

    bundle: Bundle
    runtime: str = "openvino"
    goal: str = "latency"
    split: Split | None = None
    frames: str | Path | None = None
    limit: int = 100
    max_drop: float | None = None
    threads: int | None = None
    rounds: int = 10
    seconds: float = 0.4
    store: Path = field(default=DEFAULT_STORE)

    def __post_init__(self) -> None:
        object.__setattr__(self, "runtime", entry(self.runtime).name)
        if self.goal not in GOALS:
            raise _usage(f"Unknown goal {self.goal!r}", did_you_mean(self.goal, GOALS), "choose one of these")
        if (self.split is None) == (self.frames is None):
            raise _usage(
                "Losses are measured on labelled images or on frames",
                "both are named" if self.split else "neither is named",
                "name a data set with --data, or frames without labels with --frames",
            )
        for name in ("limit", "rounds"):
            if getattr(self, name) < 1:
                raise _usage(f"--{name} {getattr(self, name)}", "it counts from 1", f"for example --{name} 10")
        if self.rounds < 3:
            raise _usage(f"--rounds {self.rounds}", "what rounds vary by takes three of them", "for example --rounds 8")
        for name in ("max_drop", "seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                option = name.replace("_", "-")
                raise _usage(f"--{option} {value}", "it is a number from 0 on", f"for example --{option} 0.5")
        RuntimeOptions(threads=self.threads)  # its own checks
        if self.split is not None:
            check_project(self.bundle, self.split.project)

    @property
    def budget(self) -> float:
        """Points that every task may lose, the default resolved."""
        if self.max_drop is not None:
            return self.max_drop
        return AGREEMENT_DROP if self.split is None else LABEL_DROP

    @property
    def thread_count(self) -> int:
        """CPU threads at most, the default resolved."""
        return self.threads or available_threads()


def _usage(what: str, why: str, fix: str) -> HnxError:
    return HnxError(what, why=why, fix=fix, code=ExitCode.USAGE)
