"""Means over steps that nobody has to wait for: sums stay on the device until they are told."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from hybridnets.training.distributed import World
from hybridnets.training.step import StepResult

__all__ = ["Meter"]


class Meter:
    """Loss terms, gradient norm and speed since `clear`.

    Args:
        images: of one step, over all processes.

    Attributes:
        steps: that were added.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._sums: dict[str, Tensor] = {}
        self._norm: Tensor | None = None
        self.steps = 0
        self._waited = 0.0
        self._passed = 0
        self._since = time.perf_counter()

    def restart(self) -> None:
        """Begin timing anew: what came between, such as a validation, is not training."""
        self._since, self._waited, self._passed = time.perf_counter(), 0.0, 0

    def clear(self) -> None:
        """Forget everything."""
        self._sums, self._norm, self.steps = {}, None, 0
        self.restart()

    def wait(self, seconds: float) -> None:
        """The next step's data took so long to come."""
        self._waited += seconds
        self._passed += 1

    def add(self, result: StepResult) -> None:
        """A step that was done."""
        for name, value in result.terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._norm = result.norm
        self.steps += 1

    def read(self, world: World) -> dict[str, float]:
        """Mean of each term over steps and processes; nothing when no step was added. All processes call this."""
        if not self.steps:
            return {}
        values = torch.stack([value.float() for value in self._sums.values()]) / self.steps
        if world.size > 1:
            torch.distributed.all_reduce(values)
            values = values / world.size
        return dict(zip(self._sums, values.tolist(), strict=True))

    def norm(self) -> float | None:
        """Gradient norm of the last step."""
        return None if self._norm is None else float(self._norm)

    def images_per_s(self) -> float:
        """Over all processes."""
        return self._passed * self._images / max(1e-9, time.perf_counter() - self._since)

    def waiting(self) -> float:
        """Share of the time that went into waiting for data."""
        return min(1.0, self._waited / max(1e-9, time.perf_counter() - self._since))
