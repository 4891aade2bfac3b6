"""The whole network: encoder, BiFPN, two detection heads, segmentation decoder (Vu et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from hybridnets.config import ENCODERS, ModelConfig, check_size
from hybridnets.errors import ExitCode, HnxError
from hybridnets.network.bifpn import Pyramid, make_bifpn
from hybridnets.network.decoder import DROPOUT, Decoder, SegmentationHead
from hybridnets.network.encoder import Encoder, MBConvBlock, Taps
from hybridnets.network.heads import Head
from hybridnets.network.timm_encoder import channels_first, fuse, make_timm_encoder

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = ["Features", "HybridNets", "Outputs"]


class Outputs(NamedTuple):
    """What the network returns.

    Attributes:
        regression: (N, A, 4) float: ty, tx, th, tw relative to the anchor of the row.
        classification: (N, A, num_classes) float in [0, 1]: scores after the sigmoid.
        segmentation: (N, seg_channels, H, W) float: logits.
    """

    regression: Tensor
    classification: Tensor
    segmentation: Tensor


class Features(NamedTuple):
    """What both tasks share.

    Attributes:
        encoder: P2..P5 of the encoder, strides 4, 8, 16, 32.
        pyramid: P3..P7 of the last BiFPN cell, strides 8, 16, 32, 64, 128, (N, bifpn_channels, H/s, W/s).
    """

    encoder: Taps
    pyramid: Pyramid


class HybridNets(nn.Module):
    """HybridNets for any compound coefficient from 0 to 7.

    The order of the submodules is that of published checkpoints (optimizer states index by it).

    Attributes:
        config: what the network was built from.
        encoder: `Encoder`, or the timm model that the configuration names.
        frozen: names of submodules that stay in eval mode; `hybridnets.training.freeze` sets it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.frozen: frozenset[str] = frozenset()
        scaling, activation = config.scaling, config.activation
        encoder: nn.Module
        self._channels_last = False
        if config.backbone is None:
            encoder = own = Encoder(ENCODERS[scaling.encoder], activation)
            p2, p3, p4, p5 = own.channels
        else:
            encoder, (p2, p3, p4, p5), self._channels_last = make_timm_encoder(config.backbone)
        width, layers = scaling.bifpn_channels, scaling.head_layers
        self.bifpn = make_bifpn(scaling, (p3, p4, p5), activation)
        self.regressor = Head(width, 4, layers, activation)
        self.bifpndecoder = Decoder(width, p2, activation)
        self.segmentation_head = SegmentationHead(config.seg_channels)
        self.classifier = Head(width, config.num_classes, layers, activation, scores=True)
        self.encoder = encoder

    def train(self, mode: bool = True) -> Self:
        """Training or eval mode; what is frozen stays in eval mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def set_stochastic(self, enabled: bool) -> None:
        """Switch dropout and drop-connect of training mode on (as built) or off.

        Off, a training step is a function of weights and batch alone.
        """
        for block in self.encoder_blocks():
            block.drop = block.spec.drop if enabled else 0.0
        self.bifpndecoder.dropout.p = DROPOUT if enabled else 0.0

    def encoder_blocks(self) -> Iterator[MBConvBlock]:
        """The blocks of the EfficientNet; none of a timm backbone, which is built without dropout of any kind."""
        return self.encoder.blocks() if isinstance(self.encoder, Encoder) else iter(())

    def deployed(self) -> HybridNets:
        """The same function in eval mode with the parallel branches of its backbone fused; the rest is shared.

        The network itself where nothing can be fused. State-dict names of the encoder change with the fusion, so a
        checkpoint is written from the network, not from this.
        """
        encoder = self.encoder if self.config.backbone is None else fuse(self.encoder)
        if encoder is self.encoder:
            return self.eval()
        other = copy.copy(self)
        other._modules = {**self._modules, "encoder": encoder}
        return other.eval()

    def features(self, image: Tensor) -> Features:
        """The shared part. `image`: (N, 3, H, W) float, RGB, normalised; H and W multiples of 128.

        Raises:
            HnxError: another shape (not checked while the network is traced or compiled).
        """
        if not (torch.compiler.is_compiling() or _is_tracing()):
            _check_input(image)
        taps = self.encoder(image)
        if self._channels_last:
            taps = channels_first(taps)
        taps = cast(Taps, tuple(taps))
        return Features(taps, self.bifpn(taps[1:]))

    def forward_detection(self, features: Features) -> tuple[Tensor, Tensor]:
        """(N, A, 4) regression and (N, A, num_classes) scores; A = 9 * sum of (H/s)(W/s)."""
        return self.regressor(features.pyramid), self.classifier(features.pyramid)

    def forward_segmentation(self, features: Features) -> Tensor:
        """(N, seg_channels, H, W) logits."""
        return self.segmentation_head(self.bifpndecoder(features.encoder[0], features.pyramid))

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) -> `Outputs`.

        Raises:
            HnxError: the input has another shape.
        """
        features = self.features(image)
        regression, classification = self.forward_detection(features)
        return Outputs(regression, classification, self.forward_segmentation(features))


def _is_tracing() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]


def _check_input(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise HnxError(
            f"HybridNets cannot take an input of shape {tuple(image.shape)}",
            why="it takes a batch of RGB images, (N, 3, H, W)",
            fix="add the batch dimension with image[None], and put the channels before the rows",
            code=ExitCode.USAGE,
        )
    check_size(width=image.shape[3], height=image.shape[2])
