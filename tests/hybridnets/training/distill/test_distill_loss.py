"""Losses of a distillation: zero for the same network, larger with the distance, written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hybridnets.config import ModelConfig, SegMode
from hybridnets.network.model import HybridNets, Outputs
from hybridnets.network.weights import create_model
from hybridnets.training.data import Batch
from hybridnets.training.distill.loss import DistillLoss, FeatureTap, map_distance, outputs_loss
from hybridnets.training.normaliser import Normaliser


def outputs(seed: int, channels: int = 3) -> Outputs:
    made = torch.Generator().manual_seed(seed)
    return Outputs(
        torch.randn(2, 5, 4, generator=made),
        torch.rand(2, 5, 1, generator=made),
        torch.randn(2, channels, 4, 6, generator=made),
    )


@pytest.mark.parametrize(("mode", "channels"), [("multiclass", 3), ("binary", 1), ("multilabel", 3)])
def test_nothing_to_learn_from_oneself(mode: SegMode, channels: int) -> None:
    same = outputs(0, channels)
    assert {name: float(value) for name, value in outputs_loss(same, same, mode).items()} == pytest.approx(
        {"cls": 0.0, "reg": 0.0, "seg": 0.0}, abs=1e-7
    )
    other = outputs_loss(outputs(1, channels), same, mode)
    assert all(float(value) > 0.01 for value in other.values())


def test_terms_by_hand() -> None:
    student = Outputs(
        torch.tensor([[[1.0, 0, 0, 0], [5.0, 5, 5, 5]]]),
        torch.tensor([[[0.5], [0.5]]]),
        torch.zeros(1, 2, 1, 1),
    )
    teacher = Outputs(torch.zeros(1, 2, 4), torch.tensor([[[0.8], [0.0]]]), torch.tensor([[[[0.0]], [[math.log(3)]]]]))
    found = {name: float(value) for name, value in outputs_loss(student, teacher, "multiclass").items()}
    # scores sum to 0.8, so they are divided by 1
    assert found["cls"] == pytest.approx((0.3**2 + 0.5**2) * math.log(2), rel=1e-5)
    # the anchor without an object counts nothing
    assert found["reg"] == pytest.approx(0.8 * (1 - 0.5 / 9), rel=1e-5)
    assert found["seg"] == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-5)


def test_shares_of_a_batch_give_the_gradient_of_the_whole() -> None:
    teacher = outputs(1)
    rows = torch.arange(2)

    def gradient(parts: list[Tensor]) -> Tensor:
        student = outputs(0)
        for tensor in student:
            tensor.requires_grad_()
        for part in parts:
            terms = outputs_loss(
                Outputs(*(x[part] for x in student)), Outputs(*(x[part] for x in teacher)), "multiclass"
            )
            (sum(terms.values(), torch.zeros(())) / len(parts)).backward()
        grads = [x.grad for x in student]
        assert all(grad is not None for grad in grads)
        return torch.cat([grad.flatten() for grad in grads if grad is not None])

    assert torch.allclose(gradient([rows]), gradient([rows[:1], rows[1:]]), rtol=1e-5, atol=1e-8)


def test_distance_of_maps_is_the_squared_relative_error() -> None:
    teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    student = teacher + torch.tensor([[0.0, 1.0], [0.0, 0.5]])
    assert float(map_distance(student, teacher)) == pytest.approx((1 / 25 + 0.25) / 2)


@pytest.fixture(scope="module")
def pair() -> tuple[HybridNets, HybridNets]:
    config = ModelConfig(compound_coef=0, num_classes=1, seg_classes=2, seg_mode="multiclass", activation="swish")
    teacher = create_model(config, 0).eval()
    student = create_model(
        ModelConfig(compound_coef=0, num_classes=1, seg_classes=2, seg_mode="multiclass", activation="hardswish"), 0
    ).eval()
    return teacher, student


def test_maps_of_both_networks_are_compared(pair: tuple[HybridNets, HybridNets]) -> None:
    teacher, student = pair
    normaliser = Normaliser((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    images = torch.randint(0, 255, (2, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, torch.zeros(2, 1, 5), torch.zeros(2, 128, 128), ("a", "b"))
    loss = DistillLoss(teacher, student, normaliser, seg_weight=2.0, feature_weight=3.0)
    terms = {name: value.detach() for name, value in loss(student(normaliser(images)), batch).items()}
    assert set(terms) == {"loss", "cls", "reg", "seg", "features"}
    assert float(terms["features"]) > 0
    whole = terms["cls"] + terms["reg"] + 2 * terms["seg"] + 3 * terms["features"]
    assert float(terms["loss"]) == pytest.approx(float(whole))
    # a network that is its own teacher
    same = DistillLoss(teacher, teacher, normaliser)(teacher(normaliser(images)), batch)
    assert float(same["loss"].detach()) == pytest.approx(0.0, abs=1e-6)
    alone = DistillLoss(teacher, None, normaliser)(student(normaliser(images)), batch)
    assert "features" not in alone


def test_a_tap_holds_nine_maps_and_forgets_them(pair: tuple[HybridNets, HybridNets]) -> None:
    teacher, _ = pair
    image = torch.zeros(1, 3, 128, 128)
    with FeatureTap(teacher) as tap:
        teacher(image)
        teacher(image)
        assert [tuple(x.shape[-2:]) for x in tap.take()] == [(128 >> k, 128 >> k) for k in (2, 3, 4, 5, 3, 4, 5, 6, 7)]
        assert tap.take() == []
    teacher(image)
    assert tap.take() == []
