"""State dicts for shipping: half the bytes, without what no forward pass reads.

Left out are the last convolution and batch norm of EfficientNet, which are in every published checkpoint and take no
part in HybridNets (8 % of coefficient 0), and the counters of batches, which nothing reads because batch norms have a
fixed momentum (each costs 100 bytes of header). `complete_state` puts neutral values in their places.

Where that is still too large, the largest convolutions can be stored in 8 bits: int8 under the tensor's name, and under
`NAME.8bit_scale` one float32 for each output channel, the value of 1. One in the last blocks of the encoder (220 000 to
370 000 weights) changes the outputs less than half precision does: relative L2 of the scores of a trained coefficient 0
2.1e-3 without and 2.1e-3 to 2.3e-3 with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hybridnets.config import ModelConfig
from hybridnets.errors import HnxError
from hybridnets.network.model import HybridNets

__all__ = ["Compact", "compact_state", "complete_state"]

_UNREAD = re.compile(r"encoder\._(conv_head|bn1)\..*|.*\.num_batches_tracked")
_ONES = (".running_var", "._bn1.weight")  # a batch norm that changes nothing
_VARIANCE = ".running_var"
_SCALE = ".8bit_scale"  # some of timm's parameters are called scale
_EPS = 1e-3  # that of every batch norm but timm's (1e-5)
_LARGEST = torch.finfo(torch.float16).max
# float16 keeps 11 bits: rounding changes a normal number by at most 4.9e-4 of itself
_BOUND = 1e-3


class Compact(NamedTuple):
    """What `compact_state` returns.

    Attributes:
        state: the tensors to write.
        kept: names of tensors that stay float32 because float16 would change what they do.
        vanished: values that were not 0 and are 0 in float16 (below 3e-8).
        eighths: names of tensors in 8 bits.
    """

    state: dict[str, Tensor]
    kept: list[str]
    vanished: int
    eighths: list[str]


def compact_state(state: Mapping[str, Tensor], config: ModelConfig, *, eighths: int = 0) -> Compact:
    """A network's tensors as float16, without those nobody reads.

    A tensor with values beyond 65504, or a variance that float16 changes by more than a thousandth of what the batch
    norm divides by, stays float32.

    Args:
        state: state dict of the network, float32 on the CPU.
        config: of the network; that of a timm backbone has no unread convolution.
        eighths: so many of the largest convolutions are stored in 8 bits.

    Raises:
        HnxError: a tensor holds NaN or infinity.
    """
    found: dict[str, Tensor] = {}
    kept, vanished = [], 0
    for name, value in state.items():
        if _is_unread(name, config):
            continue
        if not value.is_floating_point():
            found[name] = value.contiguous()
            continue
        if not bool(torch.isfinite(value).all()):
            raise HnxError(
                "These weights cannot be shipped", why=f"{name} holds NaN or infinity", fix="take other weights"
            )
        half = value.to(torch.float16)
        if _changes(name, value, half, config):
            kept.append(name)
            found[name] = value.to(torch.float32).contiguous()
        else:
            vanished += int(((half == 0) & (value != 0)).sum())
            found[name] = half.contiguous()
    largest = sorted(
        (name for name, value in found.items() if value.ndim == 4), key=lambda name: (-found[name].numel(), name)
    )[:eighths]
    for name in largest:
        found[name], found[name + _SCALE] = _to_8_bits(state[name])
    return Compact(found, kept, vanished, largest)


def complete_state(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The state dict with neutral values where `compact_state` left something out; shapes come from the configuration.

    Anything else that is missing stays missing: the check of the network's tensors names it.
    """
    with torch.device("meta"):
        expected = HybridNets(config).state_dict()
    full = _from_8_bits(state)
    for name, tensor in expected.items():
        if name not in full and _is_unread(name, config):
            make = torch.ones if name.endswith(_ONES) else torch.zeros
            full[name] = make(tensor.shape, dtype=tensor.dtype)
    return full


def _to_8_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(out, in, h, w) float -> the same as int8, and (out,) float32: symmetric, one scale for each output channel."""
    scale = weight.abs().amax((1, 2, 3)).to(torch.float32) / 127.0
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (weight / scale[:, None, None, None]).round().clamp(-127, 127).to(torch.int8).contiguous(), scale


def _from_8_bits(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = dict(state)
    for name in [name for name in found if name.endswith(_SCALE)]:
        scale, weight = found.pop(name), found.get(name.removesuffix(_SCALE))
        if weight is None or weight.ndim != 4 or weight.dtype != torch.int8 or scale.shape != weight.shape[:1]:
            raise HnxError(
                "The checkpoint contradicts itself",
                why=f"{name} has the shape {tuple(scale.shape)} and belongs to no int8 convolution of as many channels",
                fix="take the original file",
            )
        found[name.removesuffix(_SCALE)] = weight.to(torch.float32) * scale.to(torch.float32)[:, None, None, None]
    return found


def _is_unread(name: str, config: ModelConfig) -> bool:
    inside_timm = config.backbone is not None and name.startswith("encoder.")
    return _UNREAD.fullmatch(name) is not None and not (inside_timm and not name.endswith(".num_batches_tracked"))


def _changes(name: str, value: Tensor, half: Tensor, config: ModelConfig) -> bool:
    if value.numel() == 0:
        return False
    if bool((value.abs() > _LARGEST).any()):
        return True
    if not name.endswith(_VARIANCE):
        return False
    eps = 1e-5 if config.backbone is not None and name.startswith("encoder.") else _EPS
    return bool((((half.float() - value).abs()) > _BOUND * (value + eps)).any())
