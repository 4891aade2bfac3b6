"""Each repair changes no number, does its work, and does nothing the second time."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.repairs import (
    REPAIRS,
    constants_to_initializers,
    double_single_rows,
    drop_trailing_inputs,
    tile_global_pools,
)


def model(nodes: list[onnx.NodeProto], shape: list[int], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A graph from `x` (shape) to `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Its output in ONNX Runtime."""
    return np.asarray(ort.InferenceSession(proto.SerializeToString()).run(["y"], {"x": x})[0])


def resize() -> list[onnx.NodeProto]:
    """A bilinear, corner-aligned enlargement."""
    return [
        helper.make_node(
            "Resize", ["x", "", "s"], ["y"], "up", mode="linear", coordinate_transformation_mode="align_corners"
        )
    ]


@pytest.mark.parametrize("shape", [(1, 2), (1, 1), (2, 1), (1, 5)])
def test_single_rows(shape: tuple[int, int]) -> None:
    scales = np.array([1, 1, 2, 2], np.float32)
    proto = model(resize(), [1, 3, *shape], {"s": scales})
    x = np.random.default_rng(0).standard_normal((1, 3, *shape), np.float32)
    before = run(proto, x)
    double_single_rows(proto)
    assert np.allclose(run(proto, x), before, atol=1e-6)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("Concat") == shape.count(1)
    double_single_rows(proto)
    assert [node.op_type for node in proto.graph.node] == kinds


def test_larger_maps_stay_as_they_are() -> None:
    proto = model(resize(), [1, 3, 2, 4], {"s": np.array([1, 1, 2, 2], np.float32)})
    text = proto.SerializeToString()
    double_single_rows(proto)
    assert proto.SerializeToString() == text


@pytest.mark.parametrize("side", [(192, 320), (12, 20), (7, 13), (64, 1), (17, 34)])
def test_tiled_pools(side: tuple[int, int]) -> None:
    proto = model([helper.make_node("GlobalAveragePool", ["x"], ["y"], "gap")], [1, 4, *side], {})
    x = np.random.default_rng(0).standard_normal((1, 4, *side), np.float32)
    tile_global_pools(proto)
    assert np.allclose(run(proto, x), x.mean((2, 3), keepdims=True, dtype=np.float64), atol=1e-6)
    kinds = [node.op_type for node in proto.graph.node]
    tile_global_pools(proto)
    again = [node.op_type for node in proto.graph.node]
    assert again.count("AveragePool") <= kinds.count("AveragePool") + 1  # a large map may be tiled once more


def test_tiling_is_why_onnx_runtime_agrees_on_even_pictures() -> None:
    """A large even area, as sky and letterbox give: one running sum is off by 3e-4, tiles by 1e-6."""
    proto = model([helper.make_node("GlobalAveragePool", ["x"], ["y"], "gap")], [1, 16, 192, 320], {})
    x = 1 + np.random.default_rng(0).standard_normal((1, 16, 192, 320), np.float32)
    x[:, :, :100] = 1.7
    mean = x.mean((2, 3), keepdims=True, dtype=np.float64)
    plain = np.abs(run(proto, x) - mean).max()
    tile_global_pools(proto)
    tiled = np.abs(run(proto, x) - mean).max()
    assert tiled < 1e-5
    assert tiled <= plain


def test_constants_and_trailing_inputs() -> None:
    value = numpy_helper.from_array(np.array([2.0], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["two"], value=value),
        helper.make_node("Clip", ["x", "two", ""], ["y"]),
    ]
    proto = model(nodes, [3], {})
    constants_to_initializers(proto)
    drop_trailing_inputs(proto)
    assert [node.op_type for node in proto.graph.node] == ["Clip"]
    assert list(proto.graph.node[0].input) == ["x", "two"]
    scalar = numpy_helper.to_array(proto.graph.initializer[0])
    assert scalar.tolist() == [2.0]


def test_all_repairs_leave_an_exported_network_alone_the_second_time(bundle_path: object) -> None:
    proto = onnx.load(f"{bundle_path}/hybridnets_128x256.onnx")
    count = len(proto.graph.node)
    for repair in REPAIRS[:3]:
        repair(proto)
    assert len(proto.graph.node) == count
