"""Exact changes of the exported graph without which some runtime computes it wrongly or not at all.

Each is a function on the model, in place, that changes no number in exact arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["REPAIRS", "constants_to_initializers", "double_single_rows", "drop_trailing_inputs", "tile_global_pools"]

# largest side of a tile: 16x16 sums keep 24 bits where one running sum over 192x320 pixels loses 10
_TILE = 16


def constants_to_initializers(proto: onnx.ModelProto) -> None:
    """Constant nodes become initializers: consumers expect weights there."""
    import onnx

    kept = []
    for node in proto.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type != "Constant" or value is None:
            kept.append(node)
            continue
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        proto.graph.initializer.append(tensor)
    _replace_nodes(proto, kept)


def drop_trailing_inputs(proto: onnx.ModelProto) -> None:
    """Remove empty names at the end of a node's inputs: OpenCV-DNN refuses them."""
    for node in proto.graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]


def double_single_rows(proto: onnx.ModelProto) -> None:
    """Repeat a single row or column before it is enlarged: OpenCV 5.0 reads past the end of maps one pixel high.

    Between two equal rows every interpolation is that row, so the result is exact. Inputs 128 pixels high or wide
    are concerned: their coarsest map, P7, has one row. Seen there: logits of 1e22, different in every run.
    """
    import onnx

    shapes = _shapes(proto)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        linear = node.op_type == "Resize" and any(a.name == "mode" and a.s == b"linear" for a in node.attribute)
        single = [axis for axis in (2, 3) if shapes.get(node.input[0], ())[axis : axis + 1] == (1,)] if linear else []
        if single:
            scales = onnx.numpy_helper.to_array(constants[node.input[2]]).copy()
            for axis in single:
                scales[axis] /= 2
                doubled = f"{node.name}_doubled_{axis}"
                nodes.append(onnx.helper.make_node("Concat", [node.input[0]] * 2, [doubled], doubled, axis=axis))
                node.input[0] = doubled
            node.input[2] = f"{node.name}_scales"
            proto.graph.initializer.append(onnx.numpy_helper.from_array(scales, node.input[2]))
        nodes.append(node)
    _replace_nodes(proto, nodes)


def tile_global_pools(proto: onnx.ModelProto) -> None:
    """Average tiles first, then their averages: the mean of equal tiles' means is the mean.

    ONNX Runtime adds all pixels of a map in one float32. On a real frame with large even areas (sky, letterbox) that
    moved the outputs of c3 by 6e-4 relative L2 from PyTorch; with tiles it is 4e-6.
    """
    import onnx

    shapes = _shapes(proto)
    nodes = []
    for node in proto.graph.node:
        shape = shapes.get(node.input[0], ()) if node.op_type == "GlobalAveragePool" else ()
        if len(shape) == 4 and all(shape[2:]):
            tile = [max(d for d in range(1, min(side, _TILE) + 1) if side % d == 0) for side in shape[2:]]
            if tile != [1, 1] and tile != list(shape[2:]):
                name = f"{node.name}_tiles"
                nodes.append(
                    onnx.helper.make_node("AveragePool", [node.input[0]], [name], name, kernel_shape=tile, strides=tile)
                )
                node.input[0] = name
        nodes.append(node)
    _replace_nodes(proto, nodes)


def _shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Inferred shapes by tensor name; 0 stands for a free size."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(proto).graph
    return {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input)
    }


def _replace_nodes(proto: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    nodes = list(nodes)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


REPAIRS: tuple[Callable[[onnx.ModelProto], None], ...] = (
    constants_to_initializers,
    drop_trailing_inputs,
    double_single_rows,
    tile_global_pools,
)
