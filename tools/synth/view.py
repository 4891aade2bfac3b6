"""What every drawing function needs to know: camera, road, light and lamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.synth.camera import Camera, RoadShape
from tools.synth.look import Look

__all__ = ["View"]

Float = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class View:
    """A scene's eye, road and light.

    Attributes:
        beam: strength of our own headlights, 0 when they are off.
        street: light of street lamps at their feet, BGR factors; zero by day.
        posts: (n, 2) s and d of the street lamps.
        phase: three numbers that vary what bodywork mirrors.
        shade: the road lies in the shadow of what stands beside it.
    """

    camera: Camera
    shape: RoadShape
    look: Look
    beam: float
    street: Float
    posts: Float
    phase: tuple[float, float, float]
    shade: bool

    def place(self, s: float, d: float, height: float = 0.0) -> Float:
        """World point of road coordinates."""
        return self.shape.world(np.float32(s), np.float32(d), height)

    def project(self, s: Float | float, d: Float | float, height: Float | float = 0.0) -> tuple[Float, Float]:
        """Pixels and depths of road coordinates."""
        return self.camera.project(self.shape.world(np.asarray(s), np.asarray(d), height))

    def beam_at(self, s: Float, d: Float) -> Float:
        """Light of our headlights on things at s, d: strongest 8 to 25 m ahead, wider with distance."""
        if self.beam == 0:
            return np.zeros_like(s)
        angle = d / np.maximum(s, 1.0)
        cone = np.exp(-((angle / 0.32) ** 2))
        near = np.clip((s - 2.0) / 6.0, 0, 1)
        return (self.beam * cone * near / (1.0 + (np.maximum(s, 0.0) / 16.0) ** 1.7)).astype(np.float32)

    def street_at(self, s: Float, d: Float) -> Float:
        """Share of `street` that reaches s, d."""
        total = np.full_like(s, 0.10 if len(self.posts) else 0.0)
        for post_s, post_d in self.posts:
            total += 1.0 / (1.0 + ((s - post_s) ** 2 + (d - 0.75 * post_d) ** 2) / 50.0)
        return np.minimum(total, 1.3)

    def light_along(self, s: Float, d: Float) -> Float:
        """(n, 3) light on small upright things at s, d that face us, BGR factors, without the sun."""
        lamps = self.street * self.street_at(s, d)[:, None] + self.beam_at(s, d)[:, None]
        return self.look.ambient + lamps

    def light_on(self, s: float, d: float) -> Float:
        """The same for one thing, (3)."""
        if not self.look.lamps:
            return self.look.ambient
        return self.light_along(np.full(1, s, np.float32), np.full(1, d, np.float32))[0]
