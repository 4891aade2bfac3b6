"""Mirror images."""

from __future__ import annotations

import cv2

from hybridnets.training.augment.scene import Scene

__all__ = ["flip_left_right", "flip_up_down"]


def flip_left_right(scene: Scene) -> Scene:
    """x becomes width - x, in image, boxes and masks."""
    return _flip(scene, axis=0)


def flip_up_down(scene: Scene) -> Scene:
    """y becomes height - y, in image, boxes and masks."""
    return _flip(scene, axis=1)


def _flip(scene: Scene, *, axis: int) -> Scene:
    code, length = (1, scene.size[1]) if axis == 0 else (0, scene.size[0])
    boxes = scene.boxes.copy()
    boxes[:, axis] = length - scene.boxes[:, axis + 2]
    boxes[:, axis + 2] = length - scene.boxes[:, axis]
    planes = tuple(cv2.flip(plane, code) for plane in scene.planes)
    return Scene(cv2.flip(scene.image, code), boxes, planes, scene.has_boxes)
