"""What TensorRT refuses or runs slowly in a quantised graph, found before a board sees it.

The rules hold for TensorRT 8.5 to 11 and for RTX; each was read in the sources of its ONNX parser or seen in a real
build (docs/quantisation.md has the table). One graph serves all versions only if it breaks none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from calibration.graph import Graph, attribute, opset_of
from calibration.qdq import weight_axis

if TYPE_CHECKING:
    import onnx

__all__ = ["RULES", "Finding", "Flavour", "lint"]

Flavour = Literal["weak", "strong"]
_PAIR = ("QuantizeLinear", "DequantizeLinear")
_MATRIX = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# what they read has one type
_ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Mean", "PRelu", "Clip", "Concat", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual",
)  # fmt: skip
_INTEGER = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
_WEAK_OPSET = 17  # what TensorRT 8.5 and 8.6 parse with FP32 scales
_STRONG_OPSET = 19  # FP16 tensors and scales of QuantizeLinear


@dataclass(frozen=True)
class Finding:
    """One violation.

    Attributes:
        rule: key of `RULES`.
        node: name of the node.
        text: what is wrong there.
    """

    rule: str
    node: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.node}: {self.text}"


@dataclass(frozen=True)
class _View:
    """A graph with what rules ask of it."""

    graph: Graph
    flavour: Flavour
    types: dict[str, int]

    def pairs(self) -> Iterator[onnx.NodeProto]:
        """Quantise and dequantise nodes."""
        return (node for node in self.graph.nodes if node.op_type in _PAIR)

    def of_weight(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The convolution or product whose weights a Q or DQ node carries."""
        if node.input[0] not in self.graph.constants and not _quantises_constant(self.graph, node):
            return None
        return self._product(node.output[0])

    def _product(self, weight: str) -> onnx.NodeProto | None:
        """What multiplies with a tensor, behind its DequantizeLinear and, where it stays in FP32, a cast."""
        for reader in self.graph.consumers.get(weight, []):
            if reader.op_type in _MATRIX and reader.input[1] == weight:
                return reader
            found = self._product(reader.output[0]) if reader.op_type in ("DequantizeLinear", "Cast") else None
            if found is not None:
                return found
        return None


def _quantises_constant(graph: Graph, node: onnx.NodeProto) -> bool:
    maker = graph.producers.get(node.input[0])
    return maker is not None and maker.op_type == "QuantizeLinear" and maker.input[0] in graph.constants


Check = Callable[[_View], Iterator[tuple[str, str]]]


