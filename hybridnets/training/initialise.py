"""The weights a new training run starts from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from hybridnets.checkpoint import load_checkpoint
from hybridnets.errors import HnxError
from hybridnets.network import HybridNets, initialize
from hybridnets.network.timm_weights import load_pretrained, load_timm_weights

__all__ = ["initialise", "load_encoder", "read_encoder", "read_timm"]

_PREFIX = "encoder."
_CLASSIFIER_BIAS = "classifier.header.pointwise_conv.conv"
_COUNTER = "num_batches_tracked"
_SHOWN = 3  # tensors named in an error


def initialise(
    network: HybridNets,
    seed: int = 0,
    *,
    encoder: Mapping[str, Tensor] | Literal["pretrained"] | None = None,
    upstream: bool = False,
) -> None:
    """Set every parameter and buffer of a network on the CPU; leaves torch's global generator alone.

    Detection heads are normal with variance 1 / fan-in and the classifier starts at the score 0.01; the rest is
    `hybridnets.network.initialize` without gains.

    Args:
        network: to set.
        seed: of all random numbers.
        encoder: pretrained weights, which are kept as they are: from `read_encoder`, or from `read_timm` where the
            network has a timm backbone, or pretrained for those that timm downloads.
        upstream: draw every convolution of the network like those of the detection heads, the pretrained ones, too,
            and set their biases to 0, as upstream's train.py does: of ImageNet only the batch norms are left.

    Raises:
        HnxError: the pretrained weights do not fit.
    """
    initialize(network, seed, gains=False)
    if encoder == "pretrained":
        load_pretrained(network)
    elif encoder is not None:
        load_encoder(network, encoder)
    if upstream:
        _draw_all(network, seed)


@torch.no_grad()
def _draw_all(network: HybridNets, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, conv in network.named_modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        fan_in = conv.weight[0].numel()
        conv.weight.normal_(0.0, math.sqrt(1.0 / fan_in), generator=generator)
        if conv.bias is not None and name != _CLASSIFIER_BIAS:
            nn.init.zeros_(conv.bias)


def read_encoder(path: Path) -> dict[str, Tensor]:
    """The encoder's weights of a file: an EfficientNet as the package efficientnet_pytorch names it, or a HybridNets.

    Raises:
        HnxError: the file cannot be read, or holds neither.
    """
    state = load_checkpoint(path).state
    inner = {name[len(_PREFIX) :]: value for name, value in state.items() if name.startswith(_PREFIX)}
    found = inner or {name: value for name, value in state.items() if not name.startswith("_fc.")}
    if "_conv_stem.weight" not in found:
        raise HnxError(
            f"{path} holds no encoder",
            why=f"it has no tensor _conv_stem.weight, but {len(state)} others"
            + (f", the first is {next(iter(state))}" if state else ""),
            fix="give an EfficientNet of the package efficientnet_pytorch (efficientnet-b3-5fb5a3c3.pth for -c 3), "
            "or a HybridNets checkpoint",
        )
    return found


def read_timm(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of timm, or of a HybridNets with a timm backbone; which backbone shows when they are used.

    Raises:
        HnxError: the file cannot be read.
    """
    return load_checkpoint(path).state


def load_encoder(network: HybridNets, state: Mapping[str, Tensor]) -> None:
    """Copy pretrained weights into the encoder; counters of batches may be missing.

    Raises:
        HnxError: tensors are missing or have other shapes; says which.
    """
    if network.config.backbone is not None:
        load_timm_weights(network, state, "The file of --encoder")
        return
    expected = network.encoder.state_dict()
    problems = []
    for name, tensor in expected.items():
        found = state.get(name)
        if found is None:
            if not name.endswith(_COUNTER):
                problems.append(f"{name} is missing")
        elif found.shape != tensor.shape:
            problems.append(f"{name} has the shape {tuple(found.shape)} instead of {tuple(tensor.shape)}")
    # a larger variant holds all names of a smaller one
    problems += [f"{name} has no place" for name in state if name not in expected]
    if problems:
        variant = network.config.scaling.encoder
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise HnxError(
            f"The pretrained encoder does not fit coefficient {network.config.compound_coef}",
            why="; ".join(problems[:_SHOWN]) + more,
            fix=f"coefficient {network.config.compound_coef} needs EfficientNet-B{variant}",
        )
    network.encoder.load_state_dict({**expected, **state})
