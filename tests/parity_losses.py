"""Inputs of the recorded losses: drawn from named random streams, as `tests.parity` does it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hybridnets.config import SegMode
from tests.parity import stream

ANCHORS = 6138  # rows at 256x128

# boxes of six images: x1, y1, x2, y2, class (modulo the number of classes)
_BOXES: tuple[tuple[tuple[float, ...], ...], ...] = (
    (
        (20.0, 30.0, 60.0, 58.0, 0),
        (48.5, 40.25, 90.0, 70.0, 1),
        (100.0, 20.0, 200.0, 110.0, 2),
        (210.0, 100.0, 217.0, 108.0, 0),  # small
        (230.0, 90.0, 270.0, 120.0, 1),  # partly outside
    ),
    (),
    ((150.0, 60.0, 158.0, 68.0, 2),),  # only a small one
    (
        (40.0, 40.0, 50.0, 50.0, 0),  # 100 px^2 is small
        (80.0, 40.0, 90.0, 50.1, 1),  # just above is not
        (120.0, 64.0, 150.0, 84.0, 0),  # twins of different class
        (120.0, 64.0, 150.0, 84.0, 2),
        (200.0, 50.0, 200.0, 50.0, 0),  # no area
    ),
    ((10.0, 60.0, 240.0, 63.0, 0),),  # too thin for any anchor
    ((0.0, 0.0, 256.0, 128.0, 1), (64.0, 32.0, 192.0, 96.0, 0)),  # the whole image
)


def detection(classes: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Regression (6, A, 4), scores (6, A, classes) with some outside the clamped range, boxes (6, 7, 5)."""
    name, count = f"loss/detection/nc{classes}", len(_BOXES)
    regression = 0.3 * stream(f"{name}/regression").standard_normal((count, ANCHORS, 4))
    logits = -3.0 + 1.5 * stream(f"{name}/classification").standard_normal((count, ANCHORS, classes))
    scores = (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
    flat = scores.reshape(-1)
    flat[::997] = 0.0
    flat[500::1009] = 1.0
    boxes = np.full((count, max(map(len, _BOXES)) + 2, 5), -1.0, np.float32)
    for rows, image in zip(boxes, _BOXES, strict=True):
        for row, box in zip(rows, image, strict=False):
            row[:] = (*box[:4], box[4] % classes)
    return regression.astype(np.float32), scores, boxes


def _blocks(name: str, values: Sequence[int], side: int) -> NDArray[np.int64]:
    """(2, 64, 96) of squares, each with one of the values."""
    shape = (2, -(-64 // side), -(-96 // side))
    small = np.asarray(values)[stream(name).integers(0, len(values), shape)]
    return small.repeat(side, 1).repeat(side, 2)[:, :64, :96].astype(np.int64)


def segmentation(mode: SegMode, *, missing: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits (2, C, 64, 96) and target; `missing`: the last class never occurs."""
    name = f"loss/segmentation/{mode}{'/missing' if missing else ''}"
    channels = 1 if mode == "binary" else 3
    logits = (2.0 * stream(f"{name}/logits").standard_normal((2, channels, 64, 96))).astype(np.float32)
    if mode == "multiclass":
        return logits, _blocks(f"{name}/target", [0, 1] if missing else [0, 0, 1, 2], 8)
    if mode == "binary":
        target = _blocks(f"{name}/target", [0, 0, 1], 8)[:, None]
        return logits, target * 0 if missing else target
    first = _blocks(f"{name}/target/a", [0, 0, 1], 8)
    second = _blocks(f"{name}/target/b", [0, 0, 0, 1], 4) * (0 if missing else 1)
    return logits, np.stack([1 - np.maximum(first, second), first, second], 1)


def sha256(array: NDArray[np.generic]) -> str:
    """Of the values in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
