"""Every operator against ONNX Runtime, pairs against numbers worked out by hand, whole networks against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hybridnets.bundle import open_bundle
from hybridnets.errors import HnxError
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime
from runtimes.simulated import SimulatedRuntime
from runtimes.torch_graph import TorchGraph

FLOAT = TensorProto.FLOAT


def network(kind: str, constants: list[NDArray[Any] | None], outputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    """One node that reads `x` and constants; None leaves an input out."""
    names = ["" if value is None else f"c{index}" for index, value in enumerate(constants)]
    made = [f"y{index}" for index in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *names], made, **attributes)],
        "one",
        [helper.make_tensor_value_info("x", FLOAT, [1, 4, 9, 12])],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in made],
        [numpy_helper.from_array(v, n) for n, v in zip(names, constants, strict=True) if v is not None],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def image(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((1, 4, 9, 12), np.float32)


WEIGHT = np.random.default_rng(1).standard_normal((6, 4, 3, 3)).astype(np.float32)
CASES: list[tuple[str, list[NDArray[Any] | None], dict[str, Any]]] = [
    ("Add", [image(2)], {}),
    ("Mul", [image(2)], {}),
    ("Max", [image(2)], {}),
    ("Sigmoid", [], {}),
    ("Relu", [], {}),
    ("HardSwish", [], {}),
    ("HardSigmoid", [], {"alpha": 1 / 6, "beta": 0.5}),
    ("HardSigmoid", [], {}),
    ("Clip", [np.float32(-0.5), np.float32(0.25)], {}),
    ("GlobalAveragePool", [], {}),
    ("Flatten", [], {"axis": 1}),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}),
    ("Reshape", [np.array([0, -1, 12], np.int64)], {}),
    ("Concat", [image(3)], {"axis": 1}),
    ("Split", [np.array([1, 3], np.int64)], {"axis": 1}),
    ("AveragePool", [], {"kernel_shape": [3, 4], "strides": [3, 4]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ("Conv", [WEIGHT], {"kernel_shape": [3, 3], "pads": [0, 1, 1, 2], "strides": [2, 2]}),
    ("Conv", [WEIGHT, np.ones(6, np.float32)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "dilations": [2, 2]}),
    ("Conv", [WEIGHT[:4, :1]], {"kernel_shape": [3, 3], "group": 4}),
    (
        "Resize",
        [None, np.array([1, 1, 2, 2], np.float32)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    ("Resize", [None, np.array([1, 1, 4, 4], np.float32)], {"mode": "linear"}),
    (
        "Resize",
        [None, None, np.array([1, 4, 18, 24], np.int64)],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
]


@pytest.mark.parametrize(
    ("kind", "constants", "attributes"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_operators(kind: str, constants: list[NDArray[Any] | None], attributes: dict[str, Any]) -> None:
    model = network(kind, constants, 2 if kind == "Split" else 1, **attributes)
    session = ort.InferenceSession(model.SerializeToString())
    right = session.run(None, {"x": image()})
    found = TorchGraph(model)({"x": image()})
    assert list(found) == [output.name for output in session.get_outputs()]
    for name, value in zip(found, right, strict=True):
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


def pairs(scale: NDArray[Any], zero: NDArray[Any], axis: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=axis),
        ],
        "pair",
        [helper.make_tensor_value_info("x", FLOAT, [1, 4, 9, 12])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero, "z")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("scale", "zero", "axis"),
    [
        (np.float32(0.02), np.int8(0), 1),
        (np.float32(0.01), np.uint8(0), 1),
        (np.float32(0.02), np.uint8(131), 1),
        (np.array([0.01, 0.02, 0.5, 1], np.float32), np.zeros(4, np.int8), 1),
    ],
)
def test_pairs_are_what_onnx_says(scale: NDArray[Any], zero: NDArray[Any], axis: int) -> None:
    model = pairs(np.asarray(scale), np.asarray(zero), axis)
    right = ort.InferenceSession(model.SerializeToString()).run(None, {"x": image()})[0]
    assert np.array_equal(TorchGraph(model)({"x": image()})["y"], right)


def test_halves_go_to_the_even_number_and_ends_are_clipped() -> None:
    x = np.zeros((1, 4, 9, 12), np.float32)
    x.flat[:6] = [0.5, 1.5, 2.5, -0.5, 300.0, -300.0]
    found = TorchGraph(pairs(np.array(1.0, np.float32), np.array(0, np.int8), 1))({"x": x})["y"]
    assert found.flat[:6].tolist() == [0.0, 2.0, 2.0, 0.0, 127.0, -128.0]


def test_an_operator_of_others() -> None:
    with pytest.raises(HnxError, match="PyTorch cannot run node") as caught:
        TorchGraph(network("Erf", []))
    assert "Erf" in caught.value.why
    with pytest.raises(HnxError, match="enlarge"):
        TorchGraph(network("Resize", [None, np.array([1, 1, 2, 2], np.float32)], mode="cubic"))


def test_the_float_network_of_a_bundle(bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    noise = {"input": np.random.default_rng(0).standard_normal((1, 3, 128, 256), np.float32)}
    with SimulatedRuntime(bundle, RuntimeOptions(threads=1)) as simulated, open_runtime("onnxruntime", bundle) as other:
        assert simulated.execution.precision == "fp32"
        right = other.infer(noise)
        for name, value in simulated.infer(noise).items():
            np.testing.assert_allclose(value, right[name], rtol=1e-3, atol=1e-4)
