"""Small networks with every feature that placements must tell apart, and a way to run them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]


class Builder:
    """Adds layers with seeded weights one after the other."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], name: str, output: str | None = None, **attributes: object) -> str:
        output = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name, **attributes))
        return output

    def conv(
        self, x: str, name: str, shape: tuple[int, ...], *, group: int = 1, stride: int = 1, bias: bool = True
    ) -> str:
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        weight = self.constant(f"{name}.weight", (self.random.standard_normal(shape) * scale).astype(np.float32))
        inputs = [x, weight]
        if bias:
            inputs.append(self.constant(f"{name}.bias", self.random.standard_normal(shape[0]).astype(np.float32) * 0.1))
        pad = shape[2] // 2
        return self.node(
            "Conv", inputs, f"{name}/Conv", group=group, strides=[stride] * 2, pads=[pad] * 4, kernel_shape=shape[2:]
        )

    def swish(self, x: str, name: str) -> str:
        return self.node("Mul", [x, self.node("Sigmoid", [x], f"{name}/Sigmoid")], f"{name}/Mul")

    def model(self, outputs: dict[str, list[int]], size: int, opset: int) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, size, size])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            self.tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def mbconv_net(*, size: int = 16, opset: int = 17, seed: int = 0) -> onnx.ModelProto:
    """Stem, two inverted residual blocks with squeeze-excite, and two outputs; named as the exporter names them."""
    b = Builder(seed)
    x = b.swish(b.conv("input", "/encoder/_conv_stem", (16, 3, 3, 3), stride=2), "/encoder/_act")
    for index in range(2):
        block = f"/encoder/_blocks.{index}"
        skip = x
        x = b.swish(b.conv(x, f"{block}/_expand_conv", (32, 16, 1, 1)), f"{block}/_act")
        x = b.swish(b.conv(x, f"{block}/_depthwise_conv", (32, 1, 3, 3), group=32), f"{block}/_act_1")
        pooled = b.node("GlobalAveragePool", [x], f"{block}/GlobalAveragePool")
        gate = b.swish(b.conv(pooled, f"{block}/_se_reduce", (4, 32, 1, 1)), f"{block}/_act_2")
        gate = b.node("Sigmoid", [b.conv(gate, f"{block}/_se_expand", (32, 4, 1, 1))], f"{block}/_gate/Sigmoid")
        x = b.conv(b.node("Mul", [x, gate], f"{block}/Mul"), f"{block}/_project_conv", (16, 32, 1, 1))
        x = b.node("Add", [x, skip], f"{block}/Add")
    y = b.swish(
        b.conv(x, "/regressor/conv_list.0/depthwise_conv", (16, 1, 3, 3), group=16, bias=False), "/regressor/act"
    )
    head = b.conv(y, "/regressor/header", (4, 16, 1, 1))
    b.node("Identity", [head], "/regressor/Identity", "regression")
    z = b.swish(b.conv(x, "/bifpndecoder/seg_p2/conv", (16, 16, 3, 3)), "/bifpndecoder/seg_p2/act")
    half = size // 2
    mask = b.conv(z, "/segmentation_head/segmentation_head.0", (3, 16, 1, 1))
    scales = b.constant("scales", np.array([1, 1, 2, 2], np.float32))
    b.node(
        "Resize", [mask, "", scales], "/segmentation_head/Resize", "segmentation", mode="linear",
        coordinate_transformation_mode="align_corners",
    )  # fmt: skip
    return b.model({"regression": [1, 4, half, half], "segmentation": [1, 3, size, size]}, size, opset)


def run(model: onnx.ModelProto, x: Array, *names: str, optimise: bool = True) -> list[Array]:
    """Outputs in ONNX Runtime; without its optimisations Q/DQ are float operations."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(list(names) or None, {"input": x})]


def frames(count: int = 4, *, size: int = 16, seed: int = 1) -> list[Array]:
    """Seeded inputs (1, 3, size, size)."""
    random = np.random.default_rng(seed)
    return [random.standard_normal((1, 3, size, size)).astype(np.float32) for _ in range(count)]


def inner(model: onnx.ModelProto, name: str, x: Array) -> Array:
    """One inner tensor."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return run(copy, x, name, optimise=False)[0]
