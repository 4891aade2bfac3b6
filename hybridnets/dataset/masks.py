"""Segmentation masks: one grey PNG for each class, combined to the target that the network is held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.config import SegMode
from hybridnets.errors import HnxError, from_os_error
from hybridnets.preprocess import Letterbox, resize_into

__all__ = ["MAX_BYTES", "combine", "letterbox_mask", "read_mask"]

MAX_BYTES = 256 << 20
_READ_FLAGS = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION


def read_mask(path: Path) -> NDArray[np.uint8]:
    """A mask as uint8 (h, w); colours become grey as upstream reads them, every value above 0 is foreground.

    Raises:
        HnxError: missing, empty, above 256 MiB, or damaged.
    """
    what = f"Cannot read mask {path}"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise HnxError(what, why="it is larger than 256 MiB", fix="check that this is the right file")
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise from_os_error(what, error) from error
    if not data.size:
        raise HnxError(what, why="the file is empty (0 bytes)", fix="copy or make it again")
    try:
        mask = cv2.imdecode(data, _READ_FLAGS)
    except cv2.error:
        mask = None
    if mask is None:
        raise HnxError(what, why="it is cut off, damaged, or no picture", fix="copy or make it again")
    return mask.view(np.uint8)


def letterbox_mask(mask: NDArray[np.uint8], place: Letterbox) -> NDArray[np.uint8]:
    """A mask (h, w) in its place in the input (H, W), with 0 around it.

    One resize, as `hybridnets.preprocess` does it for the image: INTER_AREA when it shrinks. A pixel that is partly
    covered keeps a value above 0 and so counts as foreground: lines of 2 px at 1280x720 are 2 px at 640 wide.
    Upstream resizes frames that are not 16:9 twice and loses the borders in the second, linear step.
    """
    canvas = np.zeros(place.target, np.uint8)
    resize_into(mask, place, canvas)
    return canvas


def combine(masks: Sequence[NDArray[np.uint8]], names: Sequence[str], mode: SegMode) -> NDArray[np.uint8]:
    """Masks of equal size (H, W), foreground above 0, to the target.

    Args:
        masks: one for each class, in the order of `seg_list`.
        names: of the classes.
        mode: multiclass gives (H, W), 0 background and k the k-th class; the class called lane wins every overlap, of
            the others the later one. binary gives (1, H, W) of 0 and 1. multilabel gives (1 + C, H, W) of 0 and 1,
            channel 0 the complement of the union; overlaps are kept.
    """
    if mode == "multiclass":
        target = np.zeros(masks[0].shape, np.uint8)
        order = sorted(range(len(masks)), key=lambda index: (names[index] == "lane", index))
        for index in order:
            # an order of magnitude faster than target[mask > 0] = index + 1
            cv2.copyTo(np.full_like(target, index + 1), masks[index], target)
        return target
    flags = [np.minimum(mask, 1) for mask in masks]
    if mode == "binary":
        return flags[0][np.newaxis]
    return np.stack([1 - np.maximum.reduce(flags), *flags])
