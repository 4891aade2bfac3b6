"""FP16 networks: types, what stays in FP32 and why, overflow that is not silent, and the proof."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.half import HALF_LIMIT, STRONG_OPSET, emulate_half, prove_half, raise_opset, to_half
from hybridnets.errors import ExitCode, HnxError

Array = np.ndarray


def net(*, gain: float = 1.0, opset: int = 17) -> onnx.ModelProto:
    """Two convolutions with Swish between; the first makes values `gain` times larger, the second takes them back."""
    random = np.random.default_rng(0)
    first, second = (random.standard_normal(shape).astype(np.float32) * 0.3 for shape in ((8, 3, 3, 3), (4, 8, 1, 1)))
    tensors = {"first": first * gain, "second": second / gain, "scales": np.array([1, 1, 2, 2], np.float32)}
    nodes = [
        helper.make_node("Conv", ["input", "first"], ["a"], "/first/Conv", pads=[1] * 4),
        helper.make_node("Sigmoid", ["a"], ["s"], "/act/Sigmoid"),
        helper.make_node("Mul", ["a", "s"], ["m"], "/act/Mul"),
        helper.make_node("Conv", ["m", "second"], ["b"], "/second/Conv"),
        helper.make_node("Resize", ["b", "", "scales"], ["output"], "/up/Resize", mode="nearest"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4, 32, 32])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def inputs(count: int = 2) -> list[Array]:
    random = np.random.default_rng(1)
    return [random.standard_normal((1, 3, 16, 16)).astype(np.float32) for _ in range(count)]


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def extremes(model: onnx.ModelProto, name: str) -> tuple[float, float]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = ort.InferenceSession(copy.SerializeToString())
    values = np.concatenate([session.run([name], {"input": x})[0] for x in inputs()])
    return float(values.min()), float(values.max())


def test_everything_between_inputs_and_outputs_is_half() -> None:
    model = net()
    before = model.SerializeToString(deterministic=True)
    half = to_half(model, {})
    assert model.SerializeToString(deterministic=True) == before
    found = kinds(half.model)
    assert (found["input"], found["output"]) == (TensorProto.FLOAT, TensorProto.FLOAT)
    convs = [node for node in half.model.graph.node if node.op_type == "Conv"]
    assert all(found[name] == TensorProto.FLOAT16 for node in convs for name in (*node.input, *node.output))
    assert found["scales"] == TensorProto.FLOAT  # a Resize takes no other
    assert half.kept == {}
    worst = prove_half(model, half, inputs())
    assert 0 < worst["output"].rel_l2 < 2e-3


def test_activations_beyond_the_range_stay_in_fp32_and_are_named() -> None:
    model = net(gain=4e4)
    assert extremes(model, "a")[1] > HALF_LIMIT
    ranges = {name: extremes(model, name) for name in ("a", "s", "m", "b")}
    half = to_half(model, ranges)
    assert {"/first/Conv", "/act/Sigmoid", "/act/Mul", "/second/Conv"} == set(half.kept)
    assert "tensor a reaches" in half.kept["/first/Conv"]
    assert prove_half(model, half, inputs())["output"].rel_l2 < 2e-3
    # handed from one to the next as they are: a cast to FP16 and back would make them infinite
    found = kinds(half.model)
    kept = [node for node in half.model.graph.node if node.name in half.kept]
    assert all(found[node.output[0]] == TensorProto.FLOAT for node in kept)
    assert [node.op_type for node in half.model.graph.node].count("Cast") == 2


def test_without_ranges_the_overflow_is_found_by_the_proof() -> None:
    model = net(gain=4e4)
    half = to_half(model)
    assert half.kept == {}
    assert not half.activations_checked
    with pytest.raises(HnxError, match="is not the FP32 network") as caught:
        prove_half(model, half, inputs())
    assert "inf" in caught.value.why


def test_the_emulation_rounds_every_tensor() -> None:
    emulated = emulate_half(to_half(net(), {}).model)
    assert set(kinds(emulated).values()) <= {TensorProto.FLOAT, TensorProto.FLOAT16}
    (conv,) = [node for node in emulated.graph.node if node.name == "/first/Conv"]
    x = inputs(1)[0]
    copy = onnx.ModelProto()
    copy.CopyFrom(emulated)
    copy.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    (a,) = ort.InferenceSession(copy.SerializeToString(), options).run(["a"], {"input": x})
    np.testing.assert_array_equal(a, a.astype(np.float16).astype(np.float32))
    assert list(conv.output) == ["a_exact"]


def test_weights_beyond_the_range_stay_in_fp32_and_are_named() -> None:
    model = net(gain=1e6)
    half = to_half(model, {})
    assert list(half.kept) == ["/first/Conv"]
    assert "weight first reaches" in half.kept["/first/Conv"]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in half.model.graph.initializer}
    original = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "first")
    np.testing.assert_array_equal(stored["first"], original)  # not cut to 65504


def test_activations_close_to_the_limit_keep_some_headroom() -> None:
    model = net()
    assert set(to_half(model, {"m": (0.0, HALF_LIMIT / 1.5)}).kept) == {"/act/Mul", "/second/Conv"}
    assert to_half(model, {"m": (-HALF_LIMIT / 2.5, 0.0)}).kept == {}
    assert set(to_half(model, {"m": (0.0, float("nan"))}).kept) == {"/act/Mul", "/second/Conv"}


def test_nodes_can_be_kept_by_name() -> None:
    half = to_half(net(), {}, keep=["/second/Conv"])
    assert half.kept == {"/second/Conv": "as asked"}
    assert kinds(half.model)["second"] == TensorProto.FLOAT


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(HnxError, match="Weight first is not finite"):
        to_half(net(gain=float("inf")))


def test_a_wrong_network_and_no_input_are_no_proof() -> None:
    half = to_half(net(), {})
    with pytest.raises(HnxError, match="output 'output' differs") as caught:
        prove_half(net(gain=1.5), half, inputs())
    assert "relative L2" in caught.value.why
    with pytest.raises(HnxError, match="not proved"):
        prove_half(net(), half, [])


def test_opsets_are_raised_without_changing_the_network() -> None:
    model = net()
    raised = raise_opset(model)
    assert raised.opset_import[0].version == STRONG_OPSET
    assert model.opset_import[0].version == 17
    assert raise_opset(raised, 13).opset_import[0].version == STRONG_OPSET
    for x in inputs():
        first, second = (
            ort.InferenceSession(m.SerializeToString()).run(None, {"input": x})[0] for m in (model, raised)
        )
        np.testing.assert_array_equal(first, second)


def test_quantised_graphs_need_a_newer_opset() -> None:
    model = net()
    pair = {"scale": np.array(0.05, np.float32), "zero": np.array(0, np.int8)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in pair.items())
    quantise = helper.make_node("QuantizeLinear", ["m", "scale", "zero"], ["q"], "q")
    model.graph.node.insert(3, quantise)
    model.graph.node.insert(4, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "d"))
    model.graph.node[5].input[0] = "d"
    with pytest.raises(HnxError, match="opset 17") as caught:
        to_half(model, {})
    assert caught.value.code == ExitCode.USAGE
    half = to_half(raise_opset(model), {})
    found = kinds(half.model)
    assert found["scale"] == found["d"] == TensorProto.FLOAT16
    assert found["q"] == TensorProto.INT8
    assert prove_half(model, half, inputs())["output"].rel_l2 < 2e-2
