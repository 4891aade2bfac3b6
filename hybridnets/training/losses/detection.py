"""Focal loss of the scores and smooth L1 of the boxes (Lin et al. 2017, Focal Loss; Girshick 2015, Fast R-CNN).

Everything has fixed shapes and nothing asks the device for a value, so the step's queue never runs empty and
torch.compile sees one graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["BOX_WEIGHT", "Assignment", "DetectionLoss", "assign", "detection_losses"]

BOX_WEIGHT = 50.0  # of the smooth L1 in the total

_ALPHA = 0.25  # weight of positives, 0.75 that of negatives
_SCORE_MARGIN = 1e-4  # scores are clamped to [1e-4, 1 - 1e-4]
_SMOOTH = 1.0 / 9.0  # where smooth L1 turns from quadratic to linear
_SMALL_AREA = 100.0  # px^2: up to here a box is small
_IOU, _IOU_SMALL = 0.5, 0.15  # from here on an anchor is positive
_MIN_UNION = 1e-8
_MIN_SIDE = 1.0  # px, of a box before the logarithm

# Pairs of anchor and box compared at once: 46035 anchors with 50 boxes of 14 images are 32 million, 128 MiB a
# temporary on a GPU. On a CPU one image at a time is twice as fast as four: its temporaries stay in the cache.
_PAIRS_GPU, _PAIRS_CPU = 1 << 25, 1 << 20


class Assignment(NamedTuple):
    """Which box each anchor answers for.

    Attributes:
        positive: bool (N, A).
        box: float32 (N, A, 5): x1, y1, x2, y2, class of the box that overlaps the anchor most; means nothing where
            `positive` is False.
    """

    positive: Tensor
    box: Tensor


class DetectionLoss(NamedTuple):
    """Loss of each image, float32 (N,).

    Attributes:
        cls: focal loss over anchors and classes, divided by max(1, positive anchors). An image without positive
            anchors therefore counts with its whole sum, about ten times another image's, as upstream has it.
        reg: 50 times the mean smooth L1 over positive anchors and coordinates, 0 without any.
        positives: number of positive anchors.
    """

    cls: Tensor
    reg: Tensor
    positives: Tensor


@torch.no_grad()
def assign(anchors: Tensor, boxes: Tensor) -> Assignment:
    """Give each anchor the box with the largest IoU, the first of equals.

    It is positive from an IoU of 0.5 on, of 0.15 where the box has an area of at most 100 px^2. There is no band of
    anchors that count as neither.

    Args:
        anchors: float32 (A, 4) y1, x1, y2, x2.
        boxes: float32 (N, M, 5) x1, y1, x2, y2, class; rows of class -1 are padding. M may be 0.
    """
    count, rows = boxes.shape[:2]
    if rows == 0:
        shape = (count, anchors.shape[0])
        return Assignment(anchors.new_zeros(shape, dtype=torch.bool), anchors.new_zeros((*shape, 5)))
    pairs = _PAIRS_CPU if boxes.device.type == "cpu" else _PAIRS_GPU
    group = max(1, pairs // (rows * anchors.shape[0]))
    found = [_best(anchors, boxes[first : first + group]) for first in range(0, count, group)]
    overlap = torch.cat([f[0] for f in found])
    index = torch.cat([f[1] for f in found])  # (N, A)
    box = boxes.gather(1, index[..., None].expand(-1, -1, 5))
    area = (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])
    needed = torch.where(area > _SMALL_AREA, _IOU, _IOU_SMALL)
    return Assignment(overlap >= needed, box)


def _best(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Largest IoU (n, A), 0 without any box, and the first row that has it (n, A)."""
    # pairs are (n, M, A) and the coordinates of all anchors lie side by side: every operation runs along memory.
    # Three buffers for all of it: fresh memory for each step costs more than the arithmetic (20 against 9 ms for
    # 20 boxes in each of four images, 46035 anchors, one core).
    ay1, ax1, ay2, ax2 = anchors.t().contiguous()
    x1, y1, x2, y2, label = boxes[..., None].unbind(2)  # (n, M, 1) each
    real = (label != -1.0).float()
    shared = torch.minimum(ax2, x2)
    other = torch.maximum(ax1, x1)
    shared.sub_(other).clamp_(min=0.0).mul_(real)
    height = torch.minimum(ay2, y2)
    torch.maximum(ay1, y1, out=other)
    shared.mul_(height.sub_(other).clamp_(min=0.0))
    torch.add((x2 - x1) * (y2 - y1), (ay2 - ay1) * (ax2 - ax1), out=other)
    iou = shared.div_(other.sub_(shared).clamp_(min=_MIN_UNION))
    # torch.max(dim), which gives value and row, takes six times as long as these three
    best = iou.amax(dim=1)
    rows = boxes.shape[1]
    rank = torch.arange(rows, 0, -1, device=boxes.device, dtype=torch.float32).view(1, -1, 1)
    first = rows - torch.eq(iou, best[:, None], out=other).mul_(rank).amax(dim=1).long()
    return best, first.clamp_(max=rows - 1)  # a NaN is equal to nothing


