"""The figures of one row as functions of how often each image counts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.detection import ClassFigures, ClassRanking, average_precision, rank
from benchmarks.accuracy.protocols import Heads
from benchmarks.accuracy.records import ImageRecord
from benchmarks.accuracy.segmentation import balanced_accuracy, intersection_over_union, weighted_mean

__all__ = ["Weighted"]


class Weighted:
    """Figures of one row when every image counts as often as its weight says.

    Args:
        heads: the outputs.
        records: sorted by name.
    """

    def __init__(self, heads: Heads, records: Sequence[ImageRecord]) -> None:
        self.heads, self.records = heads, records

    @cached_property
    def rankings(self) -> list[ClassRanking]:
        """Of each detection class."""
        return [rank(self.records, number) for number in range(len(self.heads.classes))]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(images, C, 4) pixels."""
        return np.stack([record.seg for record in self.records])

    @cached_property
    def _ratios(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return intersection_over_union(self.counts), balanced_accuracy(self.counts)

    def class_figures(self, weights: NDArray[np.int64]) -> dict[str, ClassFigures]:
        """Of each detection class."""
        return {
            name: average_precision(ranking, weights)
            for name, ranking in zip(self.heads.classes, self.rankings, strict=True)
        }

    def class_means(self, weights: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """IoU and balanced accuracy, (sets, C), means over images."""
        iou, acc = self._ratios
        return weighted_mean(iou, weights), weighted_mean(acc, weights)

    def figures(self, weights: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Name to (sets,) values: P, R, F1, mAP50, mAP50-95, mIoU, mAcc, and "road mIoU", "road IoU", "road Acc".

        Args:
            weights: (sets, images) of whole numbers.
        """
        found: dict[str, NDArray[np.float64]] = {}
        if self.heads.classes:
            parts = list(self.class_figures(weights).values())
            present = np.stack([part.labels > 0 for part in parts])
            for key, values in (
                ("P", [part.precision for part in parts]),
                ("R", [part.recall for part in parts]),
                ("F1", [part.f1 for part in parts]),
                ("mAP50", [part.ap[:, 0] for part in parts]),
                ("mAP50-95", [part.ap.mean(axis=1) for part in parts]),
            ):
                found[key] = (np.stack(values) * present).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
        if self.heads.seg_classes and self.records:
            iou, acc = self.class_means(weights)
            found["mIoU"], found["mAcc"] = iou.mean(axis=1), acc.mean(axis=1)
            extra = len(self.heads.channels) - len(self.heads.seg_classes)
            for place, name in enumerate(self.heads.seg_classes, start=extra):
                found[f"{name} mIoU"] = (iou[:, 0] + iou[:, place]) / 2 if extra else iou[:, place]
                found[f"{name} IoU"], found[f"{name} Acc"] = iou[:, place], acc[:, place]
        return found
