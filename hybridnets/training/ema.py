"""Exponential moving average of a network's weights and running statistics (Polyak & Juditsky 1992)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hybridnets.errors import ExitCode, HnxError
from hybridnets.network import HybridNets

__all__ = ["Ema"]


class Ema:
    """An average that follows a network.

    Its decay grows with the number of updates, decay * (1 - exp(-updates / ramp)): the weights of the first steps are
    far from any good ones and leave the average soon. With 0.9998 and 2000 the average spans one update at first,
    5000 in the end.

    Args:
        network: to follow; the average starts as its copy, on its device.
        decay: in the end, at least 0 and below 1.
        ramp: updates after which 63 % of the decay is reached.

    Attributes:
        network: the averaged network, in eval mode, without gradients.
        updates: how many there were.

    Raises:
        HnxError: decay or ramp out of range (exit code 2).
    """

    def __init__(self, network: HybridNets, decay: float = 0.9998, ramp: float = 2000.0) -> None:
        if not (0.0 <= decay < 1.0 and 0.0 < ramp < math.inf):
            raise HnxError(
                f"A moving average with decay {decay:g} and ramp {ramp:g}",
                why="the decay lies between 0 and 1, the ramp above 0",
                fix="0.9998 and 2000 are the defaults",
                code=ExitCode.USAGE,
            )
        self.decay, self.ramp, self.updates = decay, ramp, 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    def decay_of(self, updates: int) -> float:
        """Weight of the old average in the update of that number, counted from 1."""
        return -self.decay * math.expm1(-updates / self.ramp)

    @torch.no_grad()
    def update(self, network: HybridNets) -> None:
        """Move the average towards a network of the same shapes; counters are taken over."""
        self.updates += 1
        new = network.state_dict()
        old_floats: list[Tensor] = []
        new_floats: list[Tensor] = []
        for name, old in self.network.state_dict().items():
            if old.is_floating_point():
                old_floats.append(old)
                new_floats.append(new[name].detach())
            else:
                old.copy_(new[name])
        # one kernel for all 1200 tensors
        torch._foreach_lerp_(old_floats, new_floats, 1.0 - self.decay_of(self.updates))

    def state_dict(self) -> dict[str, Any]:
        """`updates` and `model`, the state of the averaged network (not copied)."""
        return {"updates": self.updates, "model": self.network.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, exactly."""
        self.network.load_state_dict(state["model"])
        self.updates = int(state["updates"])
