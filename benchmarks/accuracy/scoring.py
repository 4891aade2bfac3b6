"""From the network's raw outputs on one labelled image to the counts that every figure is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from typing import Protocol as Shape

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.coco import match_coco
from benchmarks.accuracy.matching import confusion_pairs, count_hits, overlaps
from benchmarks.accuracy.protocols import Heads, Protocol
from benchmarks.accuracy.records import ImageRecord
from benchmarks.accuracy.segmentation import class_channels, count_pixels
from hybridnets.bundle.form import UNFUSED, GraphForm
from hybridnets.errors import HnxError
from hybridnets.postprocess import Detections, Postprocessor
from hybridnets.preprocess import Letterbox

if TYPE_CHECKING:
    from hybridnets.bundle import Bundle

__all__ = ["ImageScorer", "Labelled", "score_boxes"]


class Labelled(Shape):
    """What is needed of a `hybridnets.dataset.Sample`."""

    @property
    def name(self) -> str: ...
    @property
    def letterbox(self) -> Letterbox: ...
    @property
    def boxes(self) -> NDArray[np.float64]: ...
    @property
    def target(self) -> NDArray[np.uint8]: ...
    @property
    def frame_target(self) -> NDArray[np.uint8] | None: ...
    @property
    def has_boxes(self) -> bool: ...


def score_boxes(
    labels: NDArray[np.float32], number: NDArray[np.int64], found: Detections, classes: int
) -> dict[str, Any]:
    """The detection part of an `ImageRecord`.

    Args:
        labels, number: (n, 4) x1, y1, x2, y2 in frame pixels and (n,) class.
        found: predictions in frame pixels.
        classes: number of detection classes.
    """
    iou = overlaps(labels, found.boxes)
    kind = np.uint8 if classes <= 256 else np.uint16
    return {
        "labels": number.astype(kind),
        "scores": found.scores.astype(np.float32, copy=False),
        "classes": found.classes.astype(kind),
        "hits": count_hits(iou, number, found.classes),
        "confusion": confusion_pairs(iou, number, found.classes, found.scores, classes),
        "coco": match_coco(iou, labels, found.boxes, number, found.classes),
    }


class ImageScorer:
    """Scores images of one network under one protocol.

    Args:
        protocol: thresholds, and where segmentation is scored.
        heads: the outputs that are scored.
        target: (height, width) of the network's input.
        anchors: float32 (1, A, 4) y1, x1, y2, x2; None without a detection head.
        form: what the graph has already done.

    Raises:
        HnxError: the graph suppresses boxes with other thresholds than the protocol's.
    """

    def __init__(
        self,
        protocol: Protocol,
        heads: Heads,
        target: tuple[int, int],
        anchors: NDArray[np.float32] | None,
        *,
        form: GraphForm = UNFUSED,
    ) -> None:
        self.protocol, self.heads = protocol, heads
        self._postprocess = Postprocessor(
            anchors, target, heads.seg_mode, conf=protocol.conf, iou=protocol.iou, form=form
        )

    @classmethod
    def for_bundle(cls, protocol: Protocol, bundle: Bundle) -> ImageScorer:
        """A scorer for the outputs of a bundle.

        Raises:
            HnxError: its anchors cannot be read, or its graph suppresses boxes with other thresholds.
        """
        return cls(protocol, Heads.for_bundle(bundle), bundle.target, bundle.anchors(), form=bundle.form)

    def score(self, sample: Labelled, outputs: Mapping[str, NDArray[Any]], input_sha256: str = "") -> ImageRecord:
        """Score one image.

        Args:
            sample: the labels; with `frame_target` when the protocol scores masks at frame size.
            outputs: arrays of batch 1 by role, as `runtimes.predictor.Pipeline.network` gives them; not kept.
            input_sha256: of the network's input.

        Raises:
            HnxError: a label's class is not one of the network's.
        """
        parts: dict[str, Any] = {}
        if self.heads.classes:
            parts = self._detections(sample, outputs)
        if self.heads.seg_classes:
            parts["seg"] = self._pixels(sample, outputs["segmentation"])
        return ImageRecord(name=sample.name, input_sha256=input_sha256, **parts)

    def _detections(self, sample: Labelled, outputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        found = self._postprocess.boxes(outputs)
        if not sample.has_boxes:
            # nobody knows which of them are right: the image has no part in any figure of detection
            found = Detections(found.boxes[:0], found.scores[:0], found.classes[:0])
        # upstream keeps labels as float32 too, and maps both with the same function
        labels = sample.letterbox.boxes_to_frame(sample.boxes[:, :4].astype(np.float32))
        boxes = sample.letterbox.boxes_to_frame(found.boxes)
        number = sample.boxes[:, 4].astype(np.int64)
        count = len(self.heads.classes)
        if len(number) and not 0 <= number.min() <= number.max() < count:
            raise HnxError(
                f"Labels of {sample.name} hold class {number.max()}",
                why=f"the network has {count} classes, counted from 0",
                fix="name the project that the network was trained with",
            )
        return score_boxes(labels, number, replace(found, boxes=boxes), count)

    def _pixels(self, sample: Labelled, maps: NDArray[Any]) -> NDArray[np.int64]:
        """int64 (C, 4) counts of `Heads.channels`."""
        mode, channels = self.heads.seg_mode, len(self.heads.channels)
        at_frame = self.protocol.at == "frame"
        target = sample.frame_target if at_frame else sample.target
        if target is None:
            raise HnxError(f"No masks at frame size for {sample.name}", fix="read samples with frame_target=True")
        after = self._postprocess
        predicted = after.segment(maps, sample.letterbox) if at_frame else after.input_map(maps)
        if mode == "multiclass":
            return count_pixels(class_channels(predicted, channels), class_channels(target, channels))
        predicted, target = (array.reshape(-1, *array.shape[-2:]) for array in (predicted, target))
        if mode == "multilabel" and at_frame:
            # what is delivered has no background channel: it is what no class covers, as in the target
            predicted = np.concatenate([1 - predicted.max(axis=0, keepdims=True), predicted])
        return count_pixels(predicted, target)
