"""Noise that wraps around."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["fractal", "unit_noise"]


def fractal(generator: np.random.Generator, size: int, cells: int, octaves: int, keep: float) -> NDArray[np.float32]:
    """Sum of smooth random fields, each twice as fine and `keep` times as strong as the one before.

    Returns:
        float32 (size, size) around 0 that wraps around in both directions.
    """
    total = np.zeros((size, size), np.float32)
    strength = 1.0
    for octave in range(octaves):
        n = min(cells << octave, size)
        grid = np.pad(generator.normal(0, 1, (n, n)).astype(np.float32), 3, mode="wrap")
        side = round(size * (n + 6) / n)
        smooth = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        edge = round(size * 3 / n)
        total += strength * smooth[edge : edge + size, edge : edge + size]
        strength *= keep
        if n == size:
            break
    return total


def unit_noise(field: NDArray[np.float32], deviation: float) -> NDArray[np.uint8]:
    """The field as uint8 around 128 with this standard deviation."""
    return np.clip(field / field.std() * deviation + 128, 0, 255).astype(np.uint8)
