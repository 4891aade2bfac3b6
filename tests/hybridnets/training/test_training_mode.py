"""What the network and the losses do together in one training step."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybridnets.config import ModelConfig
from hybridnets.network import HybridNets, create_model
from hybridnets.training.initialise import initialise
from hybridnets.training.losses import HybridLoss
from tests import parity


def _batch() -> tuple[Tensor, Tensor, Tensor]:
    """Image, boxes and target of two samples of 256x128."""
    image = torch.from_numpy(parity.leaves_image("training mode", 2, 128, 256))
    boxes = torch.full((2, 3, 5), -1.0)
    boxes[0, :2] = torch.tensor([[30.0, 40.0, 90.0, 85.0, 0.0], [120.5, 60.0, 180.0, 100.0, 0.0]])
    boxes[1, 0] = torch.tensor([10.0, 15.0, 60.0, 100.0, 0.0])
    target = np.zeros((2, 128, 256), np.uint8)
    target[:, 64:] = 1
    target[:, 64:, 100:110] = 2
    return image, boxes, torch.from_numpy(target)


def _network() -> HybridNets:
    network = create_model(ModelConfig(0))
    initialise(network, 0)
    return network


def test_batch_norms_have_the_constants_of_published_networks() -> None:
    norms = [module for module in _network().modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 100
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_training_mode_normalises_by_the_batch_and_moves_the_statistics_by_a_hundredth() -> None:
    network = _network()
    network.set_stochastic(False)
    image, _, _ = _batch()
    raw = network.encoder._conv_stem(image).detach()
    network(image)
    norm = network.encoder._bn0
    assert torch.allclose(norm.running_mean, 0.01 * raw.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(norm.running_var, 0.99 + 0.01 * raw.var((0, 2, 3), unbiased=True), atol=1e-5)


def test_without_dropout_and_drop_connect_a_step_is_a_function_of_its_batch() -> None:
    network = _network()
    image, _, _ = _batch()
    network.set_stochastic(False)
    with torch.no_grad():
        torch.manual_seed(1)
        first = network(image)
        torch.manual_seed(2)
        assert all(torch.equal(one, other) for one, other in zip(first, network(image), strict=True))
        network.set_stochastic(True)
        assert not torch.equal(network(image).segmentation, first.segmentation)


def test_drop_connect_grows_with_depth_and_dropout_is_a_fifth() -> None:
    network = _network()
    blocks = list(network.encoder.blocks())
    assert [block.drop for block in blocks] == pytest.approx([0.2 * i / len(blocks) for i in range(len(blocks))])
    assert network.bifpndecoder.dropout.p == 0.2
    assert isinstance(network.bifpndecoder.dropout, nn.Dropout2d)
    network.set_stochastic(False)
    assert not any(block.drop for block in blocks)


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_steps_lower_the_loss(optim: str) -> None:
    network = _network()
    network.set_stochastic(False)
    image, boxes, target = _batch()
    criterion = HybridLoss((256, 128), "multiclass")
    optimizer: torch.optim.Optimizer
    if optim == "adamw":
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    else:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    losses = []
    for _ in range(3):
        parts = criterion(network(image), boxes, target)
        assert not parts.not_finite()
        losses.append(parts.total.item())
        optimizer.zero_grad()
        parts.total.backward()
        optimizer.step()
    assert max(losses[1:]) < losses[0]


def test_a_copy_takes_the_same_step() -> None:
    network = _network()
    network.set_stochastic(False)
    other = copy.deepcopy(network)
    image, boxes, target = _batch()
    criterion = HybridLoss((256, 128), "multiclass")
    gradients = []
    for one in (network, other):
        criterion(one(image), boxes, target).total.backward()
        gradients.append([p.grad for p in one.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(network.parameters())) - 3  # the unused head of the encoder
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
