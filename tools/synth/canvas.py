"""The picture under construction and who owns each of its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["BONNET", "FIRST_OBJECT", "GROUND", "KERB", "SKY", "STATIC", "Canvas", "Glow", "pixels"]

# owners of pixels in the id buffer; road users and signs count from FIRST_OBJECT
SKY, GROUND, KERB, STATIC, BONNET, FIRST_OBJECT = 0, 1, 2, 3, 4, 16

SHIFT = 4  # fractional bits of polygon corners
Float = NDArray[np.floating[Any]]
ColourLike = tuple[float, float, float] | NDArray[np.float32]


def pixels(points: Float) -> NDArray[np.int32]:
    """Corner positions as OpenCV's drawing functions take them with shift=SHIFT."""
    return np.round(np.asarray(points, np.float32) * (1 << SHIFT)).astype(np.int32)


@dataclass(frozen=True)
class Glow:
    """A lamp that outshines its surface: position, radius in pixels, colour; `owner` must own the pixel there."""

    x: float
    y: float
    radius: float
    colour: tuple[float, float, float]
    owner: int
    below: float = 0.0  # rows to its mirror image on a wet road


@dataclass
class Canvas:
    """What is drawn on: nearer things are drawn later.

    Attributes:
        frame: uint8 (rows, columns, 3) BGR.
        ids: uint16 (rows, columns), the owner of each pixel.
        lamps: glows to add at the end.
        drawn: pixels of each object when it was drawn, before nearer things covered some.
    """

    frame: NDArray[np.uint8]
    ids: NDArray[np.uint16]
    lamps: list[Glow] = field(default_factory=list)
    drawn: dict[int, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Picture height."""
        return int(self.frame.shape[0])

    @property
    def columns(self) -> int:
        """Picture width."""
        return int(self.frame.shape[1])

    def polygon(self, points: Float, colour: ColourLike, owner: int = STATIC) -> None:
        """A filled polygon with smooth edges."""
        corners = pixels(points)
        cv2.fillPoly(self.frame, [corners], _triple(colour), cv2.LINE_AA, SHIFT)
        cv2.fillPoly(self.ids, [corners], owner, cv2.LINE_8, SHIFT)

    def stroke(self, points: Float, colour: ColourLike, width: float, owner: int = STATIC) -> None:
        """A line through points; thinner than a pixel it fades instead."""
        corners = pixels(points)
        whole = max(1, round(width))
        cv2.polylines(self.frame, [corners], False, _triple(colour), whole, cv2.LINE_AA, SHIFT)
        if width > 0.7:
            cv2.polylines(self.ids, [corners], False, owner, whole, cv2.LINE_8, SHIFT)

    def window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice] | None:
        """Rows and columns of a rectangle inside the picture; None when nothing of it is."""
        left, right = max(0, int(np.floor(x0))), min(self.columns, int(np.ceil(x1)) + 1)
        top, bottom = max(0, int(np.floor(y0))), min(self.rows, int(np.ceil(y1)) + 1)
        if left >= right or top >= bottom:
            return None
        return slice(top, bottom), slice(left, right)

    def paste(
        self, window: tuple[slice, slice], colour: NDArray[np.uint8], alpha: NDArray[np.uint8], owner: int
    ) -> None:
        """Blend a picture of the window's size; pixels of alpha above 127 change their owner."""
        target = self.frame[window]
        share = cv2.merge([alpha, alpha, alpha])
        mixed = cv2.add(cv2.multiply(target, 255 - share, scale=1 / 255), cv2.multiply(colour, share, scale=1 / 255))
        target[:] = mixed
        self.ids[window][alpha > 127] = owner


def _triple(colour: ColourLike) -> tuple[float, float, float]:
    b, g, r = (min(max(float(c), 0.0), 255.0) for c in colour)
    return b, g, r
