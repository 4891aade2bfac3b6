"""Jitter of hue, saturation and value."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["ColourGains", "draw_colour", "jitter"]

_HUES = 180  # OpenCV's 8-bit hue counts 2 degrees


class ColourGains(NamedTuple):
    """Factors of hue, saturation and value; 1 changes nothing."""

    hue: float
    saturation: float
    value: float


def draw_colour(random: np.random.Generator, hue: float, saturation: float, value: float) -> ColourGains:
    """Factors uniform in 1 +- each argument."""
    draws = random.uniform(-1.0, 1.0, 3)
    return ColourGains(*(1.0 + draws * (hue, saturation, value)).tolist())


def jitter(image: NDArray[np.uint8], gains: ColourGains, *, swapped: bool = False) -> NDArray[np.uint8]:
    """The image with changed colours.

    Args:
        image: uint8 (h, w, 3) BGR.
        gains: factors; hue goes round, the others are cut at 255.
        swapped: upstream's way: its image is RGB when the formulas for BGR are used, so red and blue change places
            in the conversion and hues turn the other way.
    """
    if gains == (1.0, 1.0, 1.0):
        return image  # there and back is not exact in 8 bits
    levels = np.arange(256, dtype=np.float64)
    table = np.empty((1, 256, 3), np.uint8)
    table[0, :, 0] = ((levels * gains.hue) % _HUES).astype(np.uint8)
    table[0, :, 1] = np.clip(levels * gains.saturation, 0, 255).astype(np.uint8)
    table[0, :, 2] = np.clip(levels * gains.value, 0, 255).astype(np.uint8)
    there, back = (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB) if swapped else (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR)
    hsv = cv2.cvtColor(image, there)
    cv2.LUT(hsv, table, dst=hsv)
    return cv2.cvtColor(hsv, back)
