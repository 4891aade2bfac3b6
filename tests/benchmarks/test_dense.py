"""Separable convolutions multiplied out: the same outputs, fewer nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.dense import dense_variants, merge_separable
from hybridnets.bundle import Bundle, open_bundle
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime


def run(bundle: Bundle) -> dict[str, np.ndarray]:
    tensor = np.random.default_rng(0).standard_normal((1, 3, 128, 256), np.float32)
    with open_runtime("onnxruntime", bundle, RuntimeOptions(threads=1)) as runtime:
        return {name: values.copy() for name, values in runtime.infer({"input": tensor}).items()}


def test_the_same_outputs_with_fewer_nodes(bundle_path: Path, tmp_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    found = dense_variants(bundle, tmp_path)
    headers, everything = found
    # five levels of two heads; with them all others of BiFPN, heads and decoder
    assert headers == "dense headers (10)"
    assert int(everything.split("(")[1].rstrip(")")) > 10
    right = run(bundle)
    for name, variant in found.items():
        for role, values in run(variant).items():
            distance = np.linalg.norm(values - right[role]) / np.linalg.norm(right[role])
            assert distance < 1e-5, (name, role)
    kinds = [node.op_type for node in onnx.load(bundle.file(bundle.variants[0].file)).graph.node]
    fewer = [node.op_type for node in onnx.load(found[headers].path).graph.node]
    assert kinds.count("Conv") - fewer.count("Conv") == 10


def pair(*, group: int = 4, kernel: int = 1, middle_is_output: bool = False) -> onnx.ModelProto:
    """A depthwise convolution of four channels without a bias, and another one behind it with one."""
    rng = np.random.default_rng(1)
    weights = {
        "d": rng.standard_normal((4, 4 // group, 3, 3), np.float32),
        "p": rng.standard_normal((2, 4, kernel, kernel), np.float32),
        "b": np.ones(2, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "d"], ["m"], "first", pads=[1] * 4, group=group),
        helper.make_node("Conv", ["m", "p", "b"], ["y"], "second", pads=[kernel // 2] * 4),
    ]
    outputs = [("y", 2), ("m", 4)] if middle_is_output else [("y", 2)]
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 6, 6])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, count, 6, 6]) for name, count in outputs],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (pair(), 1),
        (pair(group=2), 0),  # not depthwise
        (pair(kernel=3), 0),  # not pointwise
        (pair(middle_is_output=True), 0),  # somebody wants what lies between
    ],
)
def test_only_pairs_with_nothing_between_them(model: onnx.ModelProto, count: int) -> None:
    import onnxruntime

    x = np.random.default_rng(2).standard_normal((1, 4, 6, 6), np.float32)

    def result() -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["y"], {"x": x})[0])

    before = result()
    assert merge_separable(model, lambda name: name == "second") == count
    np.testing.assert_allclose(result(), before, rtol=1e-4, atol=1e-4)
    assert merge_separable(model, lambda _: False) == 0
