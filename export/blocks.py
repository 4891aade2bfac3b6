"""Blocks of the network, as quantisation and `hnx inspect` name them; see `hybridnets.blocks`."""

from __future__ import annotations

from hybridnets.blocks import BLOCK_ORDER, OTHER, BlockNames, sort_blocks

__all__ = ["BLOCK_ORDER", "OTHER", "BlockNames", "sort_blocks"]
