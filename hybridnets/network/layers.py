"""The small parts the whole network is made of.

All paddings are Python integers fixed at construction: a traced graph then holds constant pads and no
shape arithmetic. This is possible because both input sides are multiples of 128 (`config.check_size`).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from hybridnets.config import Activation

__all__ = [
    "BatchNorm",
    "Conv",
    "SeparableConv",
    "StaticPadConv2d",
    "ZeroPadMaxPool",
    "activation_module",
    "gate_module",
    "upsample_bilinear",
    "upsample_nearest",
]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "swish": nn.SiLU,
    "hardswish": nn.Hardswish,
    "relu": nn.ReLU,
}


def activation_module(name: Activation) -> nn.Module:
    """The activation of that name: swish is x * sigmoid(x)."""
    return _ACTIVATIONS[name]()


def gate_module(name: Activation) -> nn.Module:
    """The squeeze-excite gate that goes with an activation: the piecewise linear one with the cheap ones."""
    return nn.Sigmoid() if name == "swish" else nn.Hardsigmoid()


class BatchNorm(nn.BatchNorm2d):
    """Batch norm with the constants of EfficientNet: eps 1e-3, torch momentum 0.01."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3, momentum=0.01)


class StaticPadConv2d(nn.Conv2d):
    """Convolution with TensorFlow "SAME" padding computed once, for a nominal input side.

    Published encoders were trained with the padding of their variant's nominal resolution whatever the real
    input is, so it is part of the function and not of the input.

    Args:
        size: nominal input side; the output side is ceil(size / stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        size: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        extra = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before, after = extra // 2, extra - extra // 2
        symmetric = before == after  # then the convolution pads by itself and no Pad node is exported
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=before if symmetric else 0,
            groups=groups,
            bias=bias,
        )
        self.pads = (before, after, before, after)
        self._symmetric = symmetric

    def forward(self, input: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, ~h/stride, ~w/stride)."""
        return super().forward(input if self._symmetric else F.pad(input, self.pads))


class Conv(nn.Module):
    """Stride-1 convolution that keeps the size. The extra level `conv` is part of the checkpoint names."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h, w)."""
        return self.conv(x)


class SeparableConv(nn.Module):
    """3x3 depthwise (no bias), 1x1 pointwise (bias), and a batch norm where asked for. No activation."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool = True) -> None:
        super().__init__()
        self.depthwise_conv = Conv(in_channels, in_channels, 3, groups=in_channels, bias=False)
        self.pointwise_conv = Conv(in_channels, out_channels, 1)
        self.bn = BatchNorm(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h, w)."""
        x = self.pointwise_conv(self.depthwise_conv(x))
        return x if self.bn is None else self.bn(x)


class ZeroPadMaxPool(nn.Module):
    """3x3 max-pooling with stride 2 whose border is zero, not minus infinity: negative maps gain zeros.

    "SAME" padding of an even side is 0 before and 1 after. Every pooled map (P3..P6, strides 8..64) has even
    sides because the input sides are multiples of 128, so this constant always holds.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h/2, w/2)."""
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), kernel_size=3, stride=2)


def upsample_nearest(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def upsample_bilinear(x: Tensor, factor: float) -> Tensor:
    """(N, C, h, w) -> (N, C, factor h, factor w); the corner pixels keep their values (align_corners)."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)
