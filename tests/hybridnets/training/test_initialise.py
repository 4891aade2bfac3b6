"""Initial weights of a training run."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hybridnets.config import ModelConfig
from hybridnets.errors import HnxError
from hybridnets.network import HybridNets, create_model, timm_weights
from hybridnets.network.timm_encoder import TimmEncoder
from hybridnets.training.initialise import initialise, load_encoder, read_encoder, read_timm
from tests import parity


def _network(coefficient: int = 3) -> HybridNets:
    with torch.device("meta"):
        network = HybridNets(ModelConfig(coefficient))
    return network.to_empty(device="cpu").requires_grad_(False)


@functools.cache
def _fresh() -> HybridNets:
    network = _network()
    initialise(network, 5)
    return network


def _fan_in(conv: nn.Conv2d) -> int:
    return conv.in_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1]


def _convs(network: HybridNets, *parts: str) -> dict[str, nn.Conv2d]:
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and name.startswith(parts)
    }


def _pooled(convs: dict[str, nn.Conv2d]) -> Tensor:
    """All weights, each times the square root of its fan-in."""
    return torch.cat([conv.weight.flatten() * math.sqrt(_fan_in(conv)) for conv in convs.values()])


def _encoder_state(coefficient: int = 3) -> dict[str, Tensor]:
    """A pretrained EfficientNet as its package writes it."""
    config = ModelConfig(coefficient)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in HybridNets(config).encoder.state_dict().items()}
    state = {name: torch.from_numpy(parity.fill(f"encoder.{name}", shape, {})) for name, shape in shapes.items()}
    return {**state, "_fc.weight": torch.ones(10, 1536), "_fc.bias": torch.ones(10)}


@pytest.mark.parametrize("head", ["regressor.", "classifier."])
def test_detection_heads(head: str) -> None:
    convs = _convs(_fresh(), head)
    assert float(_pooled(convs).std()) == pytest.approx(1.0, rel=0.02)
    assert float(_pooled(convs).abs().max()) > 3.0  # normal, not uniform
    for name, conv in convs.items():
        if conv.bias is not None:
            expected = -math.log(99) if name == "classifier.header.pointwise_conv.conv" else 0.0
            assert conv.bias.tolist() == pytest.approx([expected] * len(conv.bias))


def test_neck_and_decoder_are_uniform_by_their_fan_in() -> None:
    convs = _convs(_fresh(), "bifpn.", "bifpndecoder.")
    assert len(convs) > 100
    for name, conv in convs.items():
        bound = math.sqrt(6.0 / _fan_in(conv))
        largest = float(conv.weight.abs().max())
        assert 0.95 * bound < largest <= bound, name
        assert conv.bias is None or not conv.bias.any()
    head = _convs(_fresh(), "segmentation_head.")["segmentation_head.0"]
    assert 0.9 < float(head.weight.abs().max()) / math.sqrt(6.0 / (64 + 3)) <= 1.0


def test_encoder_without_pretrained_weights_and_the_rest() -> None:
    network = _fresh()
    for block in network.encoder.blocks():
        conv = block._project_conv
        assert float(conv.weight.std()) == pytest.approx(math.sqrt(2.0 / conv.out_channels), rel=0.1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert not module.bias.any()
            assert bool((module.running_var == 1).all())
            assert not module.running_mean.any()
            assert int(module.num_batches_tracked) == 0
    assert all(bool((weight == 1).all()) for cell in network.bifpn for weight in cell.parameters(recurse=False))


def test_seeded_and_without_touching_the_global_generator() -> None:
    state = torch.get_rng_state()
    again, other = _network(), _network()
    initialise(again, 5)
    initialise(other, 6)
    assert torch.equal(torch.get_rng_state(), state)
    assert parity.state_digest(again.state_dict()) == parity.state_digest(_fresh().state_dict())
    assert parity.state_digest(other.state_dict()) != parity.state_digest(_fresh().state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "encoder."])
def test_a_pretrained_encoder_is_kept_and_nothing_else_changes(tmp_path: Path, prefix: str) -> None:
    state = _encoder_state()
    torch.save(
        {f"{prefix}{name}": value for name, value in state.items() if prefix != "encoder." or "_fc" not in name},
        tmp_path / "b3.pth",
    )
    network = _network()
    initialise(network, 5, encoder=read_encoder(tmp_path / "b3.pth"))
    fresh = _fresh().state_dict()
    for name, value in network.state_dict().items():
        inner = name.removeprefix("encoder.")
        assert torch.equal(value, state[inner] if inner != name else fresh[name]), name


def test_upstreams_variant_leaves_only_the_batch_norms_of_the_encoder(tmp_path: Path) -> None:
    state = _encoder_state()
    network = _network()
    encoder = {name: value for name, value in state.items() if not name.startswith("_fc")}
    initialise(network, 5, encoder=encoder, upstream=True)
    for part in ("encoder.", "bifpn.", "bifpndecoder.", "segmentation_head.", "regressor.", "classifier."):
        convs = _convs(network, part)
        assert float(_pooled(convs).std()) == pytest.approx(1.0, rel=0.1), part
        for name, conv in convs.items():
            if conv.bias is not None:
                assert bool(conv.bias.any()) == (name == "classifier.header.pointwise_conv.conv"), name
    for name, module in network.encoder.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, state[f"{name}.weight"])
            assert torch.equal(module.running_var, state[f"{name}.running_var"])


def test_counters_may_be_missing() -> None:
    encoder = {n: v for n, v in _encoder_state().items() if not n.startswith("_fc") and "num_batches" not in n}
    network = _network()
    initialise(network, 5, encoder=encoder)
    assert torch.equal(network.encoder._conv_stem.weight, encoder["_conv_stem.weight"])
    assert int(network.encoder._bn0.num_batches_tracked) == 0


@pytest.mark.parametrize("variant", [0, 4])
def test_another_variant_is_refused_and_the_right_one_named(variant: int) -> None:
    encoder = {name: value for name, value in _encoder_state(variant).items() if not name.startswith("_fc")}
    with pytest.raises(HnxError) as caught:
        initialise(_network(), 5, encoder=encoder)
    assert "EfficientNet-B3" in caught.value.fix


@pytest.fixture
def timm_like() -> HybridNets:
    """A network that calls its encoder one of timm's: the names of the tensors do not matter here."""
    network = _network(0)
    network.config = replace(network.config, backbone="repvgg_b0")
    for tensor in network.state_dict().values():
        tensor.zero_()
    return network


