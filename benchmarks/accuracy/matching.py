"""Which predictions find which labels in one image, by upstream's two rules."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONFUSION_CONF", "CONFUSION_IOU", "THRESHOLDS", "confusion_pairs", "count_hits", "overlaps"]

# 0.50, 0.55 ... 0.95; IoUs are compared as float32, as upstream does
THRESHOLDS: NDArray[np.float32] = np.linspace(0.5, 0.95, 10).astype(np.float32)
CONFUSION_CONF, CONFUSION_IOU = np.float32(0.25), np.float32(0.45)


def overlaps(labels: NDArray[Any], boxes: NDArray[Any]) -> NDArray[np.float64]:
    """IoU of every label with every predicted box; areas have no +1.

    The arithmetic is that of COCO's bbIou, operation by operation, so that its matches can be equal to the last bit.

    Args:
        labels: (n, 4) x1, y1, x2, y2.
        boxes: (p, 4) alike; a box without a positive width and height overlaps nothing.

    Returns:
        float64 (n, p).
    """
    first, second = labels.astype(np.float64), boxes.astype(np.float64)
    first_size, second_size = first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2]
    first_end, second_end = first[:, :2] + first_size, second[:, :2] + second_size
    with np.errstate(invalid="ignore", over="ignore"):
        sides = []
        for axis in (0, 1):
            side = np.minimum(first_end[:, None, axis], second_end[:, axis])
            side -= np.maximum(first[:, None, axis], second[:, axis])
            sides.append(np.maximum(side, 0, out=side))
        common = sides[0] * sides[1]
        union = (second_size[:, 0] * second_size[:, 1])[None] + (first_size[:, 0] * first_size[:, 1])[:, None]
        union -= common
        return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def count_hits(iou: NDArray[np.float64], labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.uint8]:
    """How many of the ten thresholds each prediction's pair reaches.

    Upstream's rule, peculiar and kept: among labels of its class with IoU >= 0.5 each prediction keeps the one it
    overlaps most; then each label keeps, of the predictions left to it, the one with the lowest index, which is the
    most confident and not the one that fits best. One assignment serves all ten thresholds. Of two labels with the
    same IoU the later one counts, which is what upstream's reversed sort does with short lists.

    Args:
        iou: (n, p) of labels and predictions, best score first.
        labels, classes: (n,) and (p,) class numbers.

    Returns:
        uint8 (p,): 0 for a false positive, else 1 to 10.
    """
    hits = np.zeros(len(classes), np.uint8)
    if not len(labels) or not len(classes):
        return hits
    rounded = iou.astype(np.float32)
    rounded[labels[:, None] != classes] = 0
    best = rounded.max(axis=0)
    rows = np.flatnonzero(best >= THRESHOLDS[0])
    chosen = len(labels) - 1 - rounded[::-1, rows].argmax(axis=0)
    _, first = np.unique(chosen, return_index=True)
    hits[rows[first]] = np.searchsorted(THRESHOLDS, best[rows[first]], side="right")
    return hits


def confusion_pairs(
    iou: NDArray[np.float64],
    labels: NDArray[Any],
    classes: NDArray[Any],
    scores: NDArray[np.float32],
    background: int,
) -> NDArray[np.uint32]:
    """What one image adds to the confusion matrix: rows of predicted class, true class and count.

    Predictions with a score above 0.25 and pairs with IoU above 0.45, classes not compared. Each prediction keeps
    the label it overlaps most, then each label the prediction that overlaps it most (here upstream does sort
    again). A label without a pair counts as predicted background, a prediction without one as true background.
    Kept from upstream: an image without labels or without any prediction (whatever its score) adds nothing, and an
    image without a single pair adds its missed labels but not its false positives.

    Args:
        background: number of the background, that is the number of classes.

    Returns:
        uint32 (k, 3), each pair once.
    """
    if not len(labels) or not len(classes):
        return np.zeros((0, 3), np.uint32)
    sure = np.flatnonzero(scores > CONFUSION_CONF)
    rounded = iou[:, sure].astype(np.float32)
    partner = np.full(len(labels), -1)
    if len(sure):
        best = rounded.max(axis=0)
        columns = np.flatnonzero(best > CONFUSION_IOU)
        chosen = len(labels) - 1 - rounded[::-1, columns].argmax(axis=0)
        # ascending by overlap, so that the last to be written is the best; of equals the later prediction
        order = np.argsort(best[columns], kind="stable")
        partner[chosen[order]] = columns[order]
    found = partner >= 0
    predicted = np.full(len(labels), background)
    predicted[found] = classes[sure[partner[found]]]
    cells = predicted * (background + 1) + labels
    if found.any():
        spurious = np.delete(classes[sure], partner[found])
        cells = np.concatenate([cells, spurious.astype(np.int64) * (background + 1) + background])
    cells, counts = np.unique(cells, return_counts=True)
    return np.stack([*np.divmod(cells, background + 1), counts], axis=1).astype(np.uint32)
