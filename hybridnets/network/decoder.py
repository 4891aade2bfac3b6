"""The segmentation decoder: six branches brought to stride 4 and added (Vu et al. 2022, HybridNets)."""

from __future__ import annotations

from torch import Tensor, nn

from hybridnets.config import STRIDES, Activation
from hybridnets.network.bifpn import Pyramid
from hybridnets.network.layers import (
    BatchNorm,
    Conv,
    SeparableConv,
    activation_module,
    upsample_bilinear,
)

__all__ = ["DECODER_CHANNELS", "DROPOUT", "Decoder", "DecoderBranch", "DecoderUnit", "SegmentationHead"]

DECODER_CHANNELS = 64
DROPOUT = 0.2  # probability that a map of a sample is dropped in training
_HEAD_UPSAMPLING = 4.0


class DecoderUnit(nn.Module):
    """3x3 convolution, batch norm, activation, separable block and, where asked for, bilinear x2."""

    def __init__(self, in_channels: int, activation: Activation, *, upsample: bool) -> None:
        super().__init__()
        self.upsample = upsample
        self.block = nn.Sequential(
            Conv(in_channels, DECODER_CHANNELS, 3, bias=False),
            BatchNorm(DECODER_CHANNELS),
            activation_module(activation),
        )
        self.conv_sp = SeparableConv(DECODER_CHANNELS, DECODER_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, 64, h, w) or (N, 64, 2h, 2w)."""
        x = self.conv_sp(self.block(x))
        return upsample_bilinear(x, 2.0) if self.upsample else x


class DecoderBranch(nn.Module):
    """Units that bring one map to stride 4; no doublings means one unit that keeps the size."""

    def __init__(self, in_channels: int, doublings: int, activation: Activation) -> None:
        super().__init__()
        widths = [in_channels] + [DECODER_CHANNELS] * max(0, doublings - 1)
        self.block = nn.Sequential(*(DecoderUnit(width, activation, upsample=doublings > 0) for width in widths))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, 64, 2^doublings h, 2^doublings w)."""
        return self.block(x)


class Decoder(nn.Module):
    """Branch 0 takes P7 (five doublings), branch 4 takes P3 (one); `seg_p2` takes P2 of the encoder."""

    def __init__(self, channels: int, p2_channels: int, activation: Activation) -> None:
        super().__init__()
        self.seg_blocks = nn.ModuleList(
            DecoderBranch(channels, doublings, activation) for doublings in range(len(STRIDES), 0, -1)
        )
        self.seg_p2 = DecoderBranch(p2_channels, 0, activation)
        self.dropout = nn.Dropout2d(DROPOUT)

    def forward(self, p2: Tensor, pyramid: Pyramid) -> Tensor:
        """P2 of the encoder (N, p2, H/4, W/4) and P3..P7 of the BiFPN -> (N, 64, H/4, W/4)."""
        total = self.seg_p2(p2)
        for branch, x in zip(self.seg_blocks, reversed(pyramid), strict=True):
            total = total + branch(x)
        return self.dropout(total)


class SegmentationHead(nn.Sequential):
    """1x1 convolution to the logits at stride 4, then bilinear x4 (corners aligned)."""

    def __init__(self, classes: int) -> None:
        super().__init__(
            nn.Conv2d(DECODER_CHANNELS, classes, 1),
            nn.Upsample(scale_factor=_HEAD_UPSAMPLING, mode="bilinear", align_corners=True),
        )
