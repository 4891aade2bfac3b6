"""Max pooling over zeros around a map, without writing the map once more with a border.

The BiFPN pads with zeros before it pools, which a pooling's own padding (minus infinity) does not give: features may be
negative. But the maximum over a window with zeros in it is the maximum of what is real in it, and 0::

    pool(pad(x, 0)) = max(pool_inf(x), m),   m = 0 where the window reaches over the edge, lowest elsewhere

`lowest` is -65504, the smallest number of half precision, so that the graph can be converted to it; features of this
network lie within some tens, and the exporter's proof sees any that do not.

A border costs a pass over the largest maps of the BiFPN. Runtimes fuse the maximum into the weighted sum that follows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.rewrites.convolutions import attribute
from export.rewrites.editing import GraphEditor

if TYPE_CHECKING:
    import onnx

__all__ = ["LOWEST", "unpad_max_pools"]

LOWEST = -65504.0
# a constant of 64 MB, for a map of 8192x4096 pixels; larger ones stand in broken files only
_MOST_ELEMENTS = 1 << 24


def unpad_max_pools(editor: GraphEditor) -> int:
    """See the module. Returns the number of poolings that lost their border."""
    count = 0
    for pool in list(editor.nodes):
        border = _border(editor, pool)
        if border is None:
            continue
        pad = editor.producers[pool.input[0]]
        source, shape = pad.input[0], editor.shape(pad.input[0])
        result = editor.shape(pool.output[0])
        if shape is None or result is None or not all(shape[2:]) or not 0 < math.prod(result[2:]) <= _MOST_ELEMENTS:
            continue
        name = pool.name or pool.output[0]
        kernel, strides = _pair(pool, "kernel_shape", 1), _pair(pool, "strides", 1)
        floor = _floor(shape[2:], border, kernel, strides, result[2:])
        pooled = editor.add_node(
            "MaxPool", [source], f"{name}_unpadded", kernel_shape=kernel, strides=strides, pads=border, ceil_mode=0
        )
        constant = editor.add_constant(floor, f"{name}_floor")
        editor.remove(pad, pool)
        editor.add_node("Max", [pooled, constant], f"{name}_max", output=pool.output[0])
        count += 1
    return count


def _border(editor: GraphEditor, pool: onnx.NodeProto) -> list[int] | None:
    """[top, left, bottom, right] of zeros around what a MaxPool reads, if that is all there is around it."""
    if pool.op_type != "MaxPool" or len(pool.output) != 1 or any(attribute(pool, "pads", ())):
        return None
    kernel = attribute(pool, "kernel_shape", [])
    plain = (
        len(kernel) == 2
        and attribute(pool, "ceil_mode", 0) == 0
        and attribute(pool, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and all(step == 1 for step in attribute(pool, "dilations", ()))
    )
    pad = editor.private_maker(pool.input[0], "Pad")
    if not plain or pad is None or attribute(pad, "mode", b"constant") != b"constant" or len(pad.input) > 3:
        return None
    amounts = editor.array(pad.input[1]) if len(pad.input) > 1 else None
    value = editor.array(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    if amounts is None or value is None or value.any() or amounts.shape != (8,):
        return None
    top, left, bottom, right = (int(amounts[index]) for index in (2, 3, 6, 7))
    if amounts[[0, 1, 4, 5]].any() or min(top, left, bottom, right) < 0:
        return None
    # a window of padding alone has no maximum
    return [top, left, bottom, right] if max(top, bottom) < kernel[0] and max(left, right) < kernel[1] else None


def _pair(node: onnx.NodeProto, name: str, default: int) -> list[int]:
    return [int(value) for value in attribute(node, name, [default, default])]


def _floor(
    shape: tuple[int, ...], border: list[int], kernel: list[int], strides: list[int], result: tuple[int, ...]
) -> NDArray[np.float32]:
    """(1, 1, H, W): 0 for windows that reach over an edge, `LOWEST` for those that do not."""
    over = []
    for axis in (0, 1):
        first = np.arange(result[axis]) * strides[axis] - border[axis]
        over.append((first < 0) | (first + kernel[axis] > shape[axis]))
    reaches = over[0][:, None] | over[1][None, :]
    return np.where(reaches, np.float32(0.0), np.float32(LOWEST))[None, None].astype(np.float32)
