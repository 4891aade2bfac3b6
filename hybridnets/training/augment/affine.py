"""Rotation, scale, shear and shift of an image with its boxes and masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.preprocess import PAD_VALUE
from hybridnets.training.augment.scene import Scene

__all__ = ["Affine", "draw_affine", "keep_boxes", "warp"]

_MIN_SIDE = 2.0  # px
_MIN_AREA = 0.2  # of what the box would have without being cut
_MAX_ASPECT = 10.0
_EPSILON = 1e-16


@dataclass(frozen=True)
class Affine:
    """One draw.

    Attributes:
        angle: degrees, positive against the clock as seen on the screen.
        scale: factor.
        shear: x and y, degrees.
        centre: where the centre of the image goes, (x, y) as parts of the result's width and height.
    """

    angle: float = 0.0
    scale: float = 1.0
    shear: tuple[float, float] = (0.0, 0.0)
    centre: tuple[float, float] = (0.5, 0.5)

    def matrix(self, source: tuple[int, int], result: tuple[int, int]) -> NDArray[np.float64]:
        """(2, 3): pixels of an image of (height, width) `source` to those of one of `result`.

        The centre goes to the origin, is rotated and scaled, sheared, and shifted.
        """
        cos, sin = (self.scale * f(math.radians(self.angle)) for f in (math.cos, math.sin))
        turn = np.array([[cos, sin], [-sin, cos]])
        tan_x, tan_y = (math.tan(math.radians(angle)) for angle in self.shear)
        linear = np.array([[1.0, tan_x], [tan_y, 1.0]]) @ turn
        middle = np.array([source[1] / 2.0, source[0] / 2.0])
        shift = np.array([self.centre[0] * result[1], self.centre[1] * result[0]])
        return np.column_stack([linear, shift - linear @ middle])


def draw_affine(random: np.random.Generator, *, degrees: float, translate: float, scale: float, shear: float) -> Affine:
    """An affine map, each number uniform: angle within +-degrees, scale 1 +- scale, shear +-shear degrees, centre
    0.5 +- translate.
    """
    angle, factor, shear_x, shear_y, x, y = random.uniform(-1.0, 1.0, 6).tolist()
    return Affine(
        angle * degrees,
        1.0 + factor * scale,
        (shear_x * shear, shear_y * shear),
        (0.5 + x * translate, 0.5 + y * translate),
    )


def warp(scene: Scene, affine: Affine, result: tuple[int, int] | None = None) -> Scene:
    """The scene after an affine map.

    The image is interpolated linearly with 114 around it, masks take the nearest pixel with 0 around. A box becomes
    the box around its four corners, cut at the image; `keep_boxes` says which remain.

    Args:
        scene: before.
        affine: what to do.
        result: (height, width) of the result, None for the scene's own.
    """
    height, width = result or scene.size
    matrix = affine.matrix(scene.size, (height, width))
    if (height, width) == scene.size and np.array_equal(matrix, np.eye(2, 3)):
        image, planes = scene.image, scene.planes
    else:
        image = cv2.warpAffine(
            scene.image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(PAD_VALUE,) * 3
        )
        planes = tuple(cv2.warpAffine(p, matrix, (width, height), flags=cv2.INTER_NEAREST) for p in scene.planes)
    boxes = scene.boxes
    if len(boxes):
        corners = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2) @ matrix[:, :2].T + matrix[:, 2]
        moved = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        moved = np.clip(moved, 0.0, (width, height) * 2)
        kept = keep_boxes(boxes[:, :4] * affine.scale, moved)
        boxes = np.column_stack([moved, boxes[:, 4]])[kept]
    return Scene(image, boxes, planes, scene.has_boxes)


def keep_boxes(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes (n, 4) are still worth learning: sides above 2 px, more than a fifth of their area left, and
    neither side ten times the other.
    """
    width, height = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    area = (before[:, 2] - before[:, 0]) * (before[:, 3] - before[:, 1])
    aspect = np.maximum(width / (height + _EPSILON), height / (width + _EPSILON))
    left = width * height / (area + _EPSILON)
    return (width > _MIN_SIDE) & (height > _MIN_SIDE) & (left > _MIN_AREA) & (aspect < _MAX_ASPECT)
