"""The bidirectional feature pyramid (Tan, Pang & Le 2020, EfficientDet, section 3) as HybridNets wires it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridnets.config import Activation, Scaling
from hybridnets.network.layers import (
    BatchNorm,
    Conv,
    SeparableConv,
    ZeroPadMaxPool,
    activation_module,
    upsample_nearest,
)

__all__ = ["FUSED", "BiFPNCell", "FirstBiFPNCell", "Pyramid", "make_bifpn"]

Pyramid = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # P3..P7, strides 8..128

_FUSION_EPSILON = 1e-4

# node -> number of maps it adds
FUSED = {
    "conv6_up": 2,
    "conv5_up": 2,
    "conv4_up": 2,
    "conv3_up": 2,
    "conv4_down": 3,
    "conv5_down": 3,
    "conv6_down": 3,
    "conv7_down": 2,
}


class _Fusion(nn.Module):
    """The top-down and bottom-up paths that every cell shares."""

    def __init__(self, channels: int, activation: Activation, *, weighted: bool) -> None:
        super().__init__()
        self.weighted = weighted  # without, the weights below still stand in the state dict
        self.p6_w1 = nn.Parameter(torch.ones(2))
        self.p5_w1 = nn.Parameter(torch.ones(2))
        self.p4_w1 = nn.Parameter(torch.ones(2))
        self.p3_w1 = nn.Parameter(torch.ones(2))
        self.p4_w2 = nn.Parameter(torch.ones(3))
        self.p5_w2 = nn.Parameter(torch.ones(3))
        self.p6_w2 = nn.Parameter(torch.ones(3))
        self.p7_w2 = nn.Parameter(torch.ones(2))
        self.conv6_up = SeparableConv(channels, channels)
        self.conv5_up = SeparableConv(channels, channels)
        self.conv4_up = SeparableConv(channels, channels)
        self.conv3_up = SeparableConv(channels, channels)
        self.conv4_down = SeparableConv(channels, channels)
        self.conv5_down = SeparableConv(channels, channels)
        self.conv6_down = SeparableConv(channels, channels)
        self.conv7_down = SeparableConv(channels, channels)
        self.pool = ZeroPadMaxPool()
        self.act = activation_module(activation)

    def _fuse(self, weight: Tensor, *maps: Tensor) -> Tensor:
        """act(sum of relu(w_k) / (sum relu(w) + 1e-4) * map_k), or of the bare maps."""
        if not self.weighted:
            return self.act(_add(maps))
        weight = weight.relu()
        weight = weight / (weight.sum() + _FUSION_EPSILON)
        return self.act(_add([weight[k] * x for k, x in enumerate(maps)]))

    def _merge(self, pyramid: Pyramid, p4_in: Tensor, p5_in: Tensor) -> Pyramid:
        """Both paths. `p4_in` and `p5_in` are what the bottom-up path sees in place of levels 4 and 5."""
        p3, p4, p5, p6, p7 = pyramid
        p6_up = self.conv6_up(self._fuse(self.p6_w1, p6, upsample_nearest(p7)))
        p5_up = self.conv5_up(self._fuse(self.p5_w1, p5, upsample_nearest(p6_up)))
        p4_up = self.conv4_up(self._fuse(self.p4_w1, p4, upsample_nearest(p5_up)))
        p3_out = self.conv3_up(self._fuse(self.p3_w1, p3, upsample_nearest(p4_up)))
        p4_out = self.conv4_down(self._fuse(self.p4_w2, p4_in, p4_up, self.pool(p3_out)))
        p5_out = self.conv5_down(self._fuse(self.p5_w2, p5_in, p5_up, self.pool(p4_out)))
        p6_out = self.conv6_down(self._fuse(self.p6_w2, p6, p6_up, self.pool(p5_out)))
        p7_out = self.conv7_down(self._fuse(self.p7_w2, p7, self.pool(p6_out)))
        return p3_out, p4_out, p5_out, p6_out, p7_out


def _add(maps: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    total = maps[0]
    for x in maps[1:]:
        total = total + x
    return total


class BiFPNCell(_Fusion):
    """Second and later cells: P3..P7 in, P3..P7 out, shapes unchanged."""

    def forward(self, pyramid: Pyramid) -> Pyramid:
        """Five maps (N, C, H/s, W/s), s = 8..128 -> five maps of the same shapes."""
        return self._merge(pyramid, pyramid[1], pyramid[2])


class FirstBiFPNCell(_Fusion):
    """First cell: projects the encoder's P3..P5 to the width of the pyramid and makes P6 and P7.

    Its bottom-up path has projections of P4 and P5 of its own.
    """

    def __init__(self, channels: int, taps: tuple[int, int, int], activation: Activation, *, weighted: bool) -> None:
        super().__init__(channels, activation, weighted=weighted)
        p3, p4, p5 = taps
        self.p5_down_channel = _projection(p5, channels)
        self.p4_down_channel = _projection(p4, channels)
        self.p3_down_channel = _projection(p3, channels)
        self.p5_to_p6 = _projection(p5, channels)
        self.p4_down_channel_2 = _projection(p4, channels)
        self.p5_down_channel_2 = _projection(p5, channels)

    def forward(self, taps: tuple[Tensor, Tensor, Tensor]) -> Pyramid:
        """P3, P4, P5 of the encoder -> five maps (N, C, H/s, W/s), s = 8..128."""
        p3, p4, p5 = taps
        p6 = self.pool(self.p5_to_p6(p5))
        pyramid = (
            self.p3_down_channel(p3),
            self.p4_down_channel(p4),
            self.p5_down_channel(p5),
            p6,
            self.pool(p6),
        )
        return self._merge(pyramid, self.p4_down_channel_2(p4), self.p5_down_channel_2(p5))


def _projection(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(Conv(in_channels, channels, 1), BatchNorm(channels))


def make_bifpn(scaling: Scaling, taps: tuple[int, int, int], activation: Activation) -> nn.Sequential:
    """The stack of cells of a compound coefficient. `taps` are the channels of the encoder's P3, P4, P5."""
    channels, weighted = scaling.bifpn_channels, scaling.weighted
    first = FirstBiFPNCell(channels, taps, activation, weighted=weighted)
    rest = [BiFPNCell(channels, activation, weighted=weighted) for _ in range(scaling.bifpn_cells - 1)]
    return nn.Sequential(first, *rest)
