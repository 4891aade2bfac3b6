"""What a vehicle's surface is made of, as a picture of material numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["PER_METRE", "Atlas", "Material", "Region", "wheel_picture"]

PER_METRE = 128.0  # a texel of a car 5 m ahead is 1.5 px wide


class Material(IntEnum):
    """Numbers in an atlas."""

    PAINT = 0
    GLASS = 1
    BLACK = 2  # plastic, rubber
    METAL = 3
    TAIL = 4  # red lamp
    HEAD = 5  # white lamp
    PLATE = 6
    TYRE = 7
    RIM = 8
    GAP = 9  # joints and holes: light hardly gets in
    AMBER = 10
    SECOND = 11  # another colour than the body's
    WHITE = 12
    SEAT = 13  # what shows through glass


@dataclass(frozen=True)
class Region:
    """A part of the atlas in metres: (a, b) is column a, row b upwards or across from `origin`."""

    picture: NDArray[np.uint8]
    origin: tuple[float, float]
    up: float

    def _at(self, points: list[tuple[float, float]]) -> NDArray[np.int32]:
        scaled = [(self.origin[0] + a * PER_METRE, self.origin[1] - self.up * b * PER_METRE) for a, b in points]
        return np.round(scaled).astype(np.int32)

    def fill(self, points: list[tuple[float, float]], material: Material) -> None:
        """A polygon."""
        cv2.fillPoly(self.picture, [self._at(points)], int(material))

    def box(self, a0: float, b0: float, a1: float, b1: float, material: Material) -> None:
        """A rectangle."""
        self.fill([(a0, b0), (a1, b0), (a1, b1), (a0, b1)], material)

    def line(self, points: list[tuple[float, float]], material: Material, width: float = 0.015) -> None:
        """A line of this width, metres."""
        cv2.polylines(self.picture, [self._at(points)], False, int(material), max(1, round(width * PER_METRE)))

    def round(self, a: float, b: float, radius: float, material: Material) -> None:
        """A disc."""
        x, y = self._at([(a, b)])[0]
        cv2.circle(self.picture, (int(x), int(y)), round(radius * PER_METRE), int(material), -1)

    def pair(self, a0: float, b0: float, a1: float, b1: float, material: Material) -> None:
        """A rectangle on both sides of the middle of a strip."""
        self.box(a0, b0, a1, b1, material)
        self.box(a0, -b1, a1, -b0, material)


@dataclass
class Atlas:
    """Regions stacked from top to bottom; `finish` makes the picture."""

    rows: list[NDArray[np.uint8]] = field(default_factory=list)
    height: int = 0

    def region(
        self, width: float, height: float, left: float, below: float, *, up: bool
    ) -> tuple[Region, tuple[float, float]]:
        """Room for `width` by `height` metres.

        Args:
            left: metres of it left of the origin; below: rows below the origin, metres.
            up: rows grow upwards (sides); otherwise they run across (strips).

        Returns:
            where to draw, and the origin in the finished atlas.
        """
        margin = 4
        h, w = round(height * PER_METRE) + 2 * margin, round(width * PER_METRE) + 2 * margin
        picture = np.zeros((h, w), np.uint8)
        origin = (margin + left * PER_METRE, h - margin - below * PER_METRE)
        place = (origin[0], origin[1] + self.height)
        self.rows.append(picture)
        self.height += h
        return Region(picture, origin, 1.0 if up else -1.0), place

    def finish(self) -> NDArray[np.uint8]:
        """All regions in one picture."""
        width = max(row.shape[1] for row in self.rows)
        return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]))) for row in self.rows])


def wheel_picture(atlas: Atlas, spokes: int, spoke_width: float, *, metal: bool) -> tuple[tuple[float, float], float]:
    """Draw a wheel; the atlas position of its centre and its radius there in pixels."""
    region, place = atlas.region(0.8, 0.8, 0.4, 0.4, up=True)
    region.round(0, 0, 0.4, Material.TYRE)
    region.round(0, 0, 0.275, Material.RIM if metal else Material.BLACK)
    region.round(0, 0, 0.25, Material.GAP)
    for i in range(spokes):
        angle = 2 * np.pi * i / spokes
        region.line([(0, 0), (0.26 * np.cos(angle), 0.26 * np.sin(angle))], Material.RIM, spoke_width)
    region.round(0, 0, 0.07, Material.RIM)
    return place, 0.4 * PER_METRE - 1
