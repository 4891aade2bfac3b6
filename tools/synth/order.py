"""Which of two things is drawn first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.synth.canvas import Canvas

__all__ = ["Item", "painted_order"]


@dataclass(frozen=True)
class Item:
    """A thing above the ground: its extent in road coordinates and in the picture, and how to draw it."""

    s: tuple[float, float]
    d: tuple[float, float]
    box: tuple[float, float, float, float]
    draw: Callable[[Canvas], None]


def painted_order(items: Sequence[Item]) -> list[Item]:
    """Items sorted so that what hides is drawn after what it hides.

    Of two boxes in road coordinates, one that begins beyond the other's end is behind it, because s grows along every
    ray; otherwise the one that is further to the side is. A cycle is cut at its farthest member.
    """
    if not items:
        return []
    s = np.array([item.s for item in items], np.float32)
    d = np.array([item.d for item in items], np.float32)
    box = np.array([item.box for item in items], np.float32)
    meet = (
        (box[:, None, 0] < box[None, :, 2])
        & (box[None, :, 0] < box[:, None, 2])
        & (box[:, None, 1] < box[None, :, 3])
        & (box[None, :, 1] < box[:, None, 3])
    )
    beyond = s[:, None, 0] >= s[None, :, 1] - 0.05  # row begins after column ends
    # a ray leaves the middle: on the right d grows along it, on the left it falls
    right = d.mean(axis=1)[:, None] > 0
    outside = np.where(right, d[:, None, 0] >= d[None, :, 1] - 0.05, d[:, None, 1] <= d[None, :, 0] + 0.05)
    middle = s.mean(axis=1)
    farther = middle[:, None] > middle[None, :]
    behind = beyond & ~beyond.T
    undecided = ~(behind | behind.T)
    behind |= undecided & outside & ~outside.T
    undecided = ~(behind | behind.T)
    behind |= undecided & farther
    behind &= meet
    return [items[i] for i in _sorted(behind, middle)]


def _sorted(behind: NDArray[np.bool_], distance: NDArray[np.float32]) -> list[int]:
    """Indices so that i comes before j where behind[i, j]; the farthest first where there is a choice."""
    waiting = behind.sum(axis=0).astype(np.int32)  # how many things are behind j and not drawn yet
    left = np.ones(len(distance), bool)
    order: list[int] = []
    while left.any():
        ready = left & (waiting == 0)
        if not ready.any():
            ready = left
        best = int(np.argmax(np.where(ready, distance, -np.inf)))
        order.append(best)
        left[best] = False
        waiting -= behind[best]
    return order
