"""What a graph costs on paper: nodes, multiply-accumulates, bytes of activations and of weights.

Counted on the ONNX graph as it stands, before any runtime fuses anything; a free batch counts as one image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from export.rewrites.editing import Shape, infer_shapes

if TYPE_CHECKING:
    import onnx

__all__ = ["Statistics", "node_statistics", "statistics"]

# another view of the same bytes
_VIEWS = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Constant", "Dropout"})


@dataclass(frozen=True)
class Statistics:
    """Totals over nodes.

    Attributes:
        nodes: how many.
        macs: multiply-accumulates of convolutions and matrix products.
        activation_bytes: bytes of all results that nodes write, without mere views (Reshape and the like).
        weight_bytes: bytes of constants, each counted once however many nodes read it.
        parameters: elements of floating-point and 8-bit constants.
    """

    nodes: int = 0
    macs: int = 0
    activation_bytes: int = 0
    weight_bytes: int = 0
    parameters: int = 0

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def to_json(self) -> dict[str, int]:
        """As it stands in reports."""
        return asdict(self)


def statistics(model: onnx.ModelProto) -> Statistics:
    """Totals of a whole model."""
    return sum(node_statistics(model), Statistics())


def node_statistics(model: onnx.ModelProto) -> list[Statistics]:
    """One entry for each node, in the order of the graph; a shared constant belongs to its first reader."""
    shapes = infer_shapes(model)
    widths = _widths(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return [_of(node, shapes, widths, constants) for node in model.graph.node]


def _of(
    node: onnx.NodeProto, shapes: dict[str, Shape], widths: dict[str, int], constants: dict[str, onnx.TensorProto]
) -> Statistics:
    macs = _macs(node, shapes)
    # results whose type inference does not know are 4 bytes wide in all likelihood
    written = sum(_count(shapes.get(name, (0,))) * widths.get(name, 4) for name in node.output if name in shapes)
    stored = [constants.pop(name) for name in dict.fromkeys(node.input) if name in constants]
    return Statistics(
        nodes=1,
        macs=macs,
        activation_bytes=0 if node.op_type in _VIEWS else written,
        weight_bytes=sum(_count(t.dims) * _width(t.data_type) for t in stored),
        parameters=sum(_count(t.dims) for t in stored if t.data_type not in _INTEGERS),
    )


# TensorProto's int32, int64 and bool: shapes, pads, axes
_INTEGERS = frozenset({6, 7, 9})


def _count(shape: Iterable[int]) -> int:
    return math.prod(size or 1 for size in shape)


def _width(kind: int) -> int:
    import onnx

    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, TypeError, ValueError):
        return 4


def _widths(model: onnx.ModelProto) -> dict[str, int]:
    """Bytes of an element where they are not 4; results have the type of the first input of their node."""
    graph = model.graph
    found = {value.name: _width(value.type.tensor_type.elem_type) for value in graph.input}
    found |= {tensor.name: _width(tensor.data_type) for tensor in graph.initializer}
    for node in graph.node:
        width = next((found[name] for name in node.input if name in found), 4)
        if node.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear", "ArgMax", "ArgMin", "Shape"):
            width = _cast_width(node, found)
        for name in node.output:
            found.setdefault(name, width)
    return found


def _cast_width(node: onnx.NodeProto, found: dict[str, int]) -> int:
    if node.op_type == "Cast":
        return _width(next((a.i for a in node.attribute if a.name == "to"), 1))
    if node.op_type == "DequantizeLinear":
        return found.get(node.input[1], 4)
    return 1 if node.op_type == "QuantizeLinear" else 8


def _macs(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    kind = node.op_type
    if kind in ("Conv", "ConvInteger", "QLinearConv", "ConvTranspose"):
        weight = shapes.get(node.input[3 if kind == "QLinearConv" else 1], ())
        # each element of a filter meets each position once: of the result, or of the input it is spread from
        place = shapes.get(node.input[0] if kind == "ConvTranspose" else node.output[0], ())
        return _count(weight) * _count((*place[:1], *place[2:])) if weight and place else 0
    if kind in ("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm"):
        left, result = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
        if not left:
            return 0
        turned = kind == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
        return _count(result) * (left[0] if turned else left[-1] or 1)
    return 0
