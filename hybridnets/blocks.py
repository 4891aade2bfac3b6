"""Which part of the network a node of an exported graph belongs to: the unit in which precision is chosen and shown.

Nodes carry the path of their PyTorch module (`/encoder/_blocks.7/_expand_conv/Conv`). Rewrites and quantisation add to
the end of names, so a node's block survives them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

__all__ = ["BLOCK_ORDER", "OTHER", "PIPELINE", "BlockNames", "sort_blocks"]

OTHER = "other"
# steps of pre- and postprocessing that an export put into the graph (`export.fused`)
PIPELINE = "pipeline"
# first path component -> block, for what has no finer division
_WHOLE = {"regressor": "regressor", "classifier": "classifier", "segmentation_head": "segmentation-head"}
# order of blocks along the network, by the first word of their name
BLOCK_ORDER = ("encoder", "bifpn", "regressor", "classifier", "decoder", "segmentation-head", PIPELINE, OTHER)

# EfficientNet-B0's blocks per stage (Tan & Le 2019, table 1), multiplied by the depth coefficients of B0 to B7
_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_DEPTHS = (1.0, 1.1, 1.4, 1.8, 2.2, 2.6, 3.1)  # B1 and B2 are equal after rounding: 1.1 and 1.2

_ENCODER_BLOCK = re.compile(r"/?encoder/_blocks\.(\d+)(?:/|$)")
_CELL = re.compile(r"/?bifpn/bifpn\.(\d+)(?:/|$)")
_DECODER = re.compile(r"/?bifpndecoder/(?:seg_blocks\.(\d+)|seg_p2)(?:/|$)")
# timm: /encoder/layer1.0/conv1/Conv, /encoder/blocks.2/blocks.2.0/...; the first numbered part is the stage
_FOREIGN_STAGE = re.compile(r"/?encoder/(?:[^/]+/)*?([A-Za-z_]+)[._]?(\d+)(?:[._/]|$)")


def _starts(blocks: int) -> list[int]:
    """First block of each stage for an EfficientNet of so many blocks; one stage for a number that none has."""
    for depth in _DEPTHS:
        repeats = [math.ceil(depth * count) for count in _REPEATS]
        if sum(repeats) == blocks:
            return [sum(repeats[:index]) for index in range(len(repeats))]
    return [0]


class BlockNames:
    """The block of every node of one graph.

    Stages of an EfficientNet are told by how many blocks it has, so all names are needed at once.

    Args:
        names: of all nodes of the graph, in any order.

    >>> blocks = BlockNames(f"/encoder/_blocks.{index}/Add" for index in range(16))
    >>> blocks("/encoder/_blocks.5/_expand_conv/Conv")
    'encoder/stage4'
    """

    def __init__(self, names: Iterable[str]) -> None:
        indices = [int(match[1]) for match in map(_ENCODER_BLOCK.match, names) if match]
        self._starts = _starts(max(indices) + 1) if indices else []

    def __call__(self, name: str) -> str:
        """Block of the node with this name: `encoder/stage3`, `bifpn/cell0`, `decoder/branch1`, ... or `other`."""
        if match := _ENCODER_BLOCK.match(name):
            index = int(match[1])
            return f"encoder/stage{sum(start <= index for start in self._starts)}"
        if match := _CELL.match(name):
            return f"bifpn/cell{match[1]}"
        if match := _DECODER.match(name):
            return "decoder/p2" if match[1] is None else f"decoder/branch{match[1]}"
        parts = name.lstrip("/").split("/")
        head = parts[0]
        if head == "encoder":
            if len(parts) > 1 and parts[1] in ("_conv_stem", "_bn0", "_act", "_swish"):
                return "encoder/stem"
            match = _FOREIGN_STAGE.match(name)
            return f"encoder/{match[1]}{match[2]}" if match else "encoder/stem"
        if head == "bifpndecoder":
            return "decoder/sum"
        if head == PIPELINE and len(parts) > 1:
            return f"{PIPELINE}/{parts[1]}"
        return _WHOLE.get(head, "bifpn" if head == "bifpn" else OTHER)


def sort_blocks(blocks: Iterable[str]) -> list[str]:
    """Blocks without repeats, in the order of the network: the encoder first, stages and cells by number.

    >>> sort_blocks(["decoder/p2", "encoder/stage10", "encoder/stage2", "encoder/stem"])
    ['encoder/stem', 'encoder/stage2', 'encoder/stage10', 'decoder/p2']
    """
    return sorted(set(blocks), key=_order)


def _order(block: str) -> tuple[int, int, str, int]:
    head, _, tail = block.partition("/")
    first = BLOCK_ORDER.index(head) if head in BLOCK_ORDER else len(BLOCK_ORDER)
    match = re.fullmatch(r"(\D*)(\d*)", tail)
    word, number = (match[1], int(match[2] or 0)) if match else (tail, 0)
    return first, int(word != "stem"), word, number
