"""Tversky loss over the batch (Salehi et al. 2017; Abraham & Khan 2018 for the power) and focal loss by pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hybridnets.config import SegMode

__all__ = ["SegmentationLoss", "focal_loss", "segmentation_losses", "tversky_loss"]

_FALSE_POSITIVE, _FALSE_NEGATIVE = 0.7, 0.3
_POWER = 4.0 / 3.0
_MIN_DIVISOR = 1e-7
_ALPHA = 0.25  # weight of foreground, 0.75 that of the rest


class SegmentationLoss(NamedTuple):
    """Both losses of a batch, float32 scalars."""

    tversky: Tensor
    focal: Tensor


def segmentation_losses(
    logits: Tensor, target: Tensor, mode: SegMode, gather: Callable[[Tensor], Tensor] | None = None
) -> SegmentationLoss:
    """Both losses, in float32 whatever the logits are.

    Args:
        logits: (N, C, H, W).
        target: any integer type. multiclass: (N, H, W), class of each pixel, 0 background; a value outside 0..C-1
            belongs to no class. binary and multilabel: (N, C, H, W) of 0 and 1.
        mode: how the target reads.
        gather: differentiable sum over the processes that share a batch; the Tversky loss is the whole batch's.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        foreground = _foreground(logits, target, mode)
        return SegmentationLoss(_tversky(logits, foreground, mode, gather), _focal(logits, foreground, mode))


def tversky_loss(logits: Tensor, target: Tensor, mode: SegMode) -> Tensor:
    """(mean over classes of 1 - index)^(4/3), index = TP / (TP + 0.7 FP + 0.3 FN) over all pixels of the batch.

    Classes that the batch's target does not hold count as 0 in the mean. Arguments as `segmentation_losses`.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return _tversky(logits.float(), _foreground(logits, target, mode), mode)


def focal_loss(logits: Tensor, target: Tensor, mode: SegMode) -> Tensor:
    """Mean of weight * (1 - p_true)^2 * cross-entropy, every channel against the rest by its sigmoid.

    multiclass: the means of the channels, background included, are added. Arguments as `segmentation_losses`.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return _focal(logits.float(), _foreground(logits, target, mode), mode)


# On a CPU torch.where takes 8 ms for 2.9 million values, a multiplication 0.8: the masks below are floats.


def _foreground(logits: Tensor, target: Tensor, mode: SegMode) -> Tensor:
    """float32 (N, C, H, W): 1 where the pixel belongs to the channel, else 0."""
    if mode != "multiclass":
        return (target > 0).float()
    classes = torch.arange(logits.shape[1], device=target.device, dtype=target.dtype)
    return (target[:, None] == classes.view(1, -1, 1, 1)).float()


def _tversky(
    logits: Tensor, foreground: Tensor, mode: SegMode, gather: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    p = logits.softmax(dim=1) if mode == "multiclass" else logits.sigmoid()
    pixels = (0, 2, 3)
    true_positive = (p * foreground).sum(dim=pixels)
    predicted = p.sum(dim=pixels)
    actual = foreground.sum(dim=pixels)
    if gather is not None:
        true_positive, predicted, actual = gather(torch.stack([true_positive, predicted, actual])).unbind()
    false_positive, false_negative = predicted - true_positive, actual - true_positive
    divisor = true_positive + _FALSE_POSITIVE * false_positive + _FALSE_NEGATIVE * false_negative
    index = true_positive / divisor.clamp(min=_MIN_DIVISOR)
    loss = ((1.0 - index) * (actual > 0.0)).mean()
    # rounding may put a perfect index above 1, and a negative number has no power of 4/3
    return loss.clamp(min=0.0).pow(_POWER)


def _focal(logits: Tensor, foreground: Tensor, mode: SegMode) -> Tensor:
    sign = 1.0 - 2.0 * foreground
    against = logits * sign
    # softplus is the cross-entropy, and the sigmoid is 1 - exp(-softplus) without its cancellation
    weight = 0.5 + (0.5 - _ALPHA) * sign
    loss = (against.sigmoid().square() * F.softplus(against) * weight).mean()
    return loss * logits.shape[1] if mode == "multiclass" else loss
