"""The HybridNets network in PyTorch. State-dict names and shapes are those of published checkpoints."""

from __future__ import annotations

from hybridnets.network.model import Features, HybridNets, Outputs
from hybridnets.network.weights import create_model, initialize

__all__ = ["Features", "HybridNets", "Outputs", "create_model", "initialize"]
