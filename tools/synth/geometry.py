"""Upright rectangles in the picture, their bounds and their light."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.synth.view import View

__all__ = ["box_of", "front_light", "upright"]

Float = NDArray[np.floating[Any]]


def box_of(points: Float) -> tuple[float, float, float, float]:
    """Bounding box x0, y0, x1, y1 of points (..., 2)."""
    low, high = points.reshape(-1, 2).min(axis=0), points.reshape(-1, 2).max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def upright(view: View, s: tuple[float, float], d: tuple[float, float], height: tuple[float, float]) -> Float:
    """A standing rectangle in the picture: upper (s0, d0), upper (s1, d1), lower (s1, d1), lower (s0, d0)."""
    along = np.array([s[0], s[1], s[1], s[0]], np.float32)
    across = np.array([d[0], d[1], d[1], d[0]], np.float32)
    up = np.array([height[1], height[1], height[0], height[0]], np.float32)
    return view.camera.project(view.shape.world(along, across, up))[0]


def front_light(view: View, side: int, *, end: bool) -> Float:
    """BGR factors on an upright front: one that faces us (`end`), or one that faces the road from its side."""
    look = view.look
    normal = np.array([0, 0, -1], np.float32) if end else np.array([-side, 0, 0], np.float32)
    direct = max(float(normal @ look.direction), 0.0) * (0.5 if view.shade else 1.0)
    return look.ambient * 0.85 + look.sun * direct + view.street * 0.16
