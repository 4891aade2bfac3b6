"""EfficientNet B0 to B6 as a feature extractor.

Source: Tan & Le 2019 (table 1 for the stages, compound scaling for the variants); names of the state dict
as in the package efficientnet_pytorch, whose checkpoints HybridNets starts from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridnets.config import Activation, EncoderScaling
from hybridnets.network.layers import BatchNorm, StaticPadConv2d, activation_module, gate_module

__all__ = ["BlockSpec", "Encoder", "MBConvBlock", "block_specs", "drop_connect", "tap_indices"]

Taps = tuple[Tensor, Tensor, Tensor, Tensor]

_SE_RATIO = 0.25
_DROP_CONNECT = 0.2  # probability the last block would approach; grows linearly from 0


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STEM, _HEAD = 32, 1280  # B0 widths
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class BlockSpec(NamedTuple):
    """One inverted bottleneck. `size` is its nominal input side, `drop` its drop-connect probability."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    expansion: int
    size: int
    drop: float


def _width(channels: int, factor: float) -> int:
    """Scaled channels, rounded to a multiple of 8 but never down by more than a tenth."""
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def block_specs(variant: EncoderScaling) -> tuple[BlockSpec, ...]:
    """All blocks of a variant. The nominal side is chained as ceil(side / stride) from the resolution."""
    size = math.ceil(variant.resolution / 2)  # after the stem
    total = sum(math.ceil(stage.repeats * variant.depth) for stage in _STAGES)
    channels = _width(_STEM, variant.width)
    specs: list[BlockSpec] = []
    for stage in _STAGES:
        out = _width(stage.channels, variant.width)
        for repeat in range(math.ceil(stage.repeats * variant.depth)):
            stride = stage.stride if repeat == 0 else 1
            drop = _DROP_CONNECT * len(specs) / total
            specs.append(BlockSpec(channels, out, stage.kernel, stride, stage.expansion, size, drop))
            channels, size = out, math.ceil(size / stride)
    return tuple(specs)


def tap_indices(specs: tuple[BlockSpec, ...]) -> tuple[int, ...]:
    """Blocks whose outputs are P2..P5: the last ones at strides 4, 8, 16 and 32."""
    last = [i for i in range(len(specs)) if i + 1 == len(specs) or specs[i + 1].stride == 2]
    return tuple(last[1:])  # the first one ends at stride 2


def drop_connect(x: Tensor, probability: float) -> Tensor:
    """Stochastic depth: zero whole samples with `probability`, divide the others by the keep probability."""
    keep = 1.0 - probability
    mask = torch.rand((x.shape[0], 1, 1, 1), dtype=torch.float32, device=x.device) < keep
    return x * (mask.to(x.dtype) / keep)


class MBConvBlock(nn.Module):
    """Expand 1x1, depthwise kxk, squeeze-excite, project 1x1, and the input added where shapes allow.

    Attributes:
        skip: whether the input is added.
        drop: probability of drop-connect in training mode, where the input is added.
    """

    def __init__(self, spec: BlockSpec, activation: Activation) -> None:
        super().__init__()
        self.spec = spec
        wide = spec.in_channels * spec.expansion
        squeezed = max(1, int(spec.in_channels * _SE_RATIO))
        if spec.expansion > 1:
            self._expand_conv = nn.Conv2d(spec.in_channels, wide, 1, bias=False)
            self._bn0 = BatchNorm(wide)
        self._depthwise_conv = StaticPadConv2d(wide, wide, spec.kernel, size=spec.size, stride=spec.stride, groups=wide)
        self._bn1 = BatchNorm(wide)
        self._se_reduce = nn.Conv2d(wide, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, wide, 1)
        self._project_conv = nn.Conv2d(wide, spec.out_channels, 1, bias=False)
        self._bn2 = BatchNorm(spec.out_channels)
        self._act = activation_module(activation)
        self._gate = gate_module(activation)
        self.drop = spec.drop
        self.skip = spec.stride == 1 and spec.in_channels == spec.out_channels

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h/stride, w/stride)."""
        x = inputs
        if self.spec.expansion > 1:
            x = self._act(self._bn0(self._expand_conv(x)))
        x = self._act(self._bn1(self._depthwise_conv(x)))
        squeezed = self._act(self._se_reduce(F.adaptive_avg_pool2d(x, 1)))
        x = x * self._gate(self._se_expand(squeezed))
        x = self._bn2(self._project_conv(x))
        if not self.skip:
            return x
        if self.training and self.drop > 0.0:
            x = drop_connect(x, self.drop)
        return x + inputs


class Encoder(nn.Module):
    """EfficientNet without its classifier.

    `_conv_head` and `_bn1` are in every checkpoint but take no part in the forward pass.

    Attributes:
        channels: channels of P2, P3, P4, P5.
    """

    def __init__(self, variant: EncoderScaling, activation: Activation) -> None:
        super().__init__()
        specs = block_specs(variant)
        self._taps = tap_indices(specs)
        self.channels = tuple(specs[i].out_channels for i in self._taps)
        stem, head = _width(_STEM, variant.width), _width(_HEAD, variant.width)
        self._conv_stem = StaticPadConv2d(3, stem, 3, size=variant.resolution, stride=2)
        self._bn0 = BatchNorm(stem)
        self._blocks = nn.ModuleList(MBConvBlock(spec, activation) for spec in specs)
        self._conv_head = nn.Conv2d(specs[-1].out_channels, head, 1, bias=False)
        self._bn1 = BatchNorm(head)
        self._act = activation_module(activation)

    def blocks(self) -> Iterator[MBConvBlock]:
        """The blocks, first to last."""
        return (cast(MBConvBlock, block) for block in self._blocks)

    def stem(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, stem, H/2, W/2)."""
        return self._act(self._bn0(self._conv_stem(image)))

    def forward(self, image: Tensor) -> Taps:
        """(N, 3, H, W) -> P2, P3, P4, P5: (N, channels[i], H/s, W/s) for strides s = 4, 8, 16, 32."""
        x = self.stem(image)
        taps: list[Tensor] = []
        for index, block in enumerate(self.blocks()):
            x = block(x)
            if index in self._taps:
                taps.append(x)
        return cast(Taps, tuple(taps))
