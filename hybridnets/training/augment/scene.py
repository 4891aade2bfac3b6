"""A labelled image between reading and the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.config import SegMode
from hybridnets.dataset import Sample

__all__ = ["Scene", "scene_of", "target_of"]

_BITS = 8  # classes a plane


@dataclass(frozen=True)
class Scene:
    """An image and its labels, all at the image's size.

    The classes of a pixel are bits, so one plane warped with the nearest neighbour moves eight masks at once, nothing
    outside an image is 0 in every mode, and the masks of two images are joined with `|`.

    Attributes:
        image: uint8 (h, w, 3) BGR.
        boxes: float64 (n, 5): x1, y1, x2, y2, class in pixels of the image.
        planes: uint8 (h, w) each: bit k of plane p is the foreground class 8 p + k.
        has_boxes: whether boxes are labelled everywhere in it.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    planes: tuple[NDArray[np.uint8], ...]
    has_boxes: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]


def scene_of(sample: Sample, mode: SegMode) -> Scene:
    """A sample at the size it has in the network's input, without the padding.

    The image is resized as for inference. Upstream changes frames that are not 16:9 before the last resize; here that
    resize is done already, so they are interpolated once less.
    """
    place = sample.letterbox
    height, width = place.content
    image = sample.frame
    if place.content != place.frame:
        shrinks = max(place.content) < max(place.frame)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    boxes = sample.boxes.copy()
    boxes[:, :4] -= (place.left, place.top) * 2
    return Scene(image, boxes, _planes(place.crop(sample.target), mode), sample.has_boxes)


def _planes(target: NDArray[np.uint8], mode: SegMode) -> tuple[NDArray[np.uint8], ...]:
    if mode == "multiclass":  # a class number for each pixel
        number = np.ascontiguousarray(target)
        count = -(-int(number.max(initial=1)) // _BITS)
        return tuple(cv2.LUT(number, _bit_of_class(plane)) for plane in range(count))
    masks = target if mode == "binary" else target[1:]  # channel 0 is what no other holds
    planes = []
    for first in range(0, len(masks), _BITS):
        plane = masks[first].copy()
        for bit, mask in enumerate(masks[first + 1 : first + _BITS], start=1):
            plane |= mask << bit  # 0.1 ms a class; np.packbits over the first axis takes 3
        planes.append(plane)
    return tuple(planes)


def _bit_of_class(plane: int) -> NDArray[np.uint8]:
    """Class number 0..255, 0 background, to its bit in a plane."""
    table = np.zeros(256, np.uint8)
    first = _BITS * plane + 1
    for bit in range(min(_BITS, 256 - first)):
        table[first + bit] = 1 << bit
    return table


def target_of(planes: Sequence[NDArray[np.uint8]], names: Sequence[str], mode: SegMode) -> NDArray[np.uint8]:
    """The segmentation target of planes (H, W), as `hybridnets.dataset.Sample` has it.

    Args:
        planes: of a `Scene`; missing ones are empty.
        names: of the foreground classes. In multiclass mode `lane` wins every overlap, of the others the later one.
        mode: which target.
    """
    shape = planes[0].shape
    if mode == "multiclass":
        order = sorted(range(len(names)), key=lambda index: (names[index] == "lane", index))
        target = np.zeros(shape, np.uint8)
        for number, plane in enumerate(planes):
            table = _class_of_bits([k for k in order if k // _BITS == number])
            found = cv2.LUT(plane, table)
            # classes of later planes come later in the order, but for a lane in an earlier one
            target = found if number == 0 else _join(target, found, order)
        return target
    masks = np.zeros((len(names), *shape), np.uint8)
    for index in range(len(names)):
        if index // _BITS < len(planes):
            masks[index] = (planes[index // _BITS] >> (index % _BITS)) & 1
    if mode == "binary":
        return masks
    return np.concatenate([1 - masks.max(axis=0, keepdims=True), masks])


def _class_of_bits(order: Sequence[int]) -> NDArray[np.uint8]:
    """Bits of one plane to the number of the last class of `order` among them."""
    table = np.zeros(256, np.uint8)
    values = np.arange(256)
    for index in order:
        table[(values >> (index % _BITS)) & 1 == 1] = index + 1
    return table


def _join(first: NDArray[np.uint8], second: NDArray[np.uint8], order: Sequence[int]) -> NDArray[np.uint8]:
    """Of two classes of each pixel the one that comes later in `order`."""
    rank = np.zeros(256, np.uint8)
    for place, index in enumerate(order):
        rank[index + 1] = place + 1
    return np.where(rank[second] > rank[first], second, first)
