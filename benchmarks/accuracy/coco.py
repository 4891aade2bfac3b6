"""COCO's average precision, in a stream: matched image by image, accumulated class by class and area by area.

pycocotools keeps every box of the data set in Python objects. Here an image is reduced to the matches of the 100
best predictions of each class while it is scored, by the rules of COCOeval.evaluateImg, and pycocotools gets them
back only to accumulate them. The twelve figures are equal to those of a plain run.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.records import CocoMatches, ImageRecord

__all__ = ["COCO_KEYS", "CocoFigures", "coco_figures", "match_coco"]

AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))  # all, small, medium, large, px^2
THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
CONSIDERED = 100  # best predictions of a class and image
COCO_KEYS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
NO_PYCOCOTOOLS = 'pycocotools is not installed (pip install "hnx[eval]")'
# predictions times thresholds that pycocotools gets at a time; it takes 100 bytes for each
BLOCK = 1_000_000
_T = len(THRESHOLDS)
# number of thresholds reached to lanes of all areas; bits of areas to lanes
_REACHED = [sum(((1 << count) - 1) << (_T * area) for area in range(len(AREAS))) for count in range(_T + 1)]
_INSIDE = [
    sum(((1 << _T) - 1) << (_T * area) for area in range(len(AREAS)) if bits >> area & 1)
    for bits in range(1 << len(AREAS))
]


def _areas_of(boxes: NDArray[Any]) -> NDArray[np.uint8]:
    wide = boxes.astype(np.float64)
    size = (wide[:, 2] - wide[:, 0]) * (wide[:, 3] - wide[:, 1])
    bits = np.zeros(len(boxes), np.uint8)
    for place, (low, high) in enumerate(AREAS):
        bits |= ((size >= low) & (size <= high)).astype(np.uint8) << np.uint8(place)
    return bits


def considered(classes: NDArray[Any]) -> NDArray[np.int64]:
    """Places of the 100 best predictions of each class, ascending, when `classes` come best first."""
    kinds = np.unique(classes)
    if len(kinds) < 2:
        return np.arange(min(len(classes), CONSIDERED))
    return np.sort(np.concatenate([np.flatnonzero(classes == kind)[:CONSIDERED] for kind in kinds]))


def match_coco(
    iou: NDArray[np.float64],
    labels: NDArray[Any],
    boxes: NDArray[Any],
    label_classes: NDArray[Any],
    classes: NDArray[Any],
) -> CocoMatches:
    """Match one image as COCOeval.evaluateImg does, all thresholds and areas at once.

    For each prediction, best first, and in each lane on its own: among the labels of its class that reach the
    threshold and are not taken, the one with the largest IoU, of equals the later; labels that count in this area
    before those that are ignored in it.

    Args:
        iou: float64 (n, p), see `matching.overlaps`.
        labels, boxes: (n, 4) and (p, 4) x1, y1, x2, y2 in frame pixels, predictions best score first.
        label_classes, classes: (n,) and (p,).
    """
    kept = considered(classes)
    label_areas, areas = _areas_of(labels), _areas_of(boxes[kept])
    close = (iou[:, kept] >= THRESHOLDS[0]) & (label_classes[:, None] == classes[kept])
    label_rows, columns = np.nonzero(close)
    values = iou[label_rows, kept[columns]]
    order = np.lexsort((-label_rows, -values, columns))
    reached = np.searchsorted(THRESHOLDS, values[order], side="right").tolist()
    steps = zip(columns[order].tolist(), label_rows[order].tolist(), reached, strict=True)
    candidates: dict[int, list[tuple[int, int]]] = {}
    for column, row, count in steps:
        candidates.setdefault(column, []).append((row, _REACHED[count]))
    counts = [_INSIDE[bits] for bits in label_areas.tolist()]
    free = [_REACHED[_T]] * len(labels)
    found: list[tuple[int, int, int]] = []
    for column, rows in candidates.items():
        open_lanes, matched, ignored = _REACHED[_T], 0, 0
        for row, lanes in rows:
            taken = open_lanes & lanes & free[row] & counts[row]
            free[row] &= ~taken
            open_lanes &= ~taken
            matched |= taken
        for row, lanes in rows:
            taken = open_lanes & lanes & free[row] & ~counts[row]
            free[row] &= ~taken
            open_lanes &= ~taken
            matched |= taken
            ignored |= taken
        if matched:
            found.append((int(kept[column]), matched, ignored))
    places, hits, passed = ([item[part] for item in found] for part in range(3))
    return CocoMatches(
        label_areas, areas, np.array(places, np.int32), np.array(hits, np.uint64), np.array(passed, np.uint64)
    )


@dataclass(frozen=True)
class CocoFigures:
    """The result.

    Attributes:
        values: COCO's twelve figures by `COCO_KEYS`, None where no label counts; None without pycocotools.
        note: why there are none.
    """

    values: dict[str, float | None] | None
    note: str = ""


def coco_figures(records: Sequence[ImageRecord], classes: int) -> CocoFigures:
    """COCO's figures of all images.

    Args:
        records: in the order that decides between equal scores.
        classes: number of detection classes.
    """
    try:
        import pycocotools.cocoeval  # noqa: F401 - only whether it is there
    except ImportError:
        return CocoFigures(None, NO_PYCOCOTOOLS)
    precision = np.full((_T, 101, classes, len(AREAS)), -1.0)
    recall = np.full((_T, classes, len(AREAS)), -1.0)
    fewer = {limit: np.full((_T, classes), -1.0) for limit in (1, 10)}
    for number in range(classes):
        ranking = _Class(records, number)
        for area in range(len(AREAS)):
            precision[..., number, area], recall[..., number, area] = ranking.accumulate(area, CONSIDERED)
        for limit, values in fewer.items():
            values[:, number] = ranking.accumulate(0, limit)[1]
    middle = int(np.flatnonzero(THRESHOLDS == 0.75)[0])
    figures = (
        *(precision[..., 0], precision[:1, ..., 0], precision[middle : middle + 1, ..., 0]),
        *(precision[..., area] for area in (1, 2, 3)),
        *(fewer[1], fewer[10], recall[..., 0]),
        *(recall[..., area] for area in (1, 2, 3)),
    )
    means = [float(np.mean(kept)) if len(kept := values[values > -1]) else None for values in figures]
    return CocoFigures(dict(zip(COCO_KEYS, means, strict=True)))


class _Class:
    """All images of one class: 6 bytes for each of at most 100 predictions an image, 20 for each that is matched."""

    def __init__(self, records: Sequence[ImageRecord], number: int) -> None:
        scores: list[NDArray[Any]] = []
        areas: list[NDArray[Any]] = []
        ranks: list[NDArray[Any]] = []
        places: list[NDArray[Any]] = []
        matched: list[NDArray[Any]] = []
        ignored: list[NDArray[Any]] = []
        labels: list[NDArray[Any]] = []
        offset = 0
        for record in records:
            labels.append(record.coco.label_areas[record.labels == number])
            kept = considered(record.classes)
            inside = np.flatnonzero(record.classes[kept] == number)
            if not len(inside):
                continue
            rows = kept[inside]
            scores.append(record.scores[rows])
            areas.append(record.coco.areas[inside])
            ranks.append(np.arange(len(rows), dtype=np.uint8))
            mine = np.flatnonzero(record.classes[record.coco.rows] == number)
            places.append((np.searchsorted(rows, record.coco.rows[mine]) + offset).astype(np.int32))
            matched.append(record.coco.matched[mine])
            ignored.append(record.coco.ignored[mine])
            offset += len(rows)
        self._scores, self._areas = _join(scores, np.float32), _join(areas, np.uint8)
        self._ranks, self._labels = _join(ranks, np.uint8), _join(labels, np.uint8)
        self._places = _join(places, np.int32)
        self._matched, self._ignored = _join(matched, np.uint64), _join(ignored, np.uint64)

    def accumulate(self, area: int, limit: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision (10, 101) and recall (10,) from the `limit` best predictions of every image."""
        kept = slice(None) if limit >= CONSIDERED else np.flatnonzero(self._ranks < limit)
        scores, outside = self._scores[kept].astype(np.float64), (self._areas[kept] >> area & 1) == 0
        label_ignored = (self._labels >> area & 1) == 0
        step = max(1, BLOCK // max(1, len(scores)))
        precision, recall = [], []
        for start in range(0, _T, step):
            lanes = range(_T)[start : start + step]
            hit = np.stack([self._dense(self._matched, area, lane)[kept] for lane in lanes])
            passed = np.stack([self._dense(self._ignored, area, lane)[kept] for lane in lanes]) | (~hit & outside)
            values = _accumulate(THRESHOLDS[start : start + step], scores, hit, passed, label_ignored)
            precision.append(values[0])
            recall.append(values[1])
        return np.concatenate(precision), np.concatenate(recall)

    def _dense(self, bits: NDArray[np.uint64], area: int, lane: int) -> NDArray[np.bool_]:
        """One lane of all predictions."""
        flags = np.zeros(len(self._scores), np.bool_)
        flags[self._places[(bits >> np.uint64(_T * area + lane)) & np.uint64(1) != 0]] = True
        return flags


def _join(arrays: list[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *arrays])


def _accumulate(
    thresholds: NDArray[np.float64],
    scores: NDArray[np.float64],
    matched: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    label_ignored: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """pycocotools' own accumulation of one class and one area, all images as if they were one."""
    from pycocotools.cocoeval import COCOeval

    evaluation = COCOeval(iouType="bbox")
    settings = evaluation.params
    settings.iouThrs, settings.imgIds, settings.catIds = thresholds, [0], [0]
    settings.areaRng, settings.maxDets = [list(AREAS[0])], [max(1, len(scores))]
    evaluation._paramsEval = settings
    evaluation.evalImgs = [
        {"dtScores": scores, "dtMatches": matched, "dtIgnore": ignored, "gtIgnore": label_ignored.astype(np.int64)}
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, 0], evaluation.eval["recall"][:, 0, 0, 0]
