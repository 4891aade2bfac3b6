"""What a distillation is asked for beside a training run's own values. Free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from hybridnets.errors import ExitCode, HnxError

__all__ = ["DistillConfig"]


@dataclass(frozen=True)
class DistillConfig:
    """Teacher and frames.

    Attributes:
        teacher: its checkpoint.
        sources: frames without labels: pictures, folders, patterns or videos, or data sets in upstream's layout.
        held_out_sources: frames for measuring agreement only; empty takes `held_out` of the sources.
        held_out: frames on which agreement is measured.
        every: take every n-th frame of a video.
        feature_weight: of the maps behind the outputs in the sum; 0 leaves them out.

    Raises:
        HnxError: a value is out of range (exit code 2).
    """

    teacher: Path
    sources: tuple[str, ...]
    held_out_sources: tuple[str, ...] = ()
    held_out: int = 64
    every: int = 1
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.sources:
            raise HnxError("No frames to learn from", fix="name pictures, a folder or a video", code=ExitCode.USAGE)
        for name, value in (("held-out", self.held_out), ("every", self.every)):
            if value < 1:
                raise HnxError(f"--{name} is {value}", why="it counts frames, from 1 on", code=ExitCode.USAGE)
        if not (math.isfinite(self.feature_weight) and 0 <= self.feature_weight <= 1e6):
            raise HnxError(
                f"--feature-weight is {self.feature_weight:g}", why="it lies between 0 and 1e6", code=ExitCode.USAGE
            )
