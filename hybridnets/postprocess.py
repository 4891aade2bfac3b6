"""From the network's raw outputs to boxes and masks in frame pixels. numpy and OpenCV only.

Scores are compared with the threshold before anything is decoded: a frame has 46035 anchors at 640x384 and a few
hundred survivors, so decoding first would do a hundred times the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.bundle.form import UNFUSED, GraphForm
from hybridnets.config import SegMode
from hybridnets.enlarge import Enlarger
from hybridnets.errors import HnxError
from hybridnets.preprocess import Letterbox
from hybridnets.suppression import MANY, suppress, worth_it

__all__ = ["Detections", "Postprocessor", "Prediction", "class_map", "decode", "nms", "upsample_mask"]


@dataclass(frozen=True)
class Detections:
    """Boxes of one image, best score first.

    Attributes:
        boxes: float32 (n, 4): x1, y1, x2, y2.
        scores: float32 (n,).
        classes: int64 (n,).
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Detections:
        """No boxes."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Prediction:
    """Everything the network says about one frame, in frame pixels.

    Attributes:
        detections: boxes of the frame (empty when the bundle has no detection head).
        segmentation: binary and multiclass: uint8 (h, w), 0 background, k the k-th class. Multilabel: uint8
            (K, h, w) of 0 and 1. None when the bundle has no segmentation head.
        letterbox: the geometry between frame and network input.
        seg_classes: number of segmentation classes without the background; None where nobody said.
    """

    detections: Detections
    segmentation: NDArray[np.uint8] | None
    letterbox: Letterbox
    seg_classes: int | None = None

    def mask(self, index: int) -> NDArray[np.bool_]:
        """(h, w) truth map of the `index`-th segmentation class, counted from 0 without the background.

        Raises:
            HnxError: there is no such class, or no segmentation.
        """
        if self.segmentation is None:
            raise HnxError("This bundle has no segmentation output", fix="export with --heads det,seg")
        count = len(self.segmentation) if self.segmentation.ndim == 3 else self.seg_classes
        if not isinstance(index, int | np.integer) or index < 0 or (count is not None and index >= count):
            known = "" if count is None else f", and there are {count}"
            raise HnxError(
                f"There is no segmentation class {index!r}",
                why=f"they count from 0 without the background{known}",
                fix="bundle.seg_classes has their names in this order",
            )
        if self.segmentation.ndim == 3:
            return self.segmentation[index] > 0
        return self.segmentation == index + 1


def decode(
    regression: NDArray[np.float32], anchors: NDArray[np.float32], width: int, height: int
) -> NDArray[np.float32]:
    """Boxes of regression rows.

    cy' = ty * ha + cy, cx' = tx * wa + cx, h = exp(th) * ha, w = exp(tw) * wa. Clipped half-open as upstream does:
    x1, y1 from below at 0, x2 from above at width-1, y2 at height-1, so a box outside the image keeps a negative
    size.

    Args:
        regression: float32 (n, 4): ty, tx, th, tw.
        anchors: float32 (n, 4): y1, x1, y2, x2 of the same rows.

    Returns:
        float32 (n, 4): x1, y1, x2, y2 in input pixels.
    """
    ya1, xa1, ya2, xa2 = anchors.T
    ha, wa = ya2 - ya1, xa2 - xa1
    boxes = np.empty((len(regression), 4), np.float32)
    # a network that has hardly learnt gives sides beyond any number, which the border cuts off
    with np.errstate(over="ignore", invalid="ignore"):
        h, w = np.exp(regression[:, 2]) * ha, np.exp(regression[:, 3]) * wa
        cy = regression[:, 0] * ha + (ya1 + ya2) / 2
        cx = regression[:, 1] * wa + (xa1 + xa2) / 2
        np.maximum(cx - w / 2, 0, out=boxes[:, 0])
        np.maximum(cy - h / 2, 0, out=boxes[:, 1])
        np.minimum(cx + w / 2, width - 1, out=boxes[:, 2])
        np.minimum(cy + h / 2, height - 1, out=boxes[:, 3])
    return boxes


def nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], classes: NDArray[np.int64], threshold: float
) -> NDArray[np.int64]:
    """Class-wise non-maximum suppression with torchvision's semantics.

    A box is dropped when its IoU with a kept, better box of its class is strictly above `threshold`; areas have no
    +1; equal scores keep their order; there is no limit on the number of boxes. Boxes without a positive width and
    height overlap nothing and stay.

    Args:
        boxes: float32 (n, 4): x1, y1, x2, y2.
        scores: float32 (n,), all above 0 (OpenCV ignores others).
        classes: int64 (n,).
        threshold: IoU in [0, 1].

    Returns:
        int64 (m,): indices of the kept boxes, best score first.
    """
    positive = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    keep = [np.flatnonzero(~positive)]
    corner, size = boxes[:, :2].astype(np.float64), (boxes[:, 2:].astype(np.float64) - boxes[:, :2])
    several = bool((classes != classes[:1]).any())
    for index in np.unique(classes[positive]) if several else classes[:1]:
        rows = np.flatnonzero(positive & (classes == index) if several else positive)
        if len(rows) >= MANY:
            best_first = rows[np.argsort(-scores[rows], kind="stable")]
            wide = boxes[best_first].astype(np.float64)
            quick = suppress(wide, threshold) if worth_it(wide, threshold) else None
            if quick is not None:
                keep.append(best_first[quick])
                continue
        xywh = np.concatenate([corner[rows], size[rows]], axis=1)
        # OpenCV's C++ loop: 0.1 ms for 300 boxes where the same loop in numpy takes 1 ms
        kept = cv2.dnn.NMSBoxes(xywh.tolist(), scores[rows].tolist(), 0.0, threshold)
        keep.append(rows[np.asarray(kept, np.int64).ravel()])
    indices = np.sort(np.concatenate(keep))
    return indices[np.argsort(-scores[indices], kind="stable")]


def class_map(logits: NDArray[np.float32], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """First channel with the largest logit of (C, h, w), as uint8 (h, w).

    Running maximum with OpenCV's vector code: 0.14 ms at 360x640x3 where numpy's argmax takes 4.7 ms.
    """
    channels, h, w = logits.shape
    result = np.zeros((h, w), np.uint8) if out is None else out
    result.fill(0)
    best = logits[0]
    greater = np.empty((h, w), np.uint8)
    for channel in range(1, channels):
        cv2.compare(logits[channel], best, cv2.CMP_GT, dst=greater)
        cv2.copyTo(np.full((h, w), channel, np.uint8), greater, result)
        if channel + 1 < channels:
            best = cv2.max(logits[channel], best)
    return result


def upsample_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (h, w) to (height, width) = `size`, nearest neighbour."""
    (h, w), (height, width) = mask.shape, size
    if (h, w) == size:
        return mask
    factor = height // h
    if 1 < factor <= 8 and (h * factor, w * factor) == size:
        # whole pixels, as from 640x360 to 1280x720: 0.07 ms where resize takes 0.27
        wide = cv2.merge([mask] * factor).reshape(h, 1, width)
        return np.broadcast_to(wide, (h, factor, width)).reshape(size)
    return cv2.resize(np.ascontiguousarray(mask), (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


class Postprocessor:
    """Outputs of one input size and class layout to a `Prediction`.

    Args:
        anchors: float32 (1, A, 4) y1, x1, y2, x2; None when the bundle has no detection head.
        target: (height, width) of the network's input.
        seg_mode: how the segmentation logits are to be read.
        conf: boxes need a score strictly above it, in [0, 1]; None is what the graph suppresses with, else 0.25.
        iou: overlap above which the weaker box is dropped, in [0, 1]; None is the graph's, else 0.3.
        form: what the graph has already done.
        seg_classes: number of segmentation classes, for `Prediction.mask`.

    Raises:
        HnxError: a threshold is outside [0, 1], or not to be had from a graph that suppresses (exit code 2).
    """

    def __init__(
        self,
        anchors: NDArray[np.float32] | None,
        target: tuple[int, int],
        seg_mode: SegMode = "multiclass",
        *,
        conf: float | None = None,
        iou: float | None = None,
        form: GraphForm = UNFUSED,
        seg_classes: int | None = None,
    ) -> None:
        self.seg_classes = seg_classes
        self.anchors = None if anchors is None else anchors.reshape(-1, 4)
        self.target = target
        self.seg_mode: SegMode = seg_mode
        self.conf, self.iou = form.thresholds(conf, iou)
        self.form = form
        self._enlargers: dict[tuple[int, ...], Enlarger] = {}

    def boxes(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        """Boxes of one image in input pixels, from the outputs by role; none without a detection head."""
        if "detections" in outputs:
            return self._suppressed(outputs["detections"])
        if "boxes" in outputs:
            return self._keep(outputs["boxes"].reshape(-1, 4), None, outputs["classification"])
        if "regression" in outputs:
            return self.detect(outputs["regression"], outputs["classification"])
        return Detections.empty()

    def detect(self, regression: NDArray[np.float32], classification: NDArray[np.float32]) -> Detections:
        """Boxes of one image in input pixels.

        Args:
            regression: (1, A, 4) or (A, 4).
            classification: (1, A, num_classes) or (A, num_classes), after the sigmoid.
        """
        if self.anchors is None:
            raise HnxError("No anchors for this bundle", fix="put anchor_{H}_{W}.npy beside the ONNX file")
        return self._keep(regression.reshape(-1, 4), self.anchors, classification)

    def _keep(
        self,
        places: NDArray[np.float32],
        anchors: NDArray[np.float32] | None,
        classification: NDArray[np.float32],
    ) -> Detections:
        """What is above both thresholds; `places` are regression rows of the anchors, or boxes without them."""
        scores = classification.reshape(len(places), -1)
        best = scores[:, 0] if scores.shape[1] == 1 else scores.max(axis=1)
        rows = np.flatnonzero(best > np.float32(self.conf))
        if not len(rows):
            return Detections.empty()
        classes = scores[rows].argmax(axis=1)
        boxes = places[rows]
        if anchors is not None:
            boxes = decode(boxes, anchors[rows], self.target[1], self.target[0])
        kept = nms(boxes, best[rows], classes, self.iou)
        return Detections(boxes[kept], best[rows][kept], classes[kept])

    def _suppressed(self, rows: NDArray[np.float32]) -> Detections:
        """(1, K, 6) x1, y1, x2, y2, score, class; a higher threshold than the graph's drops no box for another."""
        rows = rows.reshape(-1, 6)
        # a class that is no number of one belongs to no box; NaN neither
        rows = rows[(rows[:, 4] > np.float32(self.conf)) & (rows[:, 5] >= 0) & (rows[:, 5] < 2**31)]
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        return Detections(rows[:, :4].copy(), rows[:, 4].copy(), rows[:, 5].astype(np.int64))

    def segment(self, maps: NDArray[Any], box: Letterbox) -> NDArray[np.uint8]:
        """Masks at frame size of one image's segmentation output; see `Prediction.segmentation`."""
        content = self._content(maps, box.top, box.left, box.content)
        if self.seg_mode != "multilabel":
            return upsample_mask(content, box.frame)
        return np.stack([upsample_mask(channel, box.frame) for channel in content[1:]])

    def input_map(self, maps: NDArray[Any]) -> NDArray[np.uint8]:
        """What one image's segmentation output says at the network's input size, padding included.

        Returns:
            Multiclass: uint8 (H, W), the class; binary: (H, W), multilabel: (C, H, W), 0 or 1, the background first.
        """
        return self._content(maps, 0, 0, self.target)

    def _content(self, maps: NDArray[Any], top: int, left: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        h, w = maps.shape[-2:]
        maps = maps.reshape(-1, h, w)
        if self.form.segmentation == "lowres":
            key = (h, w, top, left, *size)
            if key not in self._enlargers:
                self._enlargers = {key: Enlarger((h, w), self.target, top, left, size)}  # of one size of frames
            content = self._enlargers[key](maps)
        else:
            content = maps[:, top : top + size[0], left : left + size[1]]
        if self.form.segmentation == "classmap":
            found = content.copy()  # what it is a view of, the next frame overwrites
        elif self.seg_mode == "multiclass":
            return class_map(content)
        else:
            # sigmoid(x) >= 0.5 is x >= 0
            found = (content >= 0).view(np.uint8)
        return found if self.seg_mode == "multilabel" else found[0]

    def __call__(self, outputs: Mapping[str, NDArray[Any]], box: Letterbox) -> Prediction:
        """A `Prediction` from one image's outputs by role (those present); see `GraphForm`."""
        found = self.boxes(outputs)
        detections = Detections(box.boxes_to_frame(found.boxes), found.scores, found.classes)
        segmentation = self.segment(outputs["segmentation"], box) if "segmentation" in outputs else None
        return Prediction(detections, segmentation, box, self.seg_classes)
