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
        cls: focal loss of the scores, mean over the images.
        reg: smooth L1 of the boxes, mean over the images; holds its factor of 50.
        seg_tversky, seg_focal: of the segmentation.
        total: their sum, the value to minimise.
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
        self.det, self.seg, self.gather = det, seg, gather
        self.register_buffer("anchors", torch.from_numpy(make_anchors(*size, rule)[0]), persistent=False)

    def forward(self, outputs: Outputs, boxes: Tensor, target: Tensor) -> LossParts:
        """The parts, computed in float32 whatever the outputs are.

        Args:
            outputs: of the network.
            boxes: (N, M, 5) x1, y1, x2, y2, class in input pixels; rows of class -1 are padding.
            target: as `segmentation_losses` takes it.
        """
        zero = torch.zeros((), device=outputs.regression.device)
        cls = reg = tversky = focal = zero
        if self.det:
            detection = detection_losses(outputs.regression, outputs.classification, self.anchors, boxes)
            cls, reg = detection.cls.mean(), detection.reg.mean()
        if self.seg:
            tversky, focal = segmentation_losses(outputs.segmentation, target, self.mode, self.gather)
        return LossParts(cls, reg, tversky, focal, cls + reg + tversky + focal)