def detection_losses(regression: Tensor, scores: Tensor, anchors: Tensor, boxes: Tensor) -> DetectionLoss:
    """Both losses of each image, in float32 whatever the inputs are.

    Args:
        regression: (N, A, 4): ty, tx, th, tw.
        scores: (N, A, C) after the sigmoid.
        anchors: (A, 4) or (1, A, 4) y1, x1, y2, x2 in input pixels.
        boxes: (N, M, 5) x1, y1, x2, y2, class in input pixels; rows of class -1 are padding.
    """
    with torch.autocast(scores.device.type, enabled=False):
        regression, scores, boxes = regression.float(), scores.float(), boxes.float()
        anchors = anchors.reshape(-1, 4).float()
        positive, box = assign(anchors, boxes)
        positives = positive.sum(dim=1)
        divisor = positives.clamp(min=1).float()
        cls = _focal(scores, positive, box[..., 4]) / divisor
        reg = _smooth_l1(regression, anchors, positive, box) / (4.0 * divisor)
        return DetectionLoss(cls, BOX_WEIGHT * reg, positives)


def _focal(scores: Tensor, positive: Tensor, label: Tensor) -> Tensor:
    """Sum of weight * (1 - p_true)^2 * -log(p_true) over anchors and classes, (N,)."""
    classes = torch.arange(scores.shape[2], device=scores.device)
    hit = positive[..., None] & (label[..., None] == classes)  # only the channel of the box's class
    p = scores.clamp(_SCORE_MARGIN, 1.0 - _SCORE_MARGIN)
    rest = 1.0 - p
    true, false = torch.where(hit, p, rest), torch.where(hit, rest, p)
    weight = torch.where(hit, -_ALPHA, _ALPHA - 1.0)
    return (weight * false.square() * true.log()).sum(dim=(1, 2))


def _smooth_l1(regression: Tensor, anchors: Tensor, positive: Tensor, box: Tensor) -> Tensor:
    """Sum over positive anchors and coordinates, (N,)."""
    ay1, ax1, ay2, ax2 = anchors.unbind(1)
    height, width = ay2 - ay1, ax2 - ax1
    x1, y1, x2, y2, _ = box.unbind(2)
    target = torch.stack(
        [
            ((y1 + y2) / 2.0 - (ay1 + ay2) / 2.0) / height,
            ((x1 + x2) / 2.0 - (ax1 + ax2) / 2.0) / width,
            ((y2 - y1).clamp(min=_MIN_SIDE) / height).log(),
            ((x2 - x1).clamp(min=_MIN_SIDE) / width).log(),
        ],
        dim=2,
    )
    # masked before and not after: a NaN at an anchor that does not count must not reach its gradient
    difference = (regression - target).masked_fill(~positive[..., None], 0.0)
    zero = torch.zeros((), device=difference.device).expand_as(difference)
    return F.smooth_l1_loss(difference, zero, beta=_SMOOTH, reduction="none").sum(dim=(1, 2))
