"""The loss of the whole network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hybridnets.anchors import AnchorRule, make_anchors
from hybridnets.config import SegMode
from hybridnets.errors import ExitCode, HnxError
from hybridnets.network import Outputs
from hybridnets.training.losses.detection import detection_losses
from hybridnets.training.losses.segmentation import segmentation_losses

__all__ = ["HybridLoss", "LossParts"]


@dataclass(frozen=True)
class LossParts:
    """What a batch costs, float32 scalars on the device of the outputs.

    Attributes:
        cls: focal loss of the scores, mean over the images whose boxes are labelled.
        reg: smooth L1 of the boxes, mean over the same images; holds its factor of 50.
        seg_tversky, seg_focal: of the segmentation.
        total: their sum, segmentation with its weight: the value to minimise.
    """

    cls: Tensor
    reg: Tensor
    seg_tversky: Tensor
    seg_focal: Tensor
    total: Tensor

    def terms(self) -> dict[str, Tensor]:
        """The parts by name: `loss` (the total), `cls`, `reg`, `seg_tversky`, `seg_focal`."""
        return {
            "loss": self.total,
            "cls": self.cls,
            "reg": self.reg,
            "seg_tversky": self.seg_tversky,
            "seg_focal": self.seg_focal,
        }

    def not_finite(self) -> dict[str, float]:
        """The parts that are NaN or infinite, and what they are; empty when all is well. Waits for the device."""
        names = ("cls", "reg", "seg_tversky", "seg_focal", "total")
        values = torch.stack([getattr(self, name).detach() for name in names]).tolist()
        return {name: value for name, value in zip(names, values, strict=True) if not math.isfinite(value)}


class HybridLoss(nn.Module):
    """The losses of both tasks for one input size. Has no parameters; moves with `.to(device)`.

    Args:
        size: (width, height) of the network's input.
        mode: how the segmentation target reads.
        rule: the anchors' rule.
        det, seg: count this task; where its heads are frozen there is nothing to learn from it.
        seg_weight: of both segmentation losses in the total.
        gather: differentiable sum over the processes that share a batch.

    Raises:
        HnxError: neither task, or an input size the network cannot take (exit code 2).
    """

    anchors: Tensor

    def __init__(
        self,
        size: tuple[int, int],
        mode: SegMode,
        rule: AnchorRule | None = None,
        *,
        det: bool = True,
        seg: bool = True,
        seg_weight: float = 1.0,
        gather: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not (det or seg):
            raise HnxError(
                "No task is left to train",
                why="both detection and segmentation are frozen, and the backbone learns from them only",
                fix="freeze one of them",
                code=ExitCode.USAGE,
            )
        self.mode: SegMode = mode
        self.det, self.seg, self.seg_weight, self.gather = det, seg, seg_weight, gather
        self.register_buffer("anchors", torch.from_numpy(make_anchors(*size, rule)[0]), persistent=False)

    def forward(self, outputs: Outputs, boxes: Tensor, target: Tensor, has_boxes: Tensor | None = None) -> LossParts:
        """The parts, computed in float32 whatever the outputs are.

        Args:
            outputs: of the network.
            boxes: (N, M, 5) x1, y1, x2, y2, class in input pixels; rows of class -1 are padding.
            target: as `segmentation_losses` takes it.
            has_boxes: bool (N,): images whose boxes are labelled; None for all. In a run of several processes all of
                them give it or none does.
        """
        zero = torch.zeros((), device=outputs.regression.device)
        cls = reg = tversky = focal = zero
        if self.det:
            detection = detection_losses(outputs.regression, outputs.classification, self.anchors, boxes)
            if has_boxes is None:
                cls, reg = detection.cls.mean(), detection.reg.mean()
            else:
                # masked before and not after: 0 times a loss that is not finite would not be 0
                cls, reg = (x.masked_fill(~has_boxes, 0.0).sum() for x in (detection.cls, detection.reg))
                share = self._labelled(has_boxes)
                cls, reg = cls / share, reg / share
        if self.seg:
            tversky, focal = segmentation_losses(outputs.segmentation, target, self.mode, self.gather)
        total = cls + reg + self.seg_weight * (tversky + focal)
        return LossParts(cls, reg, tversky, focal, total)

    def _labelled(self, has_boxes: Tensor) -> Tensor:
        """Labelled images a process, on average over the processes: their mean gradient is that of all images."""
        count = torch.stack([has_boxes.sum().float(), torch.ones((), device=has_boxes.device)])
        if self.gather is not None:
            count = self.gather(count)
        # without any labelled image the sums are 0 and so is the loss
        return (count[0] / count[1]).clamp(min=1e-6)
