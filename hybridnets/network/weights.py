"""Initial weights, reproducible on any machine with the same torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hybridnets.config import ModelConfig
from hybridnets.network.bifpn import FUSED
from hybridnets.network.layers import SeparableConv
from hybridnets.network.model import HybridNets
from hybridnets.network.timm_weights import initialize_timm, level_batch_norms

__all__ = ["create_model", "initialize"]

_PRIOR = 0.01  # score every anchor starts with; Lin et al. 2017, Focal Loss, section 4.1

# The textbook variances assume batch norms that normalise. In an untrained network in eval mode they are the
# identity, while swish and the squeeze-excite gate of 0.5 each halve small values: with gains of 1, B3 reaches
# P5 with a standard deviation of 1.5e-4, and the boxes of coefficient 3 have one of 2e-5. Swish passes up to
# twice as much of large values, so gains that hold the level tip over for some seed or image (with 2.5 in place
# of 2.0 below, the segmentation logits of coefficient 1 reach 9e2). These let it fall gently instead. Measured
# over four images of standard deviation 1 and up to four seeds, coefficients 0 to 5 / 6: boxes 2e-4 to 0.12 /
# 7e-5 to 1.4e-4, segmentation logits 0.2 to 5.5 / 0.2 to 0.8.
_SKIP_GAIN = 0.5  # last convolution of an encoder block whose input is added
_NO_SKIP_GAIN = 2.0  # last convolution of an encoder block without
_NODE_GAIN = 1.2  # pointwise convolution of a BiFPN node


def create_model(config: ModelConfig, seed: int = 0) -> HybridNets:
    """A new network in training mode with weights of `initialize`; leaves torch's global generator alone."""
    if config.backbone is None:
        with torch.device("meta"):
            model = HybridNets(config)
        model.to_empty(device="cpu")
    else:  # emptying would take the constants of timm's models along
        with torch.random.fork_rng(devices=[]):
            model = HybridNets(config)
    initialize(model, seed)
    return model


@torch.no_grad()
def initialize(model: HybridNets, seed: int = 0, *, gains: bool = True) -> None:
    """Set every parameter and buffer of a network on the CPU.

    * encoder: normal with variance 2 / fan-out (He et al. 2015), as EfficientNet, times a gain; a timm backbone
      has timm's own initial weights
    * BiFPN: uniform with variance 2 / fan-in (He et al. 2015), times a gain; unweighted nodes divide by the
      number of maps they add; fusion weights 1
    * decoder: uniform with variance 2 / fan-in
    * segmentation head: uniform with variance 2 / (fan-in + fan-out) (Glorot & Bengio 2010)
    * detection heads: normal with variance 1 / fan-in; the classifier starts at the score 0.01
    * batch norms: the identity; all other biases 0

    Args:
        model: the network.
        seed: of all random numbers.
        gains: without, the gains are 1: for training, whose batch norms normalise. With them, the batch norms of a
            timm backbone have the variances of `level_batch_norms`.
    """
    generator = torch.Generator().manual_seed(seed)
    backbone = model.config.backbone
    if backbone is not None:
        initialize_timm(model.encoder, backbone, seed)
    for name, module in model.named_modules():
        if backbone is not None and name.startswith("encoder."):
            continue
        if isinstance(module, nn.Conv2d):
            _initialize_conv(name, module, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    for cell in model.bifpn:
        for weight in cell.parameters(recurse=False):  # the fusion weights
            nn.init.ones_(weight)
    if gains:
        _apply_gains(model)
    bias = model.classifier.header.pointwise_conv.conv.bias
    assert bias is not None
    nn.init.constant_(bias, -math.log((1.0 - _PRIOR) / _PRIOR))


def _apply_gains(model: HybridNets) -> None:
    config = model.config
    passed = math.sqrt(0.5) if config.activation == "relu" else 1.0
    if config.backbone is not None:
        level_batch_norms(model.encoder)
    for block in model.encoder_blocks():
        block._project_conv.weight.mul_(passed**2 * (_SKIP_GAIN if block.skip else _NO_SKIP_GAIN))
    for cell in model.bifpn:
        for name, node in cell.named_children():
            if isinstance(node, SeparableConv):
                maps = 1 if config.scaling.weighted else FUSED[name]
                node.pointwise_conv.conv.weight.mul_(passed * _NODE_GAIN / maps)


def _initialize_conv(name: str, conv: nn.Conv2d, generator: torch.Generator) -> None:
    part = name.partition(".")[0]
    weight: Tensor = conv.weight
    area = conv.kernel_size[0] * conv.kernel_size[1]
    fan_in, fan_out = area * conv.in_channels // conv.groups, area * conv.out_channels // conv.groups
    if part == "encoder":
        weight.normal_(0.0, math.sqrt(2.0 / fan_out), generator=generator)
    elif part in ("regressor", "classifier"):
        weight.normal_(0.0, math.sqrt(1.0 / fan_in), generator=generator)
    else:
        variance = 2.0 / (fan_in + fan_out) if part == "segmentation_head" else 2.0 / fan_in
        bound = math.sqrt(3.0 * variance)
        weight.uniform_(-bound, bound, generator=generator)
