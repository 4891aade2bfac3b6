"""What quantisation asks of an ONNX graph: who makes a tensor, who reads it, what is constant, which shape it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.blocks import PIPELINE, BlockNames

if TYPE_CHECKING:
    import onnx

__all__ = [
    "MATRIX_OPS",
    "WEIGHT_AXES",
    "Graph",
    "attribute",
    "element_count",
    "network_outputs",
    "only_network",
    "opset_of",
]

# operators whose products INT8 speeds up -> axis of the output channels in their weights
# (TensorRT: Conv 0, ConvTranspose 1, Gemm with transB 0, MatMul of [K, N] 1)
WEIGHT_AXES = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": 1}
MATRIX_OPS = tuple(WEIGHT_AXES)


class Graph:
    """An index of a model, which it does not change.

    Attributes:
        model: the model.
        nodes: its nodes in order.
        producers: the node that makes a tensor.
        consumers: the nodes that read a tensor, once for each input that does.
        constants: initializers by name.
        outputs: names of the graph's outputs.
        block: name of a node to the block of the network it belongs to.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                if name:
                    self.consumers.setdefault(name, []).append(node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [value.name for value in model.graph.input if value.name not in self.constants]
        self.outputs = [value.name for value in model.graph.output]
        self.block = BlockNames(node.name for node in self.nodes)
        self._shapes: dict[str, tuple[int, ...]] | None = None

    def array(self, name: str) -> NDArray[Any] | None:
        """Value of an initializer, None for a tensor that is computed."""
        import onnx

        tensor = self.constants.get(name)
        return None if tensor is None else onnx.numpy_helper.to_array(tensor)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, 0 for a free size; None where inference finds none."""
        if self._shapes is None:
            self._shapes = _infer_shapes(self.model)
        return self._shapes.get(name)

    def matrix_nodes(self) -> Iterator[onnx.NodeProto]:
        """Convolutions and matrix products whose weights are constant, in order."""
        for node in self.nodes:
            if node.op_type in MATRIX_OPS and len(node.input) > 1 and self.weight_name(node) is not None:
                yield node

    def is_depthwise(self, node: onnx.NodeProto) -> bool:
        """A convolution in which every channel of the input has a filter of its own, and no other reads it."""
        name = self.weight_name(node) if node.op_type == "Conv" else None
        if name is None:
            return False
        shape = tuple(self.constants[name].dims)
        return len(shape) > 2 and shape[1] == 1 and int(attribute(node, "group", 1)) == shape[0] > 1

    def is_dense(self, node: onnx.NodeProto) -> bool:
        """A convolution that adds up all channels of its input."""
        return node.op_type == "Conv" and int(attribute(node, "group", 1)) == 1

    def in_pipeline(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a step of pre- or postprocessing, which stays in float32."""
        return self.block(node.name).startswith(f"{PIPELINE}/")

    def weight_name(self, node: onnx.NodeProto) -> str | None:
        """The initializer that a convolution or product multiplies with, behind its Q/DQ pair if it has one."""
        name = node.input[1]
        while name not in self.constants:
            maker = self.producers.get(name)
            if maker is None or maker.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                return None
            name = maker.input[0]
        return name

    def upstream(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The nodes that make what this one reads."""
        for name in node.input:
            maker = self.producers.get(name)
            if maker is not None:
                yield maker


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Value of an attribute of a node."""
    import onnx

    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def network_outputs(model: onnx.ModelProto) -> dict[str, str]:
    """Role to tensor of what the network itself gives, also where the graph delivers something made of it.

    Boxes in an order and class numbers cannot be held against others number by number; these can.
    """
    graph = Graph(model)
    if not any(map(graph.in_pipeline, graph.nodes)):
        return {name: name for name in graph.outputs if name != "anchors"}
    candidates = {
        "regression": ("regression",),
        "classification": ("classification",),
        "segmentation": ("segmentation_logits", "segmentation"),
    }
    found = {role: [name for name in names if name in graph.producers] for role, names in candidates.items()}
    return {role: names[0] for role, names in found.items() if names}


def only_network(model: onnx.ModelProto, outputs: Mapping[str, str]) -> onnx.ModelProto:
    """A copy that delivers float32 `outputs` (see `network_outputs`) in this order."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for name in outputs.values():
        copy.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return copy


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators that a model uses."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _infer_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            shapes[value.name] = tuple(dimension.dim_value for dimension in kind.shape.dim)
    return shapes


def element_count(shape: tuple[int, ...] | None) -> int:
    """Elements of a tensor for a batch of one; free sizes count as 1."""
    return int(np.prod([size or 1 for size in shape], dtype=np.int64)) if shape else 1
