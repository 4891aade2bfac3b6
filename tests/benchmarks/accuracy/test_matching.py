"""The two matching rules against their words in plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.accuracy.matching import THRESHOLDS, confusion_pairs, count_hits, overlaps
from tests.benchmarks.accuracy.simulated import scene


def iou_of(first: Any, second: Any) -> float:
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return float(wide * high / (sum(areas) - wide * high))


def plain_hits(iou: NDArray[np.float64], labels: Any, classes: Any) -> list[int]:
    """Each prediction its best label, then each label the first of its predictions."""
    taken: dict[int, int] = {}
    hits = [0] * len(classes)
    for column, kind in enumerate(classes):
        pairs = [(np.float32(iou[row, column]), row) for row, label in enumerate(labels) if label == kind]
        best = max(pairs, default=(np.float32(0), -1))
        if best[0] >= np.float32(0.5) and best[1] not in taken:
            taken[best[1]] = column
            hits[column] = sum(bool(best[0] >= np.float32(0.5 + 0.05 * step)) for step in range(10))
    return hits


def plain_confusion(iou: Any, labels: Any, classes: Any, scores: Any, count: int) -> NDArray[np.int64]:
    """The matrix of one image, in upstream's order of steps."""
    matrix = np.zeros((count + 1, count + 1), np.int64)
    if not len(labels) or not len(classes):
        return matrix
    sure = [column for column in range(len(classes)) if scores[column] > 0.25]
    pairs = [
        (iou[row, column], row, column) for row in range(len(labels)) for column in sure if iou[row, column] > 0.45
    ]
    pairs.sort(reverse=True)
    by_prediction: dict[int, tuple[float, int, int]] = {}
    for pair in pairs:
        by_prediction.setdefault(pair[2], pair)
    by_label: dict[int, tuple[float, int, int]] = {}
    for pair in sorted(by_prediction.values(), reverse=True):
        by_label.setdefault(pair[1], pair)
    for row, label in enumerate(labels):
        matrix[classes[by_label[row][2]] if row in by_label else count, label] += 1
    if by_label:
        used = {pair[2] for pair in by_label.values()}
        for column in sure:
            if column not in used:
                matrix[classes[column], count] += 1
    return matrix


def matrix_of(pairs: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    matrix = np.zeros((count + 1, count + 1), np.int64)
    for predicted, true, times in pairs.tolist():
        matrix[predicted, true] += times
    return matrix


def boxes(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_overlaps_equal_plain_arithmetic() -> None:
    made = scene(np.random.default_rng(0), labels=20, predictions=60)
    got = overlaps(made.labels, made.found.boxes)
    want = [[iou_of(label, box) for box in made.found.boxes.astype(float)] for label in made.labels.astype(float)]
    assert np.allclose(got, np.array(want).reshape(got.shape), rtol=1e-12, atol=0)


def test_boxes_without_a_size_overlap_nothing() -> None:
    label = boxes([0, 0, 10, 10])
    strange = boxes([5, 5, 5, 8], [8, 8, 2, 2], [np.nan, 0, 10, 10], [0, 0, np.inf, np.inf])
    assert overlaps(label, strange).tolist() == [[0, 0, 0, 0]]
    assert overlaps(strange[:2], label).tolist() == [[0], [0]]


def test_the_more_confident_prediction_wins_though_it_fits_worse() -> None:
    iou = overlaps(boxes([0, 0, 10, 10]), boxes([0, 0, 10, 6], [0, 0, 10, 10]))
    assert count_hits(iou, np.array([0]), np.array([0, 0])).tolist() == [3, 0]


def test_a_prediction_does_not_fall_back_on_its_second_label() -> None:
    # both predictions prefer the first label; the second would reach 0.5 with the other one too
    labels = boxes([0, 0, 10, 10], [0, 2, 10, 12])
    found = boxes([0, 0, 10, 10], [0, 0.5, 10, 10.5])
    iou = overlaps(labels, found)
    assert iou[1, 1] > 0.5
    assert count_hits(iou, np.array([0, 0]), np.array([0, 0])).tolist() == [10, 0]


def test_classes_have_to_be_equal() -> None:
    iou = overlaps(boxes([0, 0, 10, 10]), boxes([0, 0, 10, 10], [0, 0, 10, 8]))
    assert count_hits(iou, np.array([1]), np.array([0, 1])).tolist() == [0, 7]


@pytest.mark.parametrize(("height", "hits"), [(4.99, 0), (5, 1), (5.5, 2), (9.5, 10), (9.49, 9)])
def test_thresholds_include_their_value(height: float, hits: int) -> None:
    iou = overlaps(boxes([0, 0, 10, 10]), boxes([0, 0, 10, height]))
    assert count_hits(iou, np.array([0]), np.array([0])).tolist() == [hits]


def test_overlap_is_compared_as_float32() -> None:
    # just below 0.55 in float64, the same number in float32
    assert count_hits(np.array([[float(THRESHOLDS[1]) - 1e-10]]), np.array([0]), np.array([0])).tolist() == [2]


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("seed", range(40))
def test_rules_equal_plain_loops(seed: int, classes: int) -> None:
    made = scene(np.random.default_rng(seed), classes=classes, labels=12, noise=0.15)
    # neighbours compete for labels
    labels = np.concatenate([made.labels, made.labels + 6])
    number = np.concatenate([made.number, made.number])
    iou = overlaps(labels, made.found.boxes)
    hits = count_hits(iou, number, made.found.classes)
    assert hits.tolist() == plain_hits(iou, number, made.found.classes)
    pairs = confusion_pairs(iou, number, made.found.classes, made.found.scores, classes)
    want = plain_confusion(iou, number, made.found.classes, made.found.scores, classes)
    assert matrix_of(pairs, classes).tolist() == want.tolist()


def test_confusion_ignores_classes_when_it_pairs() -> None:
    labels, found = boxes([0, 0, 10, 10], [50, 50, 60, 60]), boxes([0, 0, 10, 10], [200, 200, 210, 210])
    scores = np.array([0.9, 0.8], np.float32)
    pairs = confusion_pairs(overlaps(labels, found), np.array([0, 1]), np.array([1, 1]), scores, 2)
    # the first label is taken for class 1, the second is missed, one false positive of class 1
    assert pairs.tolist() == [[1, 0, 1], [1, 2, 1], [2, 1, 1]]


def test_confusion_of_an_image_without_pairs_has_no_false_positives() -> None:
    labels, found = boxes([0, 0, 10, 10]), boxes([200, 200, 210, 210])
    iou = overlaps(labels, found)
    assert confusion_pairs(iou, np.array([0]), np.array([0]), np.array([0.9], np.float32), 1).tolist() == [[1, 0, 1]]
    unsure = np.array([0.25], np.float32)
    assert confusion_pairs(iou, np.array([0]), np.array([0]), unsure, 1).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(("labels", "found"), [(0, 0), (0, 2), (2, 0)])
def test_images_with_one_side_only(labels: int, found: int) -> None:
    first, second = np.ones((labels, 4), np.float32), np.ones((found, 4), np.float32)
    iou = overlaps(first, second)
    kinds = np.zeros(labels, np.int64), np.zeros(found, np.int64)
    assert count_hits(iou, *kinds).tolist() == [0] * found
    assert confusion_pairs(iou, *kinds, np.ones(found, np.float32), 1).shape == (0, 3)
