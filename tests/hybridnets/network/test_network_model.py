"""What the network does beside computing the right numbers."""

from __future__ import annotations

import io
import warnings
from typing import get_args

import pytest
import torch
from torch import nn

from hybridnets.config import ENCODERS, STRIDES, Activation, ModelConfig, SegMode
from hybridnets.errors import ExitCode, HnxError
from hybridnets.network import HybridNets, create_model, initialize
from hybridnets.network.encoder import block_specs, drop_connect, tap_indices
from hybridnets.network.layers import StaticPadConv2d, ZeroPadMaxPool
from tests import parity


def _image(height: int = 128, width: int = 256, count: int = 1) -> torch.Tensor:
    return torch.from_numpy(parity.leaves_image("network", count, height, width))


def _anchors(height: int, width: int) -> int:
    return sum(9 * (height // s) * (width // s) for s in STRIDES)


@pytest.mark.parametrize("coefficient", range(7))
def test_untrained_network_of_every_coefficient_gives_usable_outputs(coefficient: int) -> None:
    network = create_model(ModelConfig(coefficient)).eval()
    with torch.inference_mode():
        regression, scores, segmentation = network(_image())
    assert regression.shape == (1, _anchors(128, 256), 4)
    assert scores.shape == (1, _anchors(128, 256), 1)
    assert segmentation.shape == (1, 3, 128, 256)
    logits = torch.logit(scores)
    assert 5e-5 < float(regression.std()) < 1.0
    assert 5e-5 < float(logits.std()) < 1.0
    assert abs(float(logits.mean()) + 4.595) < 0.1
    assert 0.1 < float(segmentation.std()) < 10.0


@pytest.mark.parametrize("coefficient", [6, 7])
def test_the_two_largest_networks_have_unweighted_fusion_and_the_weights_in_the_state(
    coefficient: int,
) -> None:
    with torch.device("meta"):
        network = HybridNets(ModelConfig(coefficient)).eval()
        outputs = network(torch.empty(1, 3, 128, 256))
    assert outputs.regression.shape == (1, _anchors(128, 256), 4)
    assert outputs.segmentation.shape == (1, 3, 128, 256)
    assert not any(cell.weighted for cell in network.bifpn)
    assert network.state_dict()["bifpn.7.p4_w2"].shape == (3,)


@pytest.mark.parametrize("mode", get_args(SegMode))
@pytest.mark.parametrize("activation", get_args(Activation))
def test_modes_and_activations(mode: SegMode, activation: Activation) -> None:
    config = ModelConfig(0, 10, 1 if mode == "binary" else 2, mode, activation)
    with torch.inference_mode():
        outputs = create_model(config).eval()(_image(count=2))
    assert outputs.classification.shape == (2, _anchors(128, 256), 10)
    assert outputs.segmentation.shape == (2, 1 if mode == "binary" else 3, 128, 256)
    assert all(torch.isfinite(value).all() for value in outputs)
    assert 0.1 < float(outputs.segmentation.std()) < 10.0


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 360, 640), "height 360: use 256 or 384"),
        ((1, 3, 384, 600), "width 600: use 512 or 640"),
        ((3, 384, 640), "(N, 3, H, W)"),
        ((1, 384, 640, 3), "(N, 3, H, W)"),
    ],
)
def test_other_input_shapes_are_refused(shape: tuple[int, ...], words: str) -> None:
    with torch.device("meta"):
        network = HybridNets(ModelConfig(0)).eval()
        with pytest.raises(HnxError) as caught:
            network(torch.empty(shape))
    assert words in str(caught.value)
    assert caught.value.code == ExitCode.USAGE


def _calls(network: HybridNets) -> set[str]:
    """The names of the top-level parts that run from now on."""
    calls: set[str] = set()
    for name, part in network.named_children():
        part.register_forward_hook(lambda *_, name=name: calls.add(name))
    return calls


def test_each_task_can_run_without_the_other() -> None:
    network = create_model(ModelConfig(0)).eval()
    with torch.inference_mode():
        whole = network(_image())
        features = network.features(_image())
        calls = _calls(network)
        regression, scores = network.forward_detection(features)
        assert calls == {"regressor", "classifier"}
        calls.clear()
        segmentation = network.forward_segmentation(features)
        assert calls == {"bifpndecoder", "segmentation_head"}
    assert torch.equal(regression, whole.regression)
    assert torch.equal(scores, whole.classification)
    assert torch.equal(segmentation, whole.segmentation)


