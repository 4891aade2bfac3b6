"""Precision, recall and average precision by upstream's definitions, for any weights of the images.

AP needs the ranking of all predictions, but of false positives only how many stand before each true positive. So
only predictions with a pair are sorted; each image then looks up where its false positives fall between them. That
takes memory for the pairs (at most one for each label) instead of 8 bytes for each of 30 million predictions, and
makes a resampling of the images a matter of weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.matching import THRESHOLDS
from benchmarks.accuracy.records import ImageRecord

__all__ = ["ClassFigures", "ClassRanking", "average_precision", "rank"]

RECALLS: NDArray[np.float64] = np.linspace(0, 1, 101)
# pairs times sets of weights held at a time: 5 arrays of 8 bytes each, 80 MB
BLOCK = 2_000_000


@dataclass(frozen=True)
class ClassRanking:
    """The predictions of one class in all images, reduced to what AP needs.

    Rank is by score; equal scores by the order of the images, then by their order in the image.

    Attributes:
        number: of the class.
        images: int32 (m,): image of each prediction that has a pair, best first.
        hits: uint8 (m,): how many thresholds the pair reaches, 1 to 10.
        keys: uint64 (m,): rank as a number, ascending.
        labels, predictions: int64 (images,): how many each image has.
        records: the images.
    """

    number: int
    images: NDArray[np.int32]
    hits: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    records: Sequence[ImageRecord]

    def misses_before(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """Weighted number of predictions without a pair that are ranked before each that has one.

        Args:
            weights: (sets, images).

        Returns:
            int64 (sets, m).
        """
        sums = np.zeros((len(self.keys) + 1, len(weights)), np.int64)
        by_image = np.ascontiguousarray(weights.T)
        for image, keys, hits in _keyed(self.records, self.number):
            places = np.searchsorted(self.keys, keys[hits == 0])
            if not len(places):
                continue
            # predictions come best first, so equal places are neighbours
            starts = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]]))
            counts = np.diff(starts, append=len(places))
            sums[places[starts]] += counts[:, None] * by_image[image]
        return np.ascontiguousarray(np.cumsum(sums[:-1], axis=0).T)


def _keyed(records: Sequence[ImageRecord], number: int) -> Iterator[tuple[int, NDArray[np.uint64], NDArray[np.uint8]]]:
    """Index, rank keys and hits of one class in every image.

    A key is the complement of the score's bits, which order positive floats, over the running number of the
    prediction: 2^32 of them are enough for 400 predictions in each of ten million images.
    """
    offset = 0
    for image, record in enumerate(records):
        rows = np.flatnonzero(record.classes == number)
        if len(rows):
            bits = np.ascontiguousarray(record.scores[rows]).view(np.uint32)
            sequence = (rows + offset).astype(np.uint64)
            yield image, ((~bits).astype(np.uint64) << np.uint64(32)) | sequence, record.hits[rows]
        offset += len(record.scores)


def rank(records: Sequence[ImageRecord], number: int) -> ClassRanking:
    """Rank one class.

    Args:
        records: in the order that decides between equal scores.
        number: of the class.
    """
    keys: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    hits: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)]
    images: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
    predictions = np.zeros(len(records), np.int64)
    for image, key, hit in _keyed(records, number):
        paired = np.flatnonzero(hit)
        predictions[image] = len(key)
        keys.append(key[paired])
        hits.append(hit[paired])
        images.append(np.full(len(paired), image, np.int32))
    joined = np.concatenate(keys)
    order = np.argsort(joined)
    return ClassRanking(
        number,
        np.concatenate(images)[order],
        np.concatenate(hits)[order],
        joined[order],
        np.array([np.count_nonzero(record.labels == number) for record in records], np.int64),
        predictions,
        records,
    )


@dataclass(frozen=True)
class ClassFigures:
    """One class for every set of weights.

    Attributes:
        labels, predictions, found: int64 (sets,): `found` are those with a pair of IoU >= 0.5.
        ap: float64 (sets, 10) at the ten thresholds.
    """

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    found: NDArray[np.int64]
    ap: NDArray[np.float64]

    @property
    def precision(self) -> NDArray[np.float64]:
        """(sets,) of all predictions above the protocol's confidence; 0 without any.

        Upstream reads P and R where the mean recall is largest on a grid of 1000 confidences. Recall never falls
        when the confidence does, so that is always its first point, confidence 0.
        """
        return self.found / np.maximum(self.predictions, 1)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(sets,) of all predictions; 0 without labels."""
        return self.found / (self.labels + 1e-16)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(sets,) harmonic mean of both, upstream's 1e-16 included."""
        return 2 * self.precision * self.recall / (self.precision + self.recall + 1e-16)


def average_precision(ranking: ClassRanking, weights: NDArray[Any]) -> ClassFigures:
    """AP of one class when every image counts as often as its weight says.

    Equal to evaluating a list in which each image stands that many times, its copies side by side.

    Args:
        weights: (sets, images) of whole numbers.
    """
    weights = np.asarray(weights, np.int64)
    labels, predictions = (weights * ranking.labels).sum(axis=1), (weights * ranking.predictions).sum(axis=1)
    ap = np.zeros((len(weights), len(THRESHOLDS)))
    found = np.zeros(len(weights), np.int64)
    step = max(1, BLOCK // max(1, len(ranking.keys)))
    for start in range(0, len(weights), step):
        part = slice(start, start + step)
        mine = weights[part][:, ranking.images]
        ranked = ranking.misses_before(weights[part]) + np.cumsum(mine, axis=1)
        found[part] = mine.sum(axis=1)
        for index in range(len(THRESHOLDS)):
            rows = np.flatnonzero(ranking.hits > index)
            true = np.cumsum(mine[:, rows], axis=1)
            ap[part, index] = _areas(true, ranked[:, rows], labels[part], predictions[part])
    return ClassFigures(labels, predictions, found, ap)


def _areas(
    true: NDArray[np.int64], ranked: NDArray[np.int64], labels: NDArray[np.int64], predictions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Area below the precision envelope, from the true positives alone.

    Upstream interpolates precision linearly over recall between all predictions and the points (0, 1) and (1, 0).
    Along false positives recall stands still, and just before a true positive the envelope is already at that one's
    value. So between two recalls it is constant, and only behind the last true positive it is a slope: from the
    precision of all predictions down to 0 at recall 1.

    Args:
        true, ranked: (sets, m): true positives, and predictions, up to and with each true positive.
        labels, predictions: (sets,) in all.

    Returns:
        float64 (sets,): trapezoids over 101 recalls.
    """
    areas = np.zeros(len(true))
    if not true.shape[1]:
        return areas
    precision = true / np.maximum(ranked, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = true / (labels[:, None] + 1e-16)
    for index in np.flatnonzero(true[:, -1]):
        places = np.searchsorted(recall[index], RECALLS, side="right")
        reached = int(np.searchsorted(places, true.shape[1]))
        heights = np.zeros(len(RECALLS))
        heights[:reached] = envelope[index, places[:reached]]
        last = float(recall[index, -1])
        if last < 1:
            overall = true[index, -1] / predictions[index]
            heights[reached:] = overall - overall / (1 - last) * (RECALLS[reached:] - last)
            heights[-1] = 0
        areas[index] = (np.diff(RECALLS) * (heights[1:] + heights[:-1]) / 2).sum()
    return areas
