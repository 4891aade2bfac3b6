"""Small ONNX networks for a real parser: a convolution in several types, with good and broken Q/DQ nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KINDS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16}


def convolution(path: Path, dtype: type = np.float32, batch: int | str = 1, opset: int = 17) -> Path:
    """conv1, ReLU, conv2; weights and tensors of one type."""
    rng = np.random.default_rng(1)
    kind = KINDS[np.dtype(dtype)]
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(dtype), name)
        for name, shape in (("w1", (16, 3, 3, 3)), ("w2", (8, 16, 1, 1)))
    ]
    nodes = [
        helper.make_node("Conv", ["input", "w1"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "w2"], ["output"], "conv2"),
    ]
    return _save(path, nodes, weights, kind, batch, opset)


def quantised(
    path: Path,
    *,
    zero_point: int = 0,
    scale: float = 0.02,
    asymmetric_node: str = "conv1_quant",
    axis: int | None = 0,
    int32_bias: bool = False,
) -> Path:
    """One convolution with Q/DQ on input and weights, which may be broken: see the rules of docs/tensorrt.md."""
    rng = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(rng.standard_normal((16, 3, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(np.float32(scale), "x_scale"),
        numpy_helper.from_array(np.int8(zero_point), "x_zero"),
        numpy_helper.from_array(np.full(16, 0.01, np.float32), "w_scale"),
        numpy_helper.from_array(np.zeros(16, np.int8), "w_zero"),
    ]
    along = {} if axis is None else {"axis": axis}
    bias = []
    if int32_bias:
        weights.append(numpy_helper.from_array(np.zeros(16, np.int32), "b"))
        bias = [helper.make_node("DequantizeLinear", ["b", "w_scale"], ["bd"], "bias_dequant", axis=0)]
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "x_scale", "x_zero"], ["xq"], asymmetric_node),
        helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"], "conv1_dequant"),
        helper.make_node("QuantizeLinear", ["w", "w_scale", "w_zero"], ["wq"], "w_quant", **along),
        helper.make_node("DequantizeLinear", ["wq", "w_scale", "w_zero"], ["wd"], "w_dequant", **along),
        *bias,
        helper.make_node("Conv", ["xd", "wd", *(["bd"] if bias else [])], ["output"], "conv1", pads=[1, 1, 1, 1]),
    ]
    return _save(path, nodes, weights, TensorProto.FLOAT, 1, 17)


def _save(path: Path, nodes: list, weights: list, kind: int, batch: int | str, opset: int) -> Path:
    channels = weights[-1].dims[0] if weights[-1].name == "w2" else 16
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", kind, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info("output", kind, [batch, channels, 32, 32])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
