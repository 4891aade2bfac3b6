"""Several images in one (Bochkovskiy et al. 2020, YOLOv4; Zhang et al. 2018, mixup)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hybridnets.preprocess import PAD_VALUE
from hybridnets.training.augment.scene import Scene

__all__ = ["mix", "mosaic"]

_BETA = 32.0  # both parameters: weights near one half


def mosaic(scenes: Sequence[Scene], size: tuple[int, int], random: np.random.Generator) -> Scene:
    """Four scenes around a random point of a canvas twice as large as the input, in random order.

    The point lies in the middle half of the canvas in both directions. What reaches beyond the canvas is cut off; the
    rest is 114, masks 0. Boxes are cut at the canvas and none is dropped here; none at all is fine.

    Args:
        scenes: four.
        size: (height, width) of the network's input.
        random: draws the point and the order.
    """
    height, width = size
    x = int(random.uniform(width / 2.0, width * 1.5))
    y = int(random.uniform(height / 2.0, height * 1.5))
    image = np.full((2 * height, 2 * width, 3), PAD_VALUE, np.uint8)
    planes = [np.zeros(image.shape[:2], np.uint8) for _ in range(max(len(scene.planes) for scene in scenes))]
    boxes = []
    for place, index in enumerate(random.permutation(4)):
        scene = scenes[index]
        h, w = scene.size
        # each scene touches the point with one corner: above left, above right, below left, below right
        left = x - w if place % 2 == 0 else x
        top = y - h if place < 2 else y
        columns = slice(max(0, left), min(2 * width, left + w))
        rows = slice(max(0, top), min(2 * height, top + h))
        source = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        image[rows, columns] = scene.image[source]
        for plane, part in zip(planes, scene.planes, strict=False):
            plane[rows, columns] = part[source]
        moved = scene.boxes.copy()
        moved[:, :4] += (left, top) * 2
        low, high = (columns.start, rows.start) * 2, (columns.stop, rows.stop) * 2
        moved[:, :4] = np.clip(moved[:, :4], low, high)
        boxes.append(moved)
    joined = np.concatenate(boxes)
    # a box that lies wholly in what was cut off has no area left
    joined = joined[(joined[:, 2] > joined[:, 0]) & (joined[:, 3] > joined[:, 1])]
    return Scene(image, joined, tuple(planes), all(scene.has_boxes for scene in scenes))


def mix(first: Scene, second: Scene, random: np.random.Generator) -> Scene:
    """Two scenes of equal size blended with weights r and 1 - r, r from Beta(32, 32); both keep all their labels."""
    r = float(random.beta(_BETA, _BETA))
    image = cv2.addWeighted(first.image, r, second.image, 1.0 - r, 0.0)
    longer, shorter = sorted((first.planes, second.planes), key=len, reverse=True)
    joined = [a | b for a, b in zip(longer, shorter, strict=False)]
    boxes = np.concatenate([first.boxes, second.boxes])
    return Scene(image, boxes, (*joined, *longer[len(shorter) :]), first.has_boxes and second.has_boxes)
