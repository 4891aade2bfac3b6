"""What a sheet shows of one frame: its label, predictions small enough to wait, and which box found which label."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.choose import WORKING_CONF
from benchmarks.accuracy.matching import THRESHOLDS, overlaps
from hybridnets.dataset import Sample
from hybridnets.postprocess import Detections, Prediction, upsample_mask

__all__ = ["Packed", "Truth", "match", "pack", "truth"]


@dataclass(frozen=True)
class Truth:
    """The label of one frame, in frame pixels.

    Attributes:
        frame: uint8 (h, w, 3) BGR.
        boxes: float64 (n, 4): x1, y1, x2, y2.
        classes: int64 (n,).
        index: uint8 (h, w), 0 background and k the k-th segmentation class; where classes overlap, the one listed
            last. None without labels of that kind.
    """

    frame: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    index: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Packed:
    """A prediction in some 10 kB, so that those of many frames can wait for the other rows' turn.

    Attributes:
        detections: boxes above `WORKING_CONF`, in frame pixels.
        size: (height, width) of the frame.
    """

    detections: Detections
    size: tuple[int, int]
    _mask: bytes | None

    @property
    def index(self) -> NDArray[np.uint8] | None:
        """As `Truth.index`."""
        if self._mask is None:
            return None
        return np.frombuffer(zlib.decompress(self._mask), np.uint8).reshape(self.size)


def truth(sample: Sample, *, segmentation: bool) -> Truth:
    """The label of a sample; masks of the frame itself where the sample has them, else those of the input."""
    box = sample.letterbox
    boxes = box.boxes_to_frame(sample.boxes[:, :4].astype(np.float32)).astype(np.float64)
    index = None
    if segmentation:
        target = sample.target if sample.frame_target is None else sample.frame_target
        # multilabel starts with the background; binary has its only class in channel 0
        classes = target if target.ndim == 2 or len(target) == 1 else target[1:]
        index = _index(classes)
        if sample.frame_target is None:
            index = upsample_mask(np.ascontiguousarray(box.crop(index)), box.frame)
    return Truth(sample.frame, boxes, sample.boxes[:, 4].astype(np.int64), index)


def pack(prediction: Prediction) -> Packed:
    """Keep what a sheet shows of a prediction."""
    found = prediction.detections
    # a network in half precision may give boxes that are no numbers: they cannot be drawn
    keep = (found.scores > WORKING_CONF) & np.isfinite(found.boxes).all(axis=1)
    size = prediction.letterbox.frame
    mask = prediction.segmentation
    data = None if mask is None else zlib.compress(_index(mask).tobytes(), 1)
    return Packed(Detections(found.boxes[keep], found.scores[keep], found.classes[keep]), size, data)


def match(label: Truth, found: Detections) -> NDArray[np.int64]:
    """(p,) index of the label that each predicted box found, -1 for false ones.

    As the scorer does it: every prediction takes the label of its class that it overlaps most, by at least 0.5; of
    several predictions of one label, the one with the best score keeps it.
    """
    result = np.full(len(found), -1, np.int64)
    if not len(label.boxes) or not len(found):
        return result
    iou = overlaps(label.boxes, found.boxes).astype(np.float32)
    iou[label.classes[:, None] != found.classes] = 0
    best = iou.max(axis=0)
    rows = np.flatnonzero(best >= THRESHOLDS[0])
    chosen = len(label.boxes) - 1 - iou[::-1, rows].argmax(axis=0)  # of equals the later, as `count_hits` does it
    _, first = np.unique(chosen, return_index=True)
    result[rows[first]] = chosen[first]
    return result


def _index(segmentation: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w) class map of (h, w), or of (K, h, w) masks: the class listed last shows, as in `draw_overlay`."""
    if segmentation.ndim == 2:
        return segmentation
    index = np.zeros(segmentation.shape[1:], np.uint8)
    for number, mask in enumerate(segmentation, start=1):
        index[mask > 0] = number
    return index
