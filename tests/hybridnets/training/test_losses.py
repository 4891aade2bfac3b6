"""What the losses do beside giving the recorded values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hybridnets.anchors import make_anchors
from hybridnets.errors import ExitCode, HnxError
from hybridnets.network import Outputs
from hybridnets.training.losses import HybridLoss, LossParts, assign, detection_losses, segmentation_losses
from hybridnets.training.losses import detection as detection_module
from tests import parity_losses

SIZE = (256, 128)


def _anchors() -> Tensor:
    return torch.from_numpy(make_anchors(*SIZE)[0])


def _detection(classes: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    regression, scores, boxes = map(torch.from_numpy, parity_losses.detection(classes))
    return regression, scores, boxes


def _batch(classes: int = 1) -> tuple[Outputs, Tensor, Tensor]:
    """Outputs, boxes and target of two images."""
    regression, scores, boxes = (value[:2] for value in _detection(classes))
    logits = torch.randn(2, 3, 128, 256, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(2, 128, 256, dtype=torch.uint8)
    target[:, 60:] = 1
    target[:, 90:100] = 2
    return Outputs(regression, scores, logits), boxes, target


def test_an_anchor_takes_its_best_box_and_the_first_of_equals() -> None:
    anchor = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    boxes = torch.tensor(
        [
            [
                [-1.0, -1.0, -1.0, -1.0, -1.0],
                [0.0, 0.0, 20.0, 10.0, 3.0],  # IoU 0.5
                [0.0, 0.0, 20.0, 16.0, 4.0],  # 0.8
                [0.0, 0.0, 16.0, 20.0, 5.0],  # 0.8
            ]
        ]
    )
    found = assign(anchor, boxes)
    assert found.positive.tolist() == [[True]]
    assert found.box[0, 0].tolist() == boxes[0, 2].tolist()


@pytest.mark.parametrize(
    ("box", "positive"),
    [
        ((0.0, 0.0, 20.0, 10.0), True),  # IoU 0.5 exactly
        ((0.0, 0.0, 20.0, 9.99), False),
        ((0.0, 0.0, 10.0, 10.0), True),  # 100 px^2 is small: 0.25 suffices
        ((0.0, 0.0, 10.0, 10.01), False),
        ((0.0, 0.0, 10.0, 5.9), False),  # small, 0.1475
    ],
)
def test_thresholds(box: tuple[float, ...], positive: bool) -> None:
    found = assign(torch.tensor([[0.0, 0.0, 20.0, 20.0]]), torch.tensor([[[*box, 0.0]]]))
    assert found.positive.tolist() == [[positive]]


def test_padding_never_counts_even_where_an_anchor_lies_on_it() -> None:
    anchor = torch.tensor([[-2.0, -2.0, 0.0, 0.0], [0.0, 0.0, 20.0, 20.0]])
    boxes = torch.tensor([[[-1.0, -1.0, -1.0, -1.0, -1.0], [0.0, 0.0, 20.0, 20.0, -1.0]]])
    assert not assign(anchor, boxes).positive.any()


def test_images_in_groups_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    anchors, (_, _, boxes) = _anchors(), _detection(3)
    found = []
    for pairs in (1, 1 << 17, 1 << 30):
        monkeypatch.setattr(detection_module, "_PAIRS_CPU", pairs)
        found.append(assign(anchors, boxes))
    for other in found[1:]:
        assert torch.equal(other.positive, found[0].positive)
        assert torch.equal(other.box[other.positive], found[0].box[found[0].positive])


def test_order_and_padding_of_boxes_change_nothing() -> None:
    regression, scores, boxes = _detection(1)
    anchors = _anchors()
    expected = detection_losses(regression, scores, anchors, boxes)
    padded = torch.cat([torch.full((6, 3, 5), -1.0), boxes.flip(1)], dim=1)
    found = detection_losses(regression, scores, anchors, padded)
    assert found.cls.tolist() == pytest.approx(expected.cls.tolist())
    assert found.reg.tolist() == pytest.approx(expected.reg.tolist())


def test_no_rows_of_boxes_at_all() -> None:
    regression, scores, boxes = _detection(1)
    anchors = _anchors()
    without = detection_losses(regression[1:2], scores[1:2], anchors, torch.empty(1, 0, 5))
    padded = detection_losses(regression[1:2], scores[1:2], anchors, boxes[1:2])
    assert torch.equal(without.cls, padded.cls)
    assert without.reg.tolist() == [0.0]
    assert without.positives.tolist() == [0]


def test_a_nan_where_no_box_is_does_not_reach_the_box_loss() -> None:
    regression, scores, boxes = _detection(1)
    anchors = _anchors()
    positive = assign(anchors, boxes).positive
    expected = detection_losses(regression, scores, anchors, boxes).reg
    poisoned = torch.where(positive[..., None], regression, torch.nan).requires_grad_()
    found = detection_losses(poisoned, scores, anchors, boxes).reg
    assert torch.equal(found, expected)
    found.sum().backward()
    assert poisoned.grad is not None
    assert bool(torch.isfinite(poisoned.grad).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_computed_in_float32_whatever_comes_in(dtype: torch.dtype) -> None:
    outputs, boxes, target = _batch()
    low = Outputs(*(value.to(dtype) for value in outputs))
    criterion = HybridLoss(SIZE, "multiclass")
    expected = criterion(Outputs(*(value.float() for value in low)), boxes, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = criterion(low, boxes, target)
    for name, value in found.terms().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected.terms()[name]), name
        assert math.isfinite(value)


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_perfect_and_utterly_wrong_segmentation_stay_finite(mode: str) -> None:
    channels = 1 if mode == "binary" else 3
    classes = torch.arange(96 * 64).reshape(1, 64, 96) % 3
    planes = torch.stack([classes == k for k in range(channels)], dim=1)
    target = classes if mode == "multiclass" else planes
    for sign in (1.0, -1.0):
        logits = (sign * torch.where(planes, 80.0, -80.0)).requires_grad_()
        loss = segmentation_losses(logits, target.to(torch.uint8), mode)  # type: ignore[arg-type]
        sum(loss).backward()
        assert logits.grad is not None
        assert bool(torch.isfinite(logits.grad).all())
        if sign > 0:
            assert max(loss).item() == pytest.approx(0.0, abs=1e-6)
        else:
            assert loss.tversky.item() == pytest.approx(1.0, abs=1e-3)
            assert loss.focal.item() > 10.0


def test_total_is_the_sum_of_the_parts() -> None:
    outputs, boxes, target = _batch()
    parts = HybridLoss(SIZE, "multiclass")(outputs, boxes, target)
    total = parts.cls + parts.reg + parts.seg_tversky + parts.seg_focal
    assert torch.equal(parts.total, total)
    assert list(parts.terms()) == ["loss", "cls", "reg", "seg_tversky", "seg_focal"]
    detection = detection_losses(outputs.regression, outputs.classification, _anchors(), boxes)
    assert torch.equal(parts.cls, detection.cls.mean())
    assert torch.equal(parts.reg, detection.reg.mean())


@pytest.mark.parametrize("task", ["det", "seg"])
def test_a_frozen_task_costs_nothing_and_gets_no_gradient(task: str) -> None:
    outputs, boxes, target = _batch()
    leaves = [value.clone().requires_grad_() for value in outputs]
    parts = HybridLoss(SIZE, "multiclass", **{task: False})(Outputs(*leaves), boxes, target)
    parts.total.backward()
    silent = {"det": ("cls", "reg"), "seg": ("seg_tversky", "seg_focal")}[task]
    for name, value in parts.terms().items():
        assert (value.item() == 0.0) == (name in silent)
    assert [leaf.grad is None for leaf in leaves] == ([True, True, False] if task == "det" else [False, False, True])


def test_no_task_at_all_is_refused() -> None:
    with pytest.raises(HnxError) as caught:
        HybridLoss(SIZE, "multiclass", det=False, seg=False)
    assert caught.value.code == ExitCode.USAGE


def test_parts_that_are_not_finite_are_named() -> None:
    outputs, boxes, target = _batch()
    criterion = HybridLoss(SIZE, "multiclass")
    assert criterion(outputs, boxes, target).not_finite() == {}
    broken = criterion(outputs._replace(segmentation=outputs.segmentation * torch.nan), boxes, target)
    assert list(broken.not_finite()) == ["seg_tversky", "seg_focal", "total"]
    one = torch.ones(())
    infinite = LossParts(one, one * torch.inf, one, one, one * torch.inf)
    assert infinite.not_finite() == {"reg": math.inf, "total": math.inf}


def test_the_criterion_adds_nothing_to_a_checkpoint() -> None:
    criterion = HybridLoss(SIZE, "multiclass")
    assert not criterion.state_dict()
    assert not list(criterion.parameters())
    assert torch.equal(criterion.anchors, _anchors())


def test_compiles_to_one_graph() -> None:
    outputs, boxes, target = _batch(3)
    criterion = HybridLoss(SIZE, "multiclass")
    leaves = [Outputs(*(value.clone().requires_grad_() for value in outputs)) for _ in range(2)]

    def terms(values: Outputs) -> dict[str, Tensor]:
        return criterion(values, boxes, target).terms()

    # "aot_eager" traces the backward pass, too, and needs no C compiler
    compiled = torch.compile(terms, backend="aot_eager", fullgraph=True)
    expected, found = terms(leaves[0]), compiled(leaves[1])
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-6)
    expected["loss"].backward()
    found["loss"].backward()
    for one, other in zip(*leaves, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-9)


def test_images_without_box_labels_have_no_part_in_the_detection_loss() -> None:
    outputs, boxes, target = _batch()
    loss = HybridLoss(SIZE, "multiclass")
    alone = loss(Outputs(*(x[:1] for x in outputs)), boxes[:1], target[:1])
    leaves = Outputs(*(x.clone().requires_grad_() for x in outputs))
    found = loss(leaves, boxes, target, torch.tensor([True, False]))
    torch.testing.assert_close(found.cls, alone.cls)
    torch.testing.assert_close(found.reg, alone.reg)
    found.total.backward()
    grads = [x.grad for x in leaves]
    assert all(grad is not None for grad in grads)
    regression, scores, logits = (grad for grad in grads if grad is not None)
    assert regression[0].any()
    assert scores[0].any()
    assert not regression[1].any()
    assert not scores[1].any()
    assert logits[1].any()


def test_labelled_everywhere_is_the_plain_mean() -> None:
    outputs, boxes, target = _batch()
    loss = HybridLoss(SIZE, "multiclass")
    plain, told = loss(outputs, boxes, target), loss(outputs, boxes, target, torch.tensor([True, True]))
    torch.testing.assert_close(told.total, plain.total)


def test_no_labelled_image_at_all_and_a_loss_that_is_not_finite_there() -> None:
    outputs, boxes, target = _batch()
    outputs.regression[:] = float("nan")
    outputs.classification[:] = float("nan")
    outputs.regression.requires_grad_()
    found = HybridLoss(SIZE, "multiclass")(outputs, boxes, target, torch.tensor([False, False]))
    assert found.cls == found.reg == 0.0
    assert torch.isfinite(found.total)


def test_processes_count_their_labelled_images_together() -> None:
    outputs, boxes, target = _batch()
    # two processes: this one has one labelled image of two, the other one two
    loss = HybridLoss(SIZE, "multiclass", gather=lambda x: x + torch.tensor([2.0, 1.0]), seg=False)
    found = loss(outputs, boxes, target, torch.tensor([True, False]))
    alone = HybridLoss(SIZE, "multiclass", seg=False)(Outputs(*(x[:1] for x in outputs)), boxes[:1], target[:1])
    torch.testing.assert_close(found.cls, alone.cls / 1.5)  # half of it is a third of the sum over three images


def test_segmentation_can_weigh_more() -> None:
    outputs, boxes, target = _batch()
    plain = HybridLoss(SIZE, "multiclass")(outputs, boxes, target)
    heavy = HybridLoss(SIZE, "multiclass", seg_weight=4.0)(outputs, boxes, target)
    torch.testing.assert_close(heavy.total, plain.total + 3.0 * (plain.seg_tversky + plain.seg_focal))
    torch.testing.assert_close(heavy.seg_focal, plain.seg_focal)
