"""Pixel counts of one image, and the figures made of the counts of many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["balanced_accuracy", "class_channels", "count_pixels", "intersection_over_union", "weighted_mean"]


def class_channels(class_map: NDArray[Any], channels: int) -> list[NDArray[np.bool_]]:
    """A truth map for each of `channels` classes from an (h, w) map of class numbers."""
    return [class_map == index for index in range(channels)]


def count_pixels(predicted: Iterable[NDArray[Any]], true: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    """TP, FP, FN and TN of each class.

    Args:
        predicted, true: one boolean or 0/1 uint8 (h, w) map for each class.

    Returns:
        int64 (C, 4).
    """
    rows = []
    for first, second in zip(predicted, true, strict=True):
        ours, theirs = first.astype(np.bool_, copy=False), second.astype(np.bool_, copy=False)
        both = int(np.count_nonzero(ours & theirs))
        positives, truths = int(np.count_nonzero(ours)), int(np.count_nonzero(theirs))
        rows.append([both, positives - both, truths - both, ours.size - positives - truths + both])
    return np.array(rows, np.int64).reshape(-1, 4)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """NaN for 0/0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def intersection_over_union(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """TP / (TP + FP + FN) of (..., 4) counts; 1 for 0/0, upstream's rule: nothing to find and nothing found."""
    tp, fp, fn, _ = np.moveaxis(counts, -1, 0)
    return np.nan_to_num(_ratio(tp, tp + fp + fn), nan=1.0)


def balanced_accuracy(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of sensitivity and specificity of (..., 4) counts; 1 where either is 0/0.

    So a class that an image's target lacks scores 1 there, whatever was predicted: upstream's rule.
    """
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    return np.nan_to_num((_ratio(tp, tp + fn) + _ratio(tn, tn + fp)) / 2, nan=1.0)


def weighted_mean(values: NDArray[np.float64], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over images for every set of weights.

    Row by row with numpy's pairwise sum and not as a product of matrices: BLAS adds in an order that depends on the
    shapes and the threads, and a report must not change its last digit with the number of draws.

    Args:
        values: (images, C).
        weights: (sets, images).

    Returns:
        float64 (sets, C); NaN for a set without images.
    """
    total = weights.sum(axis=1)
    sums = np.stack([(weights * column).sum(axis=1) for column in values.T], axis=1)
    return np.divide(sums, total[:, None], out=np.full(sums.shape, np.nan), where=total[:, None] > 0)
