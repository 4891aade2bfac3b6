"""Pixel counts and the two ratios, with upstream's rule for 0/0."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy.segmentation import (
    balanced_accuracy,
    class_channels,
    count_pixels,
    intersection_over_union,
    weighted_mean,
)


def test_counts_equal_plain_loops() -> None:
    random = np.random.default_rng(0)
    predicted, true = (random.integers(0, 3, (7, 11)).astype(np.uint8) for _ in range(2))
    got = count_pixels(class_channels(predicted, 3), class_channels(true, 3))
    want = np.zeros((3, 4), int)
    for ours, theirs in zip(predicted.ravel(), true.ravel(), strict=True):
        for kind in range(3):
            want[kind, {(1, 1): 0, (1, 0): 1, (0, 1): 2, (0, 0): 3}[int(ours == kind), int(theirs == kind)]] += 1
    assert got.tolist() == want.tolist()
    assert got.sum(axis=1).tolist() == [77, 77, 77]


def test_ratios_by_hand() -> None:
    counts = np.array([[30, 10, 20, 40]])
    assert intersection_over_union(counts).tolist() == [0.5]
    assert balanced_accuracy(counts).tolist() == [pytest.approx((30 / 50 + 40 / 50) / 2)]


@pytest.mark.parametrize(
    ("counts", "iou", "acc"),
    [
        ([0, 0, 0, 100], 1.0, 1.0),  # nothing to find, nothing found
        ([0, 7, 0, 93], 0.0, 1.0),  # nothing to find, something found: accuracy stays 1, upstream's rule
        ([0, 0, 7, 93], 0.0, 0.5),
        ([100, 0, 0, 0], 1.0, 1.0),
        ([60, 0, 40, 0], 0.6, 1.0),  # nothing but this class: specificity is 0/0
    ],
)
def test_zero_divided_by_zero_is_one(counts: list[int], iou: float, acc: float) -> None:
    assert intersection_over_union(np.array(counts)) == iou
    assert balanced_accuracy(np.array(counts)) == acc


def test_weighted_mean_is_the_mean_of_the_copies() -> None:
    values = np.array([[0.25, 1.0], [0.5, 0.0], [1.0, 0.5]])
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 0]])
    got = weighted_mean(values, weights)
    assert got[:2].tolist() == [[1.75 / 3, 0.5], [0.5, 2.5 / 3]]
    assert np.isnan(got[2]).all()


def test_means_do_not_depend_on_the_number_of_sets() -> None:
    random = np.random.default_rng(1)
    values, weights = random.random((1001, 3)), random.integers(0, 4, (50, 1001))
    alone = np.concatenate([weighted_mean(values, row[None]) for row in weights])
    assert np.array_equal(weighted_mean(values, weights), alone)
