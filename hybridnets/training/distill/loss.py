"""How far a student is from its teacher, as losses to minimise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hybridnets.config import SegMode
from hybridnets.network.model import HybridNets, Outputs
from hybridnets.training.data import Batch
from hybridnets.training.normaliser import Normaliser

__all__ = ["DistillLoss", "FeatureTap", "map_distance", "outputs_loss"]

_LEAST = 1e-6  # of a probability or a sum that something is divided by


class FeatureTap:
    """Keeps the maps behind the outputs of a network's last forward pass: encoder P2..P5 and the BiFPN's P3..P7.

    Args:
        network: to listen to, until `close`.
    """

    def __init__(self, network: HybridNets) -> None:
        self._maps: list[Tensor] = []
        self._handles = [
            network.encoder.register_forward_hook(self._encoded),
            network.bifpn.register_forward_hook(self._fused),
        ]

    def _encoded(self, module: Any, inputs: Any, output: Sequence[Tensor]) -> None:
        self._maps = list(output)

    def _fused(self, module: Any, inputs: Any, output: Sequence[Tensor]) -> None:
        self._maps += output

    def take(self) -> list[Tensor]:
        """The maps, which are forgotten here."""
        maps, self._maps = self._maps, []
        return maps

    def __enter__(self) -> FeatureTap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more."""
        for handle in self._handles:
            handle.remove()


def map_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared relative L2 of a batch of maps, mean over its images: sum (s - t)^2 / sum t^2."""
    s, t = student.float().flatten(1), teacher.float().flatten(1)
    return ((s - t).square().sum(1) / t.square().sum(1).clamp_min(_LEAST)).mean()


def outputs_loss(student: Outputs, teacher: Outputs, seg_mode: SegMode) -> dict[str, Tensor]:
    """Terms `cls`, `reg` and `seg`; each is a mean over images, so equal shares of a batch give equal gradients.

    * cls: the quality focal loss of Li et al. (2020), |t - s|^2 * BCE(s, t), summed over the anchors of an image and
      divided by the sum of the teacher's scores (at least 1): background is quiet where both agree on it.
    * reg: smooth L1 with its knee at 1/9 as in training, weighted by the teacher's score of the anchor.
    * seg: Kullback-Leibler divergence from the teacher's distribution over classes (multiclass) or of each class's
      two outcomes (binary, multilabel), mean over pixels.
    """
    with torch.autocast(student.regression.device.type, enabled=False):
        s, t = student.classification.float(), teacher.classification.float()
        mass = t.sum((1, 2)).clamp_min(1.0)
        s = s.clamp(_LEAST, 1 - _LEAST)
        entropy = -(t * s.log() + (1 - t) * (1 - s).log())
        cls = ((t - s).square() * entropy).sum((1, 2)) / mass
        weight = t.amax(2, keepdim=True)
        off = functional.smooth_l1_loss(
            student.regression.float(), teacher.regression.float(), reduction="none", beta=1 / 9
        )
        reg = (weight * off).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1.0)
        seg = _divergence(student.segmentation.float(), teacher.segmentation.float(), seg_mode)
        return {"cls": cls.mean(), "reg": reg.mean(), "seg": seg}


def _divergence(student: Tensor, teacher: Tensor, seg_mode: SegMode) -> Tensor:
    if seg_mode == "multiclass":
        s, t = functional.log_softmax(student, 1), functional.log_softmax(teacher, 1)
        return (t.exp() * (t - s)).sum(1).mean()
    log_s, log_t = functional.logsigmoid(student), functional.logsigmoid(teacher)
    off_s, off_t = functional.logsigmoid(-student), functional.logsigmoid(-teacher)
    return (log_t.exp() * (log_t - log_s) + off_t.exp() * (off_t - off_s)).mean()


class DistillLoss:
    """The criterion of a distillation: `loss` is the sum of all terms.

    Args:
        teacher: in eval mode, on the device.
        student: whose maps are listened to; None compares outputs only.
        normaliser: makes the teacher's input.
        seg_weight: of `seg` in the sum.
        feature_weight: of `features`, the mean of `map_distance` over all maps; 0 leaves them out.
    """

    def __init__(
        self,
        teacher: HybridNets,
        student: HybridNets | None,
        normaliser: Normaliser,
        *,
        seg_weight: float = 1.0,
        feature_weight: float = 1.0,
    ) -> None:
        self.teacher, self.normaliser = teacher.eval().requires_grad_(False), normaliser
        self.seg_weight, self.feature_weight = seg_weight, feature_weight
        self._taps: tuple[FeatureTap, FeatureTap] | None = None
        if student is not None and feature_weight > 0:
            self._taps = FeatureTap(student), FeatureTap(teacher)

    def __call__(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """Terms of the batch that the student has just computed."""
        with torch.no_grad():
            wanted = self.teacher(self.normaliser(batch.images))
        terms = outputs_loss(outputs, wanted, self.teacher.config.seg_mode)
        loss = terms["cls"] + terms["reg"] + self.seg_weight * terms["seg"]
        if self._taps is not None:
            students, teachers = (tap.take() for tap in self._taps)
            distances = [map_distance(s, t) for s, t in zip(students, teachers, strict=True)]
            terms["features"] = torch.stack(distances).mean()
            loss = loss + self.feature_weight * terms["features"]
        return {"loss": loss, **terms}
