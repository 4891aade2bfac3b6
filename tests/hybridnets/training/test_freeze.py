"""Frozen parts must not move in any way, whatever train() says."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import Tensor

from hybridnets.config import ModelConfig
from hybridnets.network import HybridNets, create_model
from hybridnets.training.freeze import PARTS, freeze
from tests import parity


@functools.cache
def _untouched() -> HybridNets:
    return create_model(ModelConfig(0))


def _network() -> HybridNets:
    return copy.deepcopy(_untouched())


def _image() -> Tensor:
    return torch.from_numpy(parity.leaves_image("freeze", 2, 128, 128))


def _part_of(name: str) -> str:
    module = name.partition(".")[0]
    return next(part for part, names in PARTS.items() if module in names)


def test_parts_cover_the_network_once() -> None:
    listed = [name for names in PARTS.values() for name in names]
    assert sorted(listed) == sorted(name for name, _ in _untouched().named_children())


@pytest.mark.parametrize("frozen", [("backbone",), ("det",), ("seg",), ("backbone", "det"), ("backbone", "seg")])
def test_a_step_moves_every_tensor_of_the_other_parts_and_none_of_these(frozen: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    network = _network()
    freeze(network, **dict.fromkeys(frozen, True))
    network.eval()
    network.train()
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    sum(value.square().mean() for value in network(_image())).backward()
    optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in moved if _part_of(name) in frozen}
    norms = {name.removesuffix(".running_mean") for name in before if name.endswith(".running_mean")}
    for name in norms - {"encoder._bn1"}:  # which takes no part in the forward pass
        assert (f"{name}.running_var" in moved) == (_part_of(name) not in frozen), name
        assert (f"{name}.num_batches_tracked" in moved) == (_part_of(name) not in frozen), name
        assert (f"{name}.weight" in moved) == (_part_of(name) not in frozen), name
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (_part_of(name) not in frozen)
        if _part_of(name) in frozen:
            assert parameter.grad is None


def test_dropout_and_drop_connect_of_frozen_parts_are_off() -> None:
    network = _network()
    freeze(network, backbone=True, seg=True)
    image = _image()
    with torch.no_grad():
        expected = network.eval()(image)
        network.train()
        assert network.training
        found = network(image)
    assert torch.equal(found.segmentation, expected.segmentation)
    assert not torch.equal(found.classification, expected.classification)  # batch statistics


def test_a_frozen_backbone_alone_is_deterministic_up_to_its_pyramid() -> None:
    network = _network()
    freeze(network, backbone=True)
    with torch.no_grad():
        expected = network.eval().features(_image()).pyramid
        found = network.train().features(_image()).pyramid
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_freezing_again_thaws_the_rest_and_a_copy_stays_frozen() -> None:
    network = _network()
    freeze(network, backbone=True)
    freeze(network, det=True)
    assert network.encoder.training
    assert network.encoder._conv_stem.weight.requires_grad
    duplicate = copy.deepcopy(network).train()
    assert not duplicate.regressor.training
    assert not duplicate.classifier.training
    assert duplicate.bifpn.training
