"""The moving average of the weights."""

from __future__ import annotations

import copy
import functools
import io
import math

import pytest
import torch

from hybridnets.config import ModelConfig
from hybridnets.errors import HnxError
from hybridnets.network import HybridNets, create_model
from hybridnets.training.ema import Ema
from tests import parity


@functools.cache
def _start() -> HybridNets:
    return create_model(ModelConfig(0))


def _shift(network: HybridNets, amount: float) -> HybridNets:
    moved = copy.deepcopy(network)
    with torch.no_grad():
        for value in moved.state_dict().values():
            value.add_(amount if value.is_floating_point() else 3)
    return moved


def test_updates_are_weighted_as_documented() -> None:
    ema = Ema(_start(), decay=0.9, ramp=10.0)
    start = copy.deepcopy(_start().state_dict())
    moved = _shift(_start(), 1.0)
    left = 1.0
    for update in (1, 2, 3):
        ema.update(moved)
        left *= 0.9 * (1.0 - math.exp(-update / 10.0))
    for name, value in ema.network.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, start[name] + (1.0 - left), atol=1e-5), name
        else:
            assert torch.equal(value, moved.state_dict()[name]), name


def test_a_network_that_stays_is_its_own_average_to_the_bit() -> None:
    ema = Ema(_start())
    for _ in range(3):
        ema.update(_start())
    assert parity.state_digest(ema.network.state_dict()) == parity.state_digest(_start().state_dict())


def test_the_average_shares_nothing_and_is_in_eval_mode() -> None:
    network = copy.deepcopy(_start())
    before = parity.state_digest(network.state_dict())
    ema = Ema(network)
    assert network.training
    assert not ema.network.training
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    ema.update(_shift(network, 1.0))
    assert parity.state_digest(network.state_dict()) == before


def test_resumes_to_the_bit() -> None:
    networks = [_shift(_start(), float(k)) for k in range(1, 5)]
    whole = Ema(_start(), ramp=3.0)
    cut = Ema(_start(), ramp=3.0)
    for network in networks[:2]:
        whole.update(network)
        cut.update(network)
    file = io.BytesIO()
    torch.save(cut.state_dict(), file)
    file.seek(0)
    resumed = Ema(_shift(_start(), 100.0), ramp=3.0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for network in networks[2:]:
        whole.update(network)
        resumed.update(network)
    assert resumed.updates == whole.updates == 4
    assert parity.state_digest(resumed.network.state_dict()) == parity.state_digest(whole.network.state_dict())


def test_the_ramp_ends_at_the_decay() -> None:
    ema = Ema(_start(), decay=0.99, ramp=100.0)
    assert ema.decay_of(1) == pytest.approx(0.99 * (1 - math.exp(-0.01)))
    assert ema.decay_of(100) == pytest.approx(0.99 * (1 - math.exp(-1)))
    assert ema.decay_of(10_000) == pytest.approx(0.99)


@pytest.mark.parametrize("values", [{"decay": 1.0}, {"decay": -0.1}, {"ramp": 0.0}, {"decay": float("nan")}])
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(HnxError):
        Ema(_start(), **values)
