"""The pinhole camera and the shape of the road before it.

World axes: x right, y up, z forward, metres; the camera stands at (0, height, 0) above the road. Road coordinates are s
(metres ahead, equal to z), d (metres to the right of the camera's path) and a height above the surface.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.synth.randoms import Random

__all__ = ["Camera", "GroundMaps", "RoadShape", "sample_camera", "sample_shape"]

Float = NDArray[np.floating[Any]]
NEAR = 0.4  # metres: nothing nearer than this is projected
FARTHEST = 400.0  # metres: at 720 rows a car is 4 px high there


@dataclass(frozen=True)
class RoadShape:
    """Curve and grade of the road, both quadratic up to `bend_end` metres and straight beyond.

    Attributes:
        heading: tangent of the road's direction at the camera.
        curve: half of the curvature, 1/m.
        grade: half of the vertical curvature, 1/m; positive climbs.
        bend_end: metres.
        far: metres; the road is out of sight beyond (a crest, or too small).
    """

    heading: float
    curve: float
    grade: float
    bend_end: float
    far: float

    def lateral(self, s: Float) -> Float:
        """x of the road's reference line at s."""
        return self.heading * s + _bent(s, self.curve, self.bend_end)

    def level(self, s: Float) -> Float:
        """y of the road's surface at s."""
        return _bent(s, self.grade, self.bend_end)

    def yaw(self, s: float) -> float:
        """Direction of the road at s, radians to the right of the z axis."""
        return math.atan(self.heading + 2 * self.curve * min(s, self.bend_end))

    def world(self, s: Float, d: Float, height: Float | float = 0.0) -> Float:
        """(..., 3) world points of road coordinates."""
        s, d = np.asarray(s, np.float32), np.asarray(d, np.float32)
        x, y, z = np.broadcast_arrays(self.lateral(s) + d, self.level(s) + np.float32(height), s)
        return np.stack([x, y, z], axis=-1)


def _bent(s: Float, factor: float, end: float) -> Float:
    inside = np.clip(s, 0.0, end)
    return np.asarray(factor * inside * inside + 2 * factor * end * np.maximum(s - end, 0.0), np.float32)


@dataclass(frozen=True)
class GroundMaps:
    """Where every pixel's ray meets the road's surface.

    Attributes:
        top: first picture row of the maps.
        s, d: float32 (rows, width), metres; s is far beyond the limit where a ray meets no ground.
        x: float32, world x.
        seen: bool (rows, width): the ray meets ground nearer than the limit.
    """

    top: int
    s: Float
    d: Float
    x: Float
    seen: NDArray[np.bool_]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        rows, columns: picture size in pixels.
        focal: focal length in pixels.
        height: metres above the road.
        rotation: (3, 3) from (x right, y down, z forward) of the world to the camera's axes.
    """

    rows: int
    columns: int
    focal: float
    height: float
    rotation: Float

    @property
    def scale(self) -> float:
        """Picture size against 720 rows: pixel limits are given for those."""
        return self.rows / 720.0

    def project(self, points: Float) -> tuple[Float, Float]:
        """(..., 2) pixel positions (centre of the first pixel is 0, 0) and (...) depths of world points."""
        down = np.stack([points[..., 0], self.height - points[..., 1], points[..., 2]], axis=-1)
        seen = down @ self.rotation.T
        depth = np.maximum(seen[..., 2], NEAR)
        centre = np.array([(self.columns - 1) / 2, (self.rows - 1) / 2], np.float32)
        pixels = seen[..., :2] / depth[..., None] * self.focal + centre
        return np.clip(pixels, -2e4, 2e4).astype(np.float32), seen[..., 2]

    def slopes(self, top: int, bottom: int, step: int = 1) -> tuple[Float, Float]:
        """For rows top..bottom and every `step`-th column: metres a ray sinks and goes right for each ahead."""
        a = ((np.arange(0, self.columns, step, dtype=np.float32) - (self.columns - 1) / 2) / self.focal)[None, :]
        b = ((np.arange(top, bottom, dtype=np.float32) - (self.rows - 1) / 2) / self.focal)[:, None]
        r = self.rotation  # its transpose turns camera axes back
        ahead = (r[0, 2] * a + (r[1, 2] * b + r[2, 2])).astype(np.float32)
        sink = (r[0, 1] * a + (r[1, 1] * b + r[2, 1])).astype(np.float32) / ahead
        right = (r[0, 0] * a + (r[1, 0] * b + r[2, 0])).astype(np.float32) / ahead
        return sink, right

    def row_of(self, shape: RoadShape, s: float) -> float:
        """The row at which the road at distance s is seen straight ahead."""
        pixels, _ = self.project(shape.world(np.float32(s), np.float32(0)))
        return float(pixels[1])

    def ground(self, shape: RoadShape) -> GroundMaps:
        """See `GroundMaps`. Sinking per metre falls with distance up to `shape.far`, so a table inverts it."""
        table_s = np.geomspace(1.0, shape.far, 1500).astype(np.float32)
        table_sink = (self.height - shape.level(table_s)) / table_s
        limit = float(table_sink[-1])
        edges, _ = self.slopes(0, self.rows, self.columns - 1)
        rows = np.flatnonzero((edges > limit).any(axis=1))
        top = int(rows[0]) if len(rows) else self.rows - 1
        sink, right = self.slopes(top, self.rows)
        if shape.grade == 0:
            s: Float = self.height / np.maximum(sink, limit * 0.5)
        else:
            s = np.interp(sink.ravel(), table_sink[::-1], table_s[::-1]).astype(np.float32).reshape(sink.shape)
        x = s * right
        return GroundMaps(top, s, x - shape.lateral(s), x, sink > limit)


def sample_camera(random: Random, rows: int, columns: int, *, high: bool) -> Camera:
    """A dash camera: 52 to 80 degrees wide, horizon at 40 to 58 % of the height."""
    focal = columns / 2 / math.tan(math.radians(random.uniform(52, 80)) / 2)
    horizon = random.normal(0.485, 0.035, 0.40, 0.58)
    pitch = math.atan((horizon - 0.5) * rows / focal)
    yaw, roll = random.normal(0, 0.02, -0.05, 0.05), random.normal(0, 0.012, -0.03, 0.03)
    height = random.uniform(1.9, 2.6) if high else random.uniform(1.15, 1.65)
    cp, sp, cy, sy, cr, sr = *_cs(pitch), *_cs(yaw), *_cs(roll)
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return Camera(rows, columns, focal, height, (about_z @ about_x @ about_y).astype(np.float32))


def _cs(angle: float) -> tuple[float, float]:
    return math.cos(angle), math.sin(angle)


def sample_shape(random: Random, camera: Camera, *, sharpest: float) -> RoadShape:
    """A road whose tightest radius is `sharpest` metres; a third are straight and half are level."""
    curve = 0.0 if random.chance(0.35) else random.sign() * 0.5 / sharpest * random.uniform(0.05, 1) ** 1.6
    grade = 0.0 if random.chance(0.5) else random.normal(0, 6e-5, -1.2e-4, 2.2e-4)
    end = min(150.0, 0.24 / max(abs(curve), 1e-6))
    far = FARTHEST
    if grade < 0:  # a crest: the surface is tangent to a ray at sqrt(height / -grade), when that lies in the bend
        crest = math.sqrt(camera.height / -grade)
        far = min(far, 0.92 * crest if crest < end else FARTHEST)
    return RoadShape(random.normal(0, 0.015, -0.04, 0.04), curve, grade, end, far)
