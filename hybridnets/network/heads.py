"""The detection heads: one tower shared by the five pyramid levels, with batch norms per level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hybridnets.config import ANCHORS_PER_CELL, STRIDES, Activation
from hybridnets.network.layers import BatchNorm, SeparableConv, activation_module

__all__ = ["Head"]


class Head(nn.Module):
    """Box regression or classification (Tan, Pang & Le 2020, section 4.1).

    Args:
        channels: channels of the pyramid.
        values: outputs per anchor: 4 for boxes, the number of classes for scores.
        layers: convolutions before the last one.
        activation: name of the activation between them.
        scores: end with a sigmoid.
    """

    def __init__(
        self, channels: int, values: int, layers: int, activation: Activation, *, scores: bool = False
    ) -> None:
        super().__init__()
        self.values = values
        self.conv_list = nn.ModuleList(SeparableConv(channels, channels, norm=False) for _ in range(layers))
        self.bn_list = nn.ModuleList(nn.ModuleList(BatchNorm(channels) for _ in range(layers)) for _ in STRIDES)
        self.header = SeparableConv(channels, ANCHORS_PER_CELL * values, norm=False)
        self.act = activation_module(activation)
        self.final: nn.Module = nn.Sigmoid() if scores else nn.Identity()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """P3..P7 (N, C, H/s, W/s) -> (N, A, values); rows in the order level, y, x, anchor."""
        levels: list[Tensor] = []
        for x, norms in zip(maps, self.bn_list, strict=True):
            for conv, norm in zip(self.conv_list, cast(nn.ModuleList, norms), strict=True):
                x = self.act(norm(conv(x)))
            # flattening all but the batch needs no shape arithmetic in an exported graph
            levels.append(self.header(x).permute(0, 2, 3, 1).flatten(1))
        joined = torch.cat(levels, dim=1)
        return self.final(joined.reshape(joined.shape[0], -1, self.values))
