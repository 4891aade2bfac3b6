"""Every recorded loss and gradient of the original training code."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from hybridnets.anchors import make_anchors
from hybridnets.config import SegMode
from hybridnets.training.losses import detection_losses, focal_loss, segmentation_losses, tversky_loss
from tests import parity, parity_losses

LIMIT = 1e-5  # relative


def _reference(task: str, case: str) -> Any:
    return parity.data("losses/losses.json")[task][case]


def _norm(gradient: torch.Tensor) -> float:
    return float(gradient.double().norm())


@pytest.mark.parametrize("classes", [1, 3])
def test_detection(classes: int) -> None:
    reference = _reference("detection", f"nc{classes}")
    arrays = parity_losses.detection(classes)
    for name, array in zip(("regression", "classification", "annotations"), arrays, strict=True):
        assert parity_losses.sha256(array) == reference["input_sha256"][name]
    regression, scores, boxes = map(torch.from_numpy, arrays)
    regression.requires_grad_()
    scores.requires_grad_()
    loss = detection_losses(regression, scores, torch.from_numpy(make_anchors(256, 128)), boxes)
    for kind in ("float32", "float64"):
        images = reference[kind]["per_image"]
        assert loss.cls.tolist() == pytest.approx([image["cls_loss"] for image in images], rel=LIMIT)
        assert loss.reg.tolist() == pytest.approx([image["reg_loss_times_50"] for image in images], rel=LIMIT)
        assert loss.positives.tolist() == [image["positive_anchors"] for image in images]
        assert loss.cls.mean().item() == pytest.approx(reference[kind]["cls_loss"], rel=LIMIT)
        assert loss.reg.mean().item() == pytest.approx(reference[kind]["reg_loss_times_50"], rel=LIMIT)
    (loss.cls.mean() + loss.reg.mean()).backward()
    assert regression.grad is not None
    assert scores.grad is not None
    expected = reference["float32"]
    assert _norm(scores.grad) == pytest.approx(expected["grad_cls_l2"], rel=LIMIT)
    assert _norm(regression.grad) == pytest.approx(expected["grad_reg_l2"], rel=LIMIT)
    index = parity.sample_index(f"loss/detection/nc{classes}/grad_cls", scores.numel(), 64)
    assert scores.grad.flatten()[index].tolist() == pytest.approx(expected["grad_cls_samples"]["values"], rel=LIMIT)
    assert int((regression.grad != 0).any(dim=2).sum()) == expected["grad_reg_nonzero_rows"]
    for image, anchor, values in expected["grad_reg_first_rows"]:
        assert regression.grad[image, anchor].tolist() == pytest.approx(values, rel=LIMIT)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_segmentation(mode: str, missing: bool) -> None:
    mode = cast(SegMode, mode)
    reference = _reference("segmentation", mode + ("_missing_class" if missing else ""))
    arrays = parity_losses.segmentation(mode, missing=missing)
    for name, array in zip(("logits", "target_int64"), arrays, strict=True):
        assert parity_losses.sha256(array) == reference["input_sha256"][name]
    logits = torch.from_numpy(arrays[0]).requires_grad_()
    target = torch.from_numpy(arrays[1].astype(np.uint8))
    loss = segmentation_losses(logits, target, mode)
    for kind in ("float32", "float64"):
        assert loss.tversky.item() == pytest.approx(reference[kind]["tversky"], rel=LIMIT)
        assert loss.focal.item() == pytest.approx(reference[kind]["focal"], rel=LIMIT)
        assert sum(loss).item() == pytest.approx(reference[kind]["seg_loss"], rel=LIMIT)
    assert torch.equal(tversky_loss(logits, target, mode), loss.tversky)
    assert torch.equal(focal_loss(logits, target, mode), loss.focal)
    first, second = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in loss)
    for kind in ("float32", "float64"):
        expected = reference[kind]
        assert _norm(first) == pytest.approx(expected["grad_tversky_l2"], rel=LIMIT)
        assert _norm(second) == pytest.approx(expected["grad_focal_l2"], rel=LIMIT)
        assert _norm(first + second) == pytest.approx(expected["grad_total_l2"], rel=LIMIT)
    index = parity.sample_index(f"loss/segmentation/{mode}/{missing}/grad", logits.numel(), 64)
    values = reference["float32"]["grad_total_samples"]["values"]
    assert (first + second).flatten()[index].tolist() == pytest.approx(values, rel=LIMIT)
