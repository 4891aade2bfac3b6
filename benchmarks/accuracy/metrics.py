"""All figures of one row, from its records. The order in which these come changes no bit of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.coco import CocoFigures, coco_figures
from benchmarks.accuracy.detection import ClassFigures
from benchmarks.accuracy.protocols import Heads, Protocol
from benchmarks.accuracy.records import ImageRecord
from benchmarks.accuracy.weighted import Weighted
from hybridnets.errors import HnxError

if TYPE_CHECKING:
    from hybridnets.bundle import Bundle

__all__ = ["Accumulator", "ClassMetrics", "Metrics", "SegMetrics"]


@dataclass(frozen=True)
class ClassMetrics:
    """One detection class.

    Attributes:
        labels, predictions, found: boxes; `found` are the predictions with a pair of IoU >= 0.5.
        precision, recall, f1: of all predictions above the protocol's confidence; None when no image has such a
            label, since upstream leaves such classes out of every mean.
        ap: AP at IoU 0.50, 0.55 ... 0.95, alike.
    """

    labels: int
    predictions: int
    found: int
    precision: float | None
    recall: float | None
    f1: float | None
    ap: tuple[float, ...] | None

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        return {
            "P": self.precision,
            "R": self.recall,
            "F1": self.f1,
            "mAP50": None if self.ap is None else self.ap[0],
            "mAP50-95": None if self.ap is None else float(np.mean(self.ap)),
            "AP": None if self.ap is None else list(self.ap),
            "labels": self.labels,
            "predictions": self.predictions,
            "found": self.found,
        }


@dataclass(frozen=True)
class SegMetrics:
    """One segmentation class; means over images of the value of each image.

    Attributes:
        miou: mean of the IoU of the background and of the class (binary: the IoU of the class).
        iou: TP / (TP + FP + FN); an image with none of them counts as 1.
        acc: balanced accuracy, the mean of sensitivity and specificity; an image where either is 0/0 counts as 1.
        pooled_iou: of the pixels of all images together, not upstream's; None when the class never occurs.
    """

    miou: float
    iou: float
    acc: float
    pooled_iou: float | None


@dataclass(frozen=True)
class Metrics:
    """All figures of one row, fractions of 1. Those of a missing head are None, and its mapping is empty.

    Attributes:
        images, labels, predictions: counts; labels are the true number, where upstream prints 0 without a hit.
        precision, recall, f1, map50, map50_95: means over the classes that occur in the labels.
        miou, macc: means over images and all counted classes, background included.
        seg: by segmentation class; the background has an entry of its own in `background`.
        pooled_miou: mean of `pooled_iou` over the counted classes that occur.
        confusion: (classes + 1, classes + 1): rows predicted, columns true, last the background.
        coco: COCO's figures, or why there are none; None without a detection head.
    """

    images: int
    labels: int | None
    predictions: int | None
    precision: float | None
    recall: float | None
    f1: float | None
    map50: float | None
    map50_95: float | None
    miou: float | None
    macc: float | None
    seg: dict[str, SegMetrics]
    background: SegMetrics | None
    pooled_miou: float | None
    classes: dict[str, ClassMetrics]
    confusion: NDArray[np.int64] | None
    coco: CocoFigures | None

    def to_json(self) -> dict[str, Any]:
        """For a report: fractions, None for what does not exist."""
        counted = {**({"background": self.background} if self.background else {}), **self.seg}
        return {
            "images": self.images,
            "labels": self.labels,
            "predictions": self.predictions,
            "P": self.precision,
            "R": self.recall,
            "F1": self.f1,
            "mAP50": self.map50,
            "mAP50-95": self.map50_95,
            "mIoU": self.miou,
            "mAcc": self.macc,
            "seg": {name: {"mIoU": part.miou, "IoU": part.iou, "Acc": part.acc} for name, part in self.seg.items()},
            "background": {"IoU": self.background.iou, "Acc": self.background.acc} if self.background else None,
            "pooled": {"mIoU": self.pooled_miou, "IoU": {name: part.pooled_iou for name, part in counted.items()}}
            if counted
            else None,
            "classes": {name: part.to_json() for name, part in self.classes.items()},
            "confusion": None
            if self.confusion is None
            else {"names": [*self.classes, "background"], "matrix": self.confusion.tolist()},
            "coco": self.coco.values if self.coco else None,
            "coco_note": self.coco.note if self.coco else "",
        }


class Accumulator:
    """Collects the records of one row; about 6 bytes a prediction.

    Iterating gives the records in the order of their names.
    """

    def __init__(self, heads: Heads) -> None:
        self.heads = heads
        self._records: dict[str, ImageRecord] = {}
        self._weighted: Weighted | None = None

    @classmethod
    def for_bundle(cls, protocol: Protocol, bundle: Bundle) -> Accumulator:
        """An empty one for the outputs of a bundle; every protocol counts the same things."""
        del protocol
        return cls(Heads.for_bundle(bundle))

    def add(self, record: ImageRecord) -> None:
        """Take in one image.

        Raises:
            HnxError: it was added before, or was scored for other outputs.
        """
        if record.name in self._records:
            raise HnxError(f"Image {record.name} was scored twice", fix="delete one of the two results")
        classes = len(self.heads.classes)
        strange = any(len(kinds) and int(kinds.max()) >= classes for kinds in (record.labels, record.classes))
        if strange or len(record.seg) != len(self.heads.channels):
            raise HnxError(
                f"The record of image {record.name} does not fit",
                why="it was made for a network with other classes",
                fix="evaluate the image again",
            )
        self._records[record.name] = record
        self._weighted = None

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[ImageRecord]:
        return (self._records[name] for name in sorted(self._records))

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def record(self, name: str) -> ImageRecord:
        """Of one image.

        Raises:
            KeyError: it was not added.
        """
        return self._records[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all images, sorted."""
        return tuple(sorted(self._records))

    def weighted(self) -> Weighted:
        """Figures for any weights of the images, in the order of `names`; kept until the next `add`."""
        if self._weighted is None:
            self._weighted = Weighted(self.heads, list(self))
        return self._weighted

    def metrics(self, *, coco: bool = True) -> Metrics:
        """Everything.

        Args:
            coco: also COCO's figures, which take a few seconds for 10 000 images.
        """
        weighted = self.weighted()
        once = np.ones((1, len(self)), np.int64)
        values = {key: float(value[0]) for key, value in weighted.figures(once).items() if len(self)}
        return Metrics(
            images=len(self),
            labels=sum(len(record.labels) for record in weighted.records) if self.heads.classes else None,
            predictions=sum(len(record.scores) for record in weighted.records) if self.heads.classes else None,
            precision=values.get("P"),
            recall=values.get("R"),
            f1=values.get("F1"),
            map50=values.get("mAP50"),
            map50_95=values.get("mAP50-95"),
            miou=values.get("mIoU"),
            macc=values.get("mAcc"),
            **self._segmentation(weighted, values),
            classes={name: _class(part) for name, part in weighted.class_figures(once).items()},
            confusion=_confusion(weighted.records, len(self.heads.classes)) if self.heads.classes else None,
            coco=coco_figures(weighted.records, len(self.heads.classes)) if coco and self.heads.classes else None,
        )

    def _segmentation(self, weighted: Weighted, values: dict[str, float]) -> dict[str, Any]:
        if not (self.heads.seg_classes and len(self)):
            return {"seg": {}, "background": None, "pooled_miou": None}
        sums = weighted.counts.sum(axis=0)
        pooled = [float(row[0] / row[:3].sum()) if row[:3].any() else None for row in sums]
        occurring = [value for value in pooled if value is not None]
        extra = len(self.heads.channels) - len(self.heads.seg_classes)
        means = weighted.class_means(np.ones((1, len(self)), np.int64))
        iou, acc = (part[0].tolist() for part in means)
        seg = {
            name: SegMetrics(values[f"{name} mIoU"], iou[place], acc[place], pooled[place])
            for place, name in enumerate(self.heads.seg_classes, start=extra)
        }
        background = SegMetrics(iou[0], iou[0], acc[0], pooled[0]) if extra else None
        return {"seg": seg, "background": background, "pooled_miou": float(np.mean(occurring)) if occurring else None}


def _class(part: ClassFigures) -> ClassMetrics:
    known = bool(part.labels[0])
    return ClassMetrics(
        labels=int(part.labels[0]),
        predictions=int(part.predictions[0]),
        found=int(part.found[0]),
        precision=float(part.precision[0]) if known else None,
        recall=float(part.recall[0]) if known else None,
        f1=float(part.f1[0]) if known else None,
        ap=tuple(part.ap[0].tolist()) if known else None,
    )


def _confusion(records: Sequence[ImageRecord], classes: int) -> NDArray[np.int64]:
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for record in records:
        np.add.at(matrix, (record.confusion[:, 0], record.confusion[:, 1]), record.confusion[:, 2])
    return matrix
