"""Steps around the network, put into its graph: normalisation, class map, decoding and suppression of boxes."""

from __future__ import annotations

from export.fused.graph import FusedGraph, fuse
from export.fused.proof import FusedProof, prove_fused

__all__ = ["FusedGraph", "FusedProof", "fuse", "prove_fused"]
