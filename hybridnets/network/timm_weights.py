"""Weights of timm backbones: initial, downloaded, or from a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hybridnets.errors import ExitCode, HnxError
from hybridnets.network.timm_encoder import TRIAL, make_timm_encoder

if TYPE_CHECKING:
    from hybridnets.network.model import HybridNets

__all__ = ["initialize_timm", "level_batch_norms", "load_pretrained", "load_timm_weights"]

# ratio of a batch norm's variance to the mean square that enters it. With 16, boxes of nine backbones have a standard
# deviation of 5e-4 to 0.012 and segmentation logits one of 0.16 to 1; with 4, efficientnet_b3 comes to logits of 220
_LEVEL = 16.0
_SHOWN = 3  # tensors named in an error
_COUNTER = "num_batches_tracked"  # of a batch norm; old files lack it, and it does not matter with a fixed momentum


def initialize_timm(encoder: nn.Module, name: str, seed: int) -> None:
    """Give an encoder on the CPU the weights timm gives a new model of that name with this seed."""
    encoder.load_state_dict(make_timm_encoder(name, seed).module.state_dict())


@torch.no_grad()
def level_batch_norms(encoder: nn.Module) -> None:
    """Give the batch norms of an untrained encoder variances that keep the level of its maps in eval mode.

    With variances of 1, mobilenetv4_conv_medium reaches P5 with a standard deviation of 3.7e4 and mobileone_s1 with
    1.5e7, which saturates every score. The variance of each layer follows from the mean square of what noise brings
    there (Mishkin & Matas 2016, All you need is a good init), rounded to a power of two: the same on every machine.
    """
    noise = torch.randn((1, 3, *TRIAL), generator=torch.Generator().manual_seed(0))

    def measure(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        square = float(inputs[0].square().mean())
        if math.isfinite(square) and square > 0.0 and isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.fill_(_LEVEL * 2.0 ** round(math.log2(square)))

    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d) and m.running_var is not None]
    handles = [module.register_forward_pre_hook(measure) for module in norms]
    training = encoder.training
    try:
        encoder.eval()(noise)
    finally:
        encoder.train(training)
        for handle in handles:
            handle.remove()


def load_pretrained(network: HybridNets) -> None:
    """Let timm download the weights of a network's backbone, and copy them into its encoder.

    Raises:
        HnxError: the network has an EfficientNet of its own, or the weights cannot be had.
    """
    name = network.config.backbone
    if name is None:
        variant = network.config.scaling.encoder
        raise HnxError(
            "Pretrained weights are fetched for timm backbones only",
            why=f"the encoder of coefficient {network.config.compound_coef} takes a file of efficientnet_pytorch",
            fix=f"download efficientnet-b{variant}-*.pth and name it: --encoder FILE",
            code=ExitCode.USAGE,
        )
    network.encoder.load_state_dict(make_timm_encoder(name, pretrained=True).module.state_dict())


@torch.no_grad()
def load_timm_weights(network: HybridNets, state: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy weights of a timm model, or the encoder of a HybridNets checkpoint, into a network's encoder.

    A file of timm names its tensors as the whole classifier (`stages.0.0.conv`), a feature extractor as
    `stages_0.0.conv`: names are compared without the difference. What has no place, such as the classifier's last
    layer, is left out.

    Args:
        network: with a timm backbone.
        state: what `hybridnets.checkpoint.load_checkpoint` read.
        source: for the message.

    Raises:
        HnxError: tensors of the encoder are missing or have other shapes; nothing has been copied then.
    """
    prefix = "encoder."
    if any(key.startswith(prefix) for key in state):
        state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    found: dict[str, Tensor] = {}
    problems = []
    for key, tensor in network.encoder.state_dict().items():
        # extractors that keep the whole model have one more level
        value = next((flat[word] for word in _flat_names(key) if word in flat), None)
        if value is None:
            if not key.endswith(_COUNTER):
                problems.append(f"{key} is missing")
        elif value.shape != tensor.shape:
            problems.append(f"{key} has the shape {tuple(value.shape)} instead of {tuple(tensor.shape)}")
        else:
            found[key] = value
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise HnxError(
            f"{source} holds no weights of {network.config.backbone}",
            why="; ".join(problems[:_SHOWN]) + more,
            fix=f"give the model.safetensors of timm's {network.config.backbone}, or another -bb",
        )
    network.encoder.load_state_dict(found, strict=False)


def _flat_names(key: str) -> tuple[str, ...]:
    inner = [key[len(level) :] for level in ("model.", "body.") if key.startswith(level)]
    return tuple(word.replace(".", "_") for word in (key, *inner))