def test_a_timm_backbone_takes_a_file_of_timm(timm_like: HybridNets, tmp_path: Path) -> None:
    state = {name: torch.ones_like(value) for name, value in timm_like.encoder.state_dict().items()}
    whole = {f"{name.replace('_blocks.', '_blocks_')}": value for name, value in state.items()}
    torch.save({**whole, "head.fc.weight": torch.ones(2)}, tmp_path / "repvgg.pth")
    load_encoder(timm_like, read_timm(tmp_path / "repvgg.pth"))
    assert all(bool((value == 1).all()) for value in timm_like.encoder.state_dict().values())
    assert not timm_like.bifpn[0].p6_w1.any()
    with pytest.raises(HnxError, match="holds no weights of repvgg_b0") as caught:
        load_encoder(timm_like, {"stem.weight": torch.ones(2)})
    assert "model.safetensors" in caught.value.fix


def test_a_timm_backbone_takes_what_timm_downloads(timm_like: HybridNets, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def made(name: str, seed: int = 0, *, pretrained: bool = False) -> TimmEncoder:
        asked.append((name, pretrained))
        encoder = copy.deepcopy(timm_like.encoder)
        for tensor in encoder.state_dict().values():
            tensor.fill_(2.0 if pretrained else 3.0)
        return TimmEncoder(encoder, (1, 1, 1, 1), False)

    monkeypatch.setattr(timm_weights, "make_timm_encoder", made)
    initialise(timm_like, 5, encoder="pretrained")
    assert asked == [("repvgg_b0", False), ("repvgg_b0", True)]
    assert all(bool((value == 2).all()) for value in timm_like.encoder.state_dict().values())


def test_nothing_is_downloaded_for_an_efficientnet() -> None:
    with pytest.raises(HnxError, match="timm backbones only") as caught:
        initialise(_network(0), encoder="pretrained")
    assert "efficientnet-b0" in caught.value.fix


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(2)}, tmp_path / "resnet.pth")
    with pytest.raises(HnxError) as caught:
        read_encoder(tmp_path / "resnet.pth")
    assert "conv1.weight" in caught.value.why


def test_untrained_network_for_running_keeps_its_gains() -> None:
    with_gains = create_model(ModelConfig(3), 5).state_dict()
    name = "bifpn.0.conv6_up.pointwise_conv.conv.weight"
    assert torch.allclose(with_gains[name], 1.2 * _fresh().state_dict()[name])
