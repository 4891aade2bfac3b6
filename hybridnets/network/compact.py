"""State dicts for shipping: half the bytes, without what no forward pass reads.

Left out are the last convolution and batch norm of EfficientNet, which are in every published checkpoint and take no
part in HybridNets (8 % of coefficient 0), and the counters of batches, which nothing reads because batch norms have a
fixed momentum (each costs 100 bytes of header). `complete_state` puts neutral values in their places.
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
    """

    state: dict[str, Tensor]
    kept: list[str]
    vanished: int


def compact_state(state: Mapping[str, Tensor], config: ModelConfig) -> Compact:
    """A network's tensors as float16, without those nobody reads.

    A tensor with values beyond 65504, or a variance that float16 changes by more than a thousandth of what the batch
    norm divides by, stays float32.

    Args:
        state: state dict of the network, float32 on the CPU.
        config: of the network; that of a timm backbone has no unread convolution.

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
    return Compact(found, kept, vanished)


def complete_state(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The state dict with neutral values where `compact_state` left something out; shapes come from the configuration.

    Anything else that is missing stays missing: the check of the network's tensors names it.
    """
    with torch.device("meta"):
        expected = HybridNets(config).state_dict()
    full = dict(state)
    for name, tensor in expected.items():
        if name not in full and _is_unread(name, config):
            make = torch.ones if name.endswith(_ONES) else torch.zeros
            full[name] = make(tensor.shape, dtype=tensor.dtype)
    return full


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