def test_initialisation_depends_on_the_seed_and_on_nothing_else() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second, other = (create_model(ModelConfig(0), seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert parity.state_digest(first.state_dict()) == parity.state_digest(second.state_dict())
    assert parity.state_digest(first.state_dict()) != parity.state_digest(other.state_dict())
    initialize(other, 7)
    assert parity.state_digest(first.state_dict()) == parity.state_digest(other.state_dict())
    assert first.training


def test_initial_variances() -> None:
    network = create_model(ModelConfig(3)).requires_grad_(False)
    stem = network.encoder._conv_stem.weight
    assert float(stem.std()) == pytest.approx((2 / (9 * 40)) ** 0.5, rel=0.1)
    tower = network.regressor.conv_list[0].pointwise_conv.conv.weight
    assert float(tower.std()) == pytest.approx((1 / 160) ** 0.5, rel=0.05)
    unit = network.bifpndecoder.seg_blocks[0].block[0].block[0].conv.weight
    assert float(unit.abs().max()) == pytest.approx((6 / (9 * 160)) ** 0.5, rel=0.01)
    head = network.segmentation_head[0].weight
    assert float(head.abs().max()) <= (6 / (64 + 3)) ** 0.5
    for name, buffer in network.named_buffers():
        assert bool((buffer == (1 if name.endswith("running_var") else 0)).all()), name


def test_padding_of_the_encoder_is_that_of_the_nominal_resolution() -> None:
    def strided(variant: int) -> list[tuple[int, ...]]:
        with torch.device("meta"):
            network = HybridNets(ModelConfig(variant))
        convs = [m for m in network.encoder.modules() if isinstance(m, StaticPadConv2d) and m.stride[0] == 2]
        return [conv.pads for conv in convs]

    early, late = (0, 1, 0, 1), (2, 2, 2, 2)
    assert strided(3) == [early, early, late, early, late]
    assert strided(4) == [early, early, late, early, (1, 2, 1, 2)]


def test_blocks_of_b3_and_b4() -> None:
    b3, b4 = block_specs(ENCODERS[3]), block_specs(ENCODERS[4])
    assert tap_indices(b3) == (4, 7, 17, 25)
    assert tap_indices(b4) == (5, 9, 21, 31)
    assert [b3[i].out_channels for i in tap_indices(b3)] == [32, 48, 136, 384]
    assert b3[-1].drop == pytest.approx(0.2 * 25 / 26)


def test_pool_border_is_zero() -> None:
    pooled = ZeroPadMaxPool()(torch.full((1, 1, 4, 4), -1.0))
    assert pooled.tolist() == [[[[-1.0, 0.0], [0.0, 0.0]]]]


def test_drop_connect_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = drop_connect(torch.ones(4000, 2, 3, 3), 0.2)
    per_sample = dropped.flatten(1)
    assert set(per_sample[:, 0].tolist()) <= {0.0, 1.25}
    assert bool((per_sample == per_sample[:, :1]).all())
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.03)


def test_training_mode_is_stochastic_and_every_used_parameter_learns() -> None:
    torch.manual_seed(0)
    network = create_model(ModelConfig(0))
    image = _image(128, 256, 2)
    first = network(image)
    assert not torch.equal(first.segmentation, network(image).segmentation)
    sum(value.square().mean() for value in first).backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None}
    assert idle == {"encoder._conv_head.weight", "encoder._bn1.weight", "encoder._bn1.bias"}


class _Detection(nn.Module):
    def __init__(self, network: HybridNets) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.network.forward_detection(self.network.features(image))


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
def test_tracing_for_onnx_warns_about_nothing_and_prunes(opset: int) -> None:
    onnx = pytest.importorskip("onnx")
    network = create_model(ModelConfig(0)).eval()
    for module, outputs in ((network, 3), (_Detection(network).eval(), 2)):
        target = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", torch.jit.TracerWarning)
            torch.onnx.export(module, (_image(),), target, opset_version=opset, dynamo=False)
        graph = onnx.load_from_string(target.getvalue()).graph
        assert len(graph.output) == outputs
        named = [tensor.name for tensor in graph.initializer if "segmentation_head" in tensor.name]
        assert bool(named) == (outputs == 3)