def _three_inputs(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.pairs():
        if len(node.input) < 3 or not node.input[2]:
            yield node.name, "it has no zero point, which TensorRT 8.5 demands"


def _constants(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.pairs():
        for name in node.input[1:3]:
            if name and name not in view.graph.constants:
                yield node.name, f"{name} is computed, not a constant"


def _zero_point_type(view: _View) -> Iterator[tuple[str, str]]:
    for node, zero in _zero_points(view):
        if zero.dtype != np.int8:
            yield node.name, f"its zero point is {zero.dtype}; only int8 is taken by every version"


def _zero_point_value(view: _View) -> Iterator[tuple[str, str]]:
    for node, zero in _zero_points(view):
        if zero.any():
            yield node.name, "its zero point is not 0: only symmetric quantisation exists"


def _zero_point_shape(view: _View) -> Iterator[tuple[str, str]]:
    for node, zero in _zero_points(view):
        scale = view.graph.array(node.input[1])
        if scale is not None and scale.size != zero.size:
            yield node.name, f"{scale.size} scale(s) and {zero.size} zero point(s)"


def _zero_points(view: _View) -> Iterator[tuple[onnx.NodeProto, np.ndarray]]:
    for node in view.pairs():
        zero = view.graph.array(node.input[2]) if len(node.input) > 2 else None
        if zero is not None:
            yield node, zero


def _scale_value(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.pairs():
        scale = view.graph.array(node.input[1])
        if scale is not None and not (np.isfinite(scale).all() and (scale > 0).all()):
            yield node.name, "a scale is not a finite number above 0"


def _activation_per_tensor(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.pairs():
        scale = view.graph.array(node.input[1])
        if view.of_weight(node) is None and scale is not None and scale.size != 1:
            yield node.name, f"an activation with {scale.size} scales; it may have one"


def _weight_axis(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.pairs():
        reader, scale = view.of_weight(node), view.graph.array(node.input[1])
        if reader is None or scale is None or scale.size == 1:
            continue
        shape = view.graph.shape(node.input[0]) or ()
        wanted = weight_axis(reader, len(shape))
        found = attribute(node, "axis")
        if found is None:
            yield node.name, "axis is not written: versions assume different ones"
        elif found % max(len(shape), 1) != wanted:
            yield node.name, f"axis {found} is not that of the output channels, {wanted}"


def _bias(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.graph.nodes:
        maker = view.graph.producers.get(node.input[2]) if node.op_type in _MATRIX and len(node.input) > 2 else None
        if maker is not None and maker.op_type in _PAIR:
            yield node.name, "its bias is quantised; it must stay float"


def _unpaired(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.graph.nodes:
        if node.op_type != "QuantizeLinear":
            continue
        readers = view.graph.consumers.get(node.output[0], [])
        if not readers or any(reader.op_type != "DequantizeLinear" for reader in readers):
            yield node.name, "what it makes is read by something else than a DequantizeLinear"
        elif any(not _same_scale(view.graph, node, reader) for reader in readers):
            yield node.name, "the DequantizeLinear behind it has another scale"


def _same_scale(graph: Graph, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    a, b = graph.array(first.input[1]), graph.array(second.input[1])
    return a is None or b is None or (a.shape == b.shape and bool((a == b).all()))


def _integer_operators(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.graph.nodes:
        if node.op_type in _INTEGER:
            yield node.name, f"{node.op_type} is not parsed; pairs around the float operator are"


def _before_activation(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.graph.nodes:
        if node.op_type != "QuantizeLinear":
            continue
        maker = view.graph.producers.get(node.input[0])
        if maker is not None and maker.op_type in _MATRIX:
            others = [r.op_type for r in view.graph.consumers.get(node.input[0], []) if r is not node]
            behind = [
                reader.op_type
                for dequantise in view.graph.consumers.get(node.output[0], [])
                for reader in view.graph.consumers.get(dequantise.output[0], [])
            ]
            if {"Sigmoid", "HardSwish", "HardSigmoid", "Relu", "Clip"} & {*others, *behind}:
                yield node.name, "it stands between a convolution and its activation, which could be one kernel"


def _one_side_of_additions(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.graph.nodes:
        makers = [view.graph.producers.get(name) for name in node.input] if node.op_type == "Add" else []
        if len(makers) == 2 and all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers):
            yield node.name, "both inputs of the addition are quantised; then neither fuses with its convolution"


def _residual_branch(view: _View) -> Iterator[tuple[str, str]]:
    """The later of two convolutions is the addition's own one, as in `calibration.placement`."""
    graph = view.graph
    order = {id(node): number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.op_type != "Add" or any(name in graph.constants for name in node.input):
            continue
        paired = [_dequantised_by(graph, name) is not None for name in node.input]
        if paired.count(True) != 1 or graph.shape(node.input[0]) != graph.shape(node.input[1]):
            continue
        makers = [_maker(graph, name) for name in node.input]
        convs = [(side, maker) for side, maker in enumerate(makers) if maker is not None and maker.op_type in _MATRIX]
        quantised = [entry for entry in convs if _dequantised_by(graph, entry[1].input[0]) is not None]
        own = max(quantised or convs, key=lambda entry: order[id(entry[1])], default=None)
        if own is not None and paired[own[0]]:
            yield node.name, f"the pair is behind {own[1].name}; on the skip the addition would fuse with it"


def _concat_scales(view: _View) -> Iterator[tuple[str, str]]:
    for node in view.graph.nodes:
        makers = [_dequantised_by(view.graph, name) for name in node.input] if node.op_type == "Concat" else []
        scales = [view.graph.array(maker.input[1]) for maker in makers if maker is not None]
        values = {float(scale.ravel()[0]) for scale in scales if scale is not None and scale.size == 1}
        if len(values) > 1:
            yield node.name, f"its inputs have {len(values)} different scales; each is quantised again into one"


def _dequantised_by(graph: Graph, name: str) -> onnx.NodeProto | None:
    """The DequantizeLinear that makes a tensor, casts between left out."""
    maker = graph.producers.get(name)
    while maker is not None and maker.op_type == "Cast":
        maker = graph.producers.get(maker.input[0])
    return maker if maker is not None and maker.op_type == "DequantizeLinear" else None


def _maker(graph: Graph, name: str) -> onnx.NodeProto | None:
    """The node that makes a tensor, pairs and casts between left out."""
    maker = graph.producers.get(name)
    while maker is not None and maker.op_type in (*_PAIR, "Cast"):
        maker = graph.producers.get(maker.input[0])
    return maker


def _float_weights(view: _View) -> Iterator[tuple[str, str]]:
    if view.flavour != "weak":
        return
    for node in view.pairs():
        if node.op_type == "DequantizeLinear" and node.input[0] in view.graph.constants:
            yield node.name, "weights are stored as int8; TensorRT 8 wants floats and a pair"


def _opset(view: _View) -> Iterator[tuple[str, str]]:
    found = opset_of(view.graph.model)
    if view.flavour == "weak" and found > _WEAK_OPSET:
        yield "graph", f"opset {found}; TensorRT 8.5 parses up to {_WEAK_OPSET}"
    if view.flavour == "strong" and found < _STRONG_OPSET:
        yield "graph", f"opset {found}; FP16 pairs exist from {_STRONG_OPSET} on"


def _types(view: _View) -> Iterator[tuple[str, str]]:
    """Strongly typed: what an operator reads has one type. Weakly typed: everything is FP32."""
    import onnx

    for node in view.graph.nodes:
        kinds = {view.types[name] for name in _alike(node) if name in view.types}
        if node.op_type == "Pow":  # whole exponents are no matter of precision
            kinds -= {onnx.TensorProto.INT32, onnx.TensorProto.INT64}
        if len(kinds) > 1:
            names = " and ".join(sorted(onnx.TensorProto.DataType.Name(kind) for kind in kinds))
            yield node.name, f"its inputs are {names}"
    for node in view.pairs() if view.flavour == "weak" else ():
        scale = view.graph.array(node.input[1])
        if scale is not None and scale.dtype != np.float32:
            yield node.name, f"its scale is {scale.dtype}; TensorRT 8.5 reads float32 only"


def _alike(node: onnx.NodeProto) -> Sequence[str]:
    """The inputs of a node that must have one type."""
    if node.op_type in _MATRIX or node.op_type in _ELEMENTWISE:
        return node.input
    if node.op_type == "Where":
        return node.input[1:]
    return node.input[:2] if node.op_type == "QuantizeLinear" else ()


# name -> check; each yields the node and what is wrong there
RULES: dict[str, Check] = {
    "zero-point-missing": _three_inputs,
    "not-constant": _constants,
    "zero-point-type": _zero_point_type,
    "zero-point-not-zero": _zero_point_value,
    "zero-point-count": _zero_point_shape,
    "scale-value": _scale_value,
    "activation-per-channel": _activation_per_tensor,
    "weight-axis": _weight_axis,
    "bias-quantised": _bias,
    "unpaired": _unpaired,
    "integer-operator": _integer_operators,
    "before-activation": _before_activation,
    "both-addends": _one_side_of_additions,
    "residual-branch": _residual_branch,
    "concat-scales": _concat_scales,
    "stored-weights": _float_weights,
    "opset": _opset,
    "types": _types,
}


def lint(model: onnx.ModelProto, flavour: Flavour) -> list[Finding]:
    """Every violation of TensorRT's rules for explicit quantisation, in the order of `RULES`.

    Args:
        model: an ONNX graph with Q/DQ pairs.
        flavour: `weak` for builders that choose types by flags (TensorRT 8.5 to 10), `strong` for those that take the
            types of the file (10 with that option, 11, RTX).
    """
    view = _View(Graph(model), flavour, _types_of(model))
    return [Finding(rule, node, text) for rule, check in RULES.items() for node, text in check(view)]


def _types_of(model: onnx.ModelProto) -> dict[str, int]:
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return types | {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
