"""What a run tells whoever started it; the library itself prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hybridnets.training.validation import Validation

__all__ = ["Listener", "Silent", "StepEvent", "ValidationEvent"]


@dataclass(frozen=True)
class StepEvent:
    """Progress, told every `log_interval` steps.

    Attributes:
        epoch, epochs: the current one from 0, and how many in all.
        step, steps: steps done, and how many in all.
        terms: mean of each loss term since the last event.
        lr: learning rate of the last step.
        norm: gradient norm of the last step before clipping, None if it was left out.
        images_per_s: of all processes, since the last event.
        waiting: share of the time in which this process waited for data.
        skipped: steps left out so far because of numbers that are not finite.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    terms: Mapping[str, float]
    lr: float
    norm: float | None
    images_per_s: float
    waiting: float
    skipped: int


@dataclass(frozen=True)
class ValidationEvent:
    """One validation and what became of it.

    Attributes:
        averaged: the averaged weights were measured.
        best: the network is the best so far.
    """

    epoch: int
    step: int
    validation: Validation
    fitness: float
    averaged: bool
    best: bool


class Listener(Protocol):
    """Called in the process of rank 0 only."""

    def started(self, step: int, steps: int, folder: Path) -> None:
        """The run starts, or goes on, at this step."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def stepped(self, event: StepEvent) -> None:
        """Steps were done."""

    def validating(self, done: int, total: int) -> None:
        """Images of this process measured so far."""

    def validated(self, event: ValidationEvent) -> None:
        """A validation ended."""


class Silent:
    """A listener that does nothing."""

    def started(self, step: int, steps: int, folder: Path) -> None: ...

    def note(self, text: str) -> None: ...

    def stepped(self, event: StepEvent) -> None: ...

    def validating(self, done: int, total: int) -> None: ...

    def validated(self, event: ValidationEvent) -> None: ...
