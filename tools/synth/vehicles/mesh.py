"""A vehicle body from its side profile: a strip over the top and two sides.

Vehicle axes: x forward, y left, z up, metres; x = 0 is the middle of the length, z = 0 the road.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mesh", "Shell", "disc", "join", "loft", "smooth_profile", "tread"]

Float = NDArray[np.floating[Any]]
HalfWidth = Callable[[Float, Float], Float]  # (x, z) -> metres


@dataclass(frozen=True)
class Mesh:
    """Quads.

    Attributes:
        corners: float32 (n, 4, 3); normals: float32 (n, 4, 3), outwards; texture: float32 (n, 4, 2), (column, row) in
            the vehicle's atlas.
    """

    corners: Float
    normals: Float
    texture: Float


@dataclass(frozen=True)
class Shell:
    """What a body is made from, apart from its texture.

    Attributes:
        profile: float32 (n, 2) x, z from the lower front edge over the roof to the lower rear edge.
        along: float32 (n), metres along the profile.
        half_width: of the body at (x, z).
        floor: z of the lower edge.
        bow: metres by which front and rear bulge in the middle.
        drop: metres by which the roof falls towards its sides.
    """

    profile: Float
    along: Float
    half_width: HalfWidth
    floor: float
    bow: float
    drop: float

    @property
    def length(self) -> float:
        """Metres."""
        return float(self.profile[:, 0].max() - self.profile[:, 0].min())

    def at(self, x: float, z: float) -> float:
        """Metres along the profile of its point nearest to (x, z)."""
        return float(self.along[np.argmin(np.hypot(self.profile[:, 0] - x, self.profile[:, 1] - z))])


def smooth_profile(points: list[tuple[float, float]], rounds: int = 2) -> Float:
    """Cut the corners of a line (Chaikin), its ends stay."""
    line = np.array(points, np.float32)
    for _ in range(rounds):
        a, b = line[:-1], line[1:]
        cut = np.stack([0.78 * a + 0.22 * b, 0.22 * a + 0.78 * b], axis=1).reshape(-1, 2)
        line = np.concatenate([line[:1], cut, line[-1:]])
    return line


def loft(
    shell: Shell,
    step: int,
    across: int,
    down: int,
    strip_at: tuple[float, float],
    side_at: tuple[float, float],
    per_metre: float,
) -> Mesh:
    """Mesh of a shell.

    Args:
        step: every how many profile points; across: quads over the width; down: quads from edge to floor.
        strip_at, side_at: atlas positions of (along 0, y 0) and of (x 0, z 0); columns grow along the body.
        per_metre: atlas pixels.
    """
    keep = np.unique(np.append(np.arange(0, len(shell.profile), step), len(shell.profile) - 1))
    x, z, along = shell.profile[keep, 0], shell.profile[keep, 1], shell.along[keep]
    t = np.linspace(-1, 1, across + 1, dtype=np.float32)
    strip = _bent(shell, x[:, None], z[:, None], t[None, :])
    ys = strip[..., 1]
    column = np.broadcast_to(strip_at[0] + along[:, None] * per_metre, ys.shape)
    parts = [_quads(strip, np.stack([column, strip_at[1] + ys * per_metre], -1))]
    for side in (-1.0, 1.0):
        fall = np.linspace(0, 1, down + 1, dtype=np.float32)[None, :]
        top = strip[:, 0 if side < 0 else -1]
        level = top[:, 2:3] + (np.minimum(shell.floor, top[:, 2:3]) - top[:, 2:3]) * fall
        length = np.broadcast_to(x[:, None], level.shape)
        wall = _bent(shell, length, level, np.full_like(level, side))
        wall[..., 2] = level
        wall[:, 0] = top
        texture = np.stack([side_at[0] + wall[..., 0] * per_metre, side_at[1] - wall[..., 2] * per_metre], -1)
        parts.append(_quads(wall, texture))
    return join(parts)


def _bent(shell: Shell, x: Float, z: Float, t: Float) -> Float:
    """(..., 3) points: across at the share t of the half width, ends bowed, roof edges dropped."""
    x, z, t = np.broadcast_arrays(x, z, t)
    half = shell.half_width(x, z)
    share = np.abs(2 * x / shell.length) ** 5
    bowed = x - np.sign(x) * shell.bow * share * t * t
    high = np.clip((z - shell.floor) / 0.5, 0, 1)
    return np.stack([bowed, half * t, z - shell.drop * high * t**6], axis=-1).astype(np.float32)


def _quads(grid: Float, texture: Float) -> Mesh:
    """Quads of a grid of points, with normals averaged over the neighbours and turned outwards."""
    across = np.gradient(grid, axis=1)
    along = np.gradient(grid, axis=0)
    normal = np.cross(along, across)
    size = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = normal / np.maximum(size, 1e-7)
    centre = np.array([0, 0, grid[..., 2].mean()], np.float32)
    outward = np.sum(normal * (grid - centre * np.array([0, 0, 1], np.float32)), axis=-1).mean()
    normal = normal * (1.0 if outward >= 0 else -1.0)

    def corners(values: Float) -> Float:
        quads = np.stack([values[:-1, :-1], values[1:, :-1], values[1:, 1:], values[:-1, 1:]], axis=2)
        return quads.reshape(-1, 4, values.shape[-1]).astype(np.float32)

    return Mesh(corners(grid), corners(normal.astype(np.float32)), corners(texture.astype(np.float32)))


def disc(
    centre: tuple[float, float, float], radius: float, side: float, texture: tuple[float, float], size: float
) -> Mesh:
    """A wheel's face; `texture` is the atlas position of its centre, `size` its radius there."""
    angle = np.linspace(0, 2 * np.pi, 17)
    ring = np.stack([np.cos(angle), np.zeros(17), np.sin(angle)], -1) * radius
    mid = np.zeros(3)
    quads, places = [], []
    for i in range(0, 16, 2):
        points = np.stack([mid, ring[i], ring[i + 1], ring[i + 2]])
        quads.append(points + np.array(centre))
        places.append(np.array(texture) + points[:, [0, 2]] * [1, -1] * size / radius)
    normals = np.broadcast_to(np.array([0, side, 0], np.float32), (8, 4, 3))
    return Mesh(np.array(quads, np.float32), normals.astype(np.float32), np.array(places, np.float32))


def tread(centre: tuple[float, float, float], radius: float, width: float, texel: tuple[float, float]) -> Mesh:
    """A tyre's tread: a short tube; all of it has one texel."""
    angle = np.linspace(0, 2 * np.pi, 13)
    y = np.array([-width / 2, width / 2])
    grid = np.stack(
        np.broadcast_arrays(np.cos(angle)[:, None] * radius, y[None, :], np.sin(angle)[:, None] * radius), -1
    )
    flat = _quads(grid.astype(np.float32), np.broadcast_to(np.array(texel, np.float32), (13, 2, 2)))
    out = flat.corners * np.array([1, 0, 1], np.float32) / radius
    return Mesh(flat.corners + np.array(centre, np.float32), out, flat.texture)


def join(parts: list[Mesh]) -> Mesh:
    """One mesh of several."""
    return Mesh(
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.texture for part in parts]),
    )
