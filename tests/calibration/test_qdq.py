"""The pairs that are written: their numbers, their places, and what the network then computes."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.placement import PLACEMENTS, placement
from calibration.qdq import LEAST_SCALE, activation_scale, channel_scales, insert_qdq, quantise_weight
from calibration.ranges import Range, measure_ranges
from hybridnets.difference import difference
from hybridnets.errors import ExitCode, HnxError
from tests.calibration.nets import frames, mbconv_net, run


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    return mbconv_net(size=32)


@pytest.fixture(scope="module")
def ranges(net: onnx.ModelProto) -> dict[str, Range]:
    return measure_ranges(net, lambda: iter(frames(4, size=32)))


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_network_stays_close_and_the_original_as_it_was(
    net: onnx.ModelProto, ranges: dict[str, Range], name: str
) -> None:
    before = net.SerializeToString(deterministic=True)
    quantised = insert_qdq(net, ranges, name)
    assert net.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(quantised, full_check=True)
    for x in frames(2, size=32, seed=9):
        for found, reference in zip(run(quantised, x), run(net, x), strict=True):
            assert 1e-5 < difference(found, reference).rel_l2 < 0.12


def test_two_runs_write_the_same_file(net: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    first, second = (insert_qdq(net, ranges, "tensorrt").SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_pairs_stand_between_the_activation_and_the_convolution(net: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    quantised = insert_qdq(net, ranges, "openvino")
    nodes = {node.name: node for node in quantised.graph.node}
    makers = {name: node for node in quantised.graph.node for name in node.output}
    conv = nodes["/encoder/_blocks.0/_depthwise_conv/Conv"]
    dequantise = makers[conv.input[0]]
    quantise = makers[dequantise.input[0]]
    assert (dequantise.op_type, quantise.op_type) == ("DequantizeLinear", "QuantizeLinear")
    assert quantise.input[0] == "/encoder/_blocks.0/_act/Mul_output_0"
    assert dequantise.input[1:] == quantise.input[1:]
    # a depthwise convolution reads each channel by a scale of its own, which its filters take up
    values = constants(quantised)
    found = ranges[quantise.input[0]]
    reaches = np.minimum(found.reaches, found.threshold)
    np.testing.assert_allclose(values[quantise.input[1]], reaches / 127, rtol=1e-6)
    assert len(set(reaches)) > 9
    assert [a.i for a in quantise.attribute if a.name == "axis"] == [1]
    assert values[quantise.input[2]].dtype == np.int8
    # what adds channels up has one scale behind it
    dequantise = makers[nodes["/encoder/_blocks.0/_project_conv/Conv"].input[0]]
    assert values[dequantise.input[1]].shape == ()
    assert not dequantise.attribute
    assert values[makers[dequantise.input[0]].input[1]].shape == (32,)
    # bias and squeeze-excite are what they were
    assert conv.input[2] == "/encoder/_blocks.0/_depthwise_conv.bias"
    gate = nodes["/encoder/_blocks.0/_se_reduce/Conv"]
    assert makers[gate.input[0]].op_type == "GlobalAveragePool"


@pytest.mark.parametrize("name", ["tensorrt", "onnxruntime"])
def test_others_take_one_scale_for_an_activation(net: onnx.ModelProto, ranges: dict[str, Range], name: str) -> None:
    """TensorRT refuses more, and ONNX Runtime makes no integer kernel of it."""
    quantised = insert_qdq(net, ranges, name)
    values = constants(quantised)
    made = {output: node for node in quantised.graph.node for output in node.output}
    activations = [
        node for node in quantised.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in made and made[node.input[0]].input[0] in made
    ]  # fmt: skip
    assert activations
    assert all(values[node.input[1]].ndim == 0 for node in activations)


def test_a_tensor_of_both_kinds_of_readers_has_a_pair_for_each(ranges: dict[str, Range], net: onnx.ModelProto) -> None:
    both = onnx.ModelProto()
    both.CopyFrom(net)
    conv = next(node for node in both.graph.node if node.name == "/encoder/_blocks.0/_depthwise_conv/Conv")
    shape = [32, 32, 1, 1]
    weight = numpy_helper.from_array(np.eye(32, dtype=np.float32).reshape(shape), "other.weight")
    both.graph.initializer.append(weight)
    both.graph.node.append(onnx.helper.make_node("Conv", [conv.input[0], "other.weight"], ["other"], "/other/Conv"))
    # something behind it, or it would be a last layer
    both.graph.node.append(onnx.helper.make_node("Conv", ["other", "other.weight"], ["last"], "/last/Conv"))
    both.graph.output.append(onnx.helper.make_tensor_value_info("last", onnx.TensorProto.FLOAT, [1, 32, 16, 16]))
    quantised = insert_qdq(both, {**ranges, "other": ranges[conv.input[0]]}, "openvino")
    pairs = {node.output[0]: node for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
    readers = {node.name: pairs[node.input[0]] for node in quantised.graph.node if node.input[0] in pairs}
    values = constants(quantised)
    assert values[readers[conv.name].input[1]].shape == (32,)
    assert values[readers["/other/Conv"].input[1]].shape == ()


def test_weights_of_two_activations_take_up_the_factors_of_each(net: onnx.ModelProto) -> None:
    """Heads share their weights between levels, of which the channels reach differently far."""
    shared = onnx.ModelProto()
    shared.CopyFrom(net)
    first, second = (f"/encoder/_blocks.{index}/_project_conv" for index in (0, 1))
    for node in shared.graph.node:
        if node.name == f"{second}/Conv":
            node.input[1] = f"{first}.weight"
    ranges = measure_ranges(shared, lambda: iter(frames(3, size=32)))
    quantised = insert_qdq(shared, ranges, "openvino")
    values, nodes = constants(quantised), {node.name: node for node in quantised.graph.node}
    makers = {name: node for node in quantised.graph.node for name in node.output}
    stored = [values[makers[nodes[f"{name}/Conv"].input[1]].input[0]] for name in (first, second)]
    assert (stored[0] != stored[1]).any()
    for x in frames(2, size=32, seed=9):
        for found, reference in zip(run(quantised, x), run(shared, x), strict=True):
            assert difference(found, reference).rel_l2 < 0.12


def test_bias_correction_knows_the_factors(net: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    """What rounded weights add to the mean, and not what the factors do to them."""
    name = "/encoder/_blocks.1/_project_conv"
    before = constants(net)
    quantised = insert_qdq(net, ranges, "openvino", bias_correction=True)
    values, nodes = constants(quantised), {node.name: node for node in quantised.graph.node}
    makers = {output: node for node in quantised.graph.node for output in node.output}
    back, stored = (makers[nodes[f"{name}/Conv"].input[index]] for index in (0, 1))
    factors = values[makers[back.input[0]].input[1]] / values[back.input[1]]
    weight = values[stored.input[0]] * values[stored.input[1]].reshape(-1, 1, 1, 1) / factors.reshape(1, -1, 1, 1)
    tensor = next(node for node in net.graph.node if node.name == f"{name}/Conv").input[0]
    shift = (weight - before[f"{name}.weight"])[:, :, 0, 0] @ np.array(ranges[tensor].means)
    corrected = values[f"{name}/Conv_bias_corrected"]
    np.testing.assert_allclose(corrected, before[f"{name}.bias"] - shift, rtol=1e-4, atol=1e-6)
    assert np.abs(shift).max() > 1e-5


@pytest.mark.parametrize("depthwise", [True, False])
def test_channels_of_unequal_reach_keep_their_steps(depthwise: bool) -> None:
    """A loud channel beside a quiet one: by one scale the quiet one is rounded to nothing."""
    loud, quiet = 10.0, 0.2
    x = np.random.default_rng(0).normal(0, 1, (1, 2, 16, 16)).astype(np.float32)
    x *= np.array([loud, quiet], np.float32).reshape(1, 2, 1, 1) / np.abs(x).max(axis=(0, 2, 3), keepdims=True)
    model = one_convolution(depthwise)
    ranges = measure_ranges(model, lambda: iter([x]))
    errors = {}
    for by_channel in (True, False):
        where = dataclasses.replace(placement("openvino"), channelwise=by_channel, stem=True, last=True)
        (found,) = run(insert_qdq(model, ranges, where), x)
        (reference,) = run(model, x)
        # the output that is made of the quiet channel alone
        errors[by_channel] = np.abs(found - reference)[0, 1].max() / np.abs(reference[0, 1]).max()
    # of 127 steps the quiet channel would have 2.5: it has all of them, or by factors the square root of the rest
    assert errors[True] < (0.02 if depthwise else 0.08)
    assert errors[False] > 0.1


def one_convolution(depthwise: bool) -> onnx.ModelProto:
    """Each output is made of one input; something stands in front, so that what is read is no input of the graph."""
    filters = np.full((2, 1, 3, 3), 0.25) if depthwise else 0.25 * np.eye(2).reshape(2, 2, 1, 1) * np.ones((1, 1, 3, 3))
    weight = numpy_helper.from_array(filters.astype(np.float32), "w")
    nodes = [
        onnx.helper.make_node("Neg", ["input"], ["x"], "/neg"),
        onnx.helper.make_node("Conv", ["x", "w"], ["y"], "/conv", group=2 if depthwise else 1, pads=[1, 1, 1, 1]),
    ]
    shape = [1, 2, 16, 16]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("input", "y")]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("coding", "low", "reaches", "scales", "kind"),
    [
        ("symmetric", -2.54, (2.54, 1.27, 0.0), (0.02, 0.01, 0.02 / 64), np.int8),
        # what the tensor's threshold clips is clipped here, too
        ("symmetric", -9.0, (9.0, 1.27, 1e-9), (0.02, 0.01, 0.02 / 64), np.int8),
        ("unsigned", 0.0, (2.54, 1.27, 0.0), (2.54 / 255, 1.27 / 255, 2.54 / 255 / 64), np.uint8),
        ("unsigned", -0.3, (2.54, 1.27, 0.0), (0.02, 0.01, 0.02 / 64), np.int8),
    ],
)
def test_scales_of_channels(
    coding: str, low: float, reaches: tuple[float, ...], scales: tuple[float, ...], kind: type[np.generic]
) -> None:
    where = dataclasses.replace(placement("openvino"), coding=coding)  # type: ignore[arg-type]
    found = channel_scales(Range(low, 2.54, 2.54, reaches=reaches), where)
    np.testing.assert_allclose(found.scale, scales, rtol=1e-5)
    np.testing.assert_array_equal(found.zero, [0, 0, 0])
    assert (found.scale.dtype, found.zero.dtype) == (np.float32, kind)


def test_weights_are_per_output_channel(net: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    values = constants(net)
    for name, stored in (("openvino", True), ("tensorrt", False)):
        quantised = insert_qdq(net, ranges, name)
        found = constants(quantised)
        makers = {output: node for node in quantised.graph.node for output in node.output}
        (conv,) = [n for n in quantised.graph.node if n.name == "/encoder/_blocks.1/_project_conv/Conv"]
        node = makers[conv.input[1]]
        weight = values["/encoder/_blocks.1/_project_conv.weight"]
        if name == "openvino":
            # the weights take up what channels of the activation were divided by
            back = makers[conv.input[0]]
            factors = found[makers[back.input[0]].input[1]] / found[back.input[1]]
            assert np.exp(np.log(factors).mean()) == pytest.approx(1, rel=1e-5)
            weight = weight * factors.reshape(1, -1, 1, 1)
        assert [a.i for a in node.attribute if a.name == "axis"] == [0]
        np.testing.assert_allclose(found[node.input[1]], np.abs(weight).max(axis=(1, 2, 3)) / 127, rtol=1e-6)
        if stored:
            assert found[node.input[0]].dtype == np.int8
            error = found[node.input[0]] * found[node.input[1]].reshape(-1, 1, 1, 1) - weight
            assert np.abs(error).max() <= found[node.input[1]].max() / 2 + 1e-9
        else:
            assert makers[node.input[0]].op_type == "QuantizeLinear"
            assert makers[node.input[0]].input[0] == "/encoder/_blocks.1/_project_conv.weight"


def test_a_tensor_read_twice_has_one_pair(net: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    quantised = insert_qdq(net, ranges, "tensorrt")  # block 1's input goes to its convolution and to its addition
    pairs = [
        n
        for n in quantised.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0].endswith("blocks.0/Add_output_0")
    ]
    assert len(pairs) == 1
    readers = [n.name for n in quantised.graph.node if f"{pairs[0].input[0]}_dequantized" in n.input]
    assert sorted(readers) == ["/encoder/_blocks.1/Add", "/encoder/_blocks.1/_expand_conv/Conv"]


def test_outputs_are_quantised_for_all_readers(net: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    quantised = insert_qdq(net, ranges, "onnxruntime")
    made = "/encoder/_blocks.0/_expand_conv/Conv_output_0"
    readers = [node.op_type for node in quantised.graph.node if made in node.input]
    assert readers == ["QuantizeLinear"]


@pytest.mark.parametrize(
    ("coding", "low", "high", "threshold", "scale", "zero", "kind"),
    [
        ("symmetric", -0.25, 12.7, 12.7, 0.1, 0, np.int8),
        ("symmetric", -0.25, 50.0, 12.7, 0.1, 0, np.int8),
        ("unsigned", -0.25, 12.7, 12.7, 0.1, 0, np.int8),
        ("unsigned", 0.0, 25.5, 25.5, 0.1, 0, np.uint8),
        ("asymmetric", -5.1, 20.4, 20.4, 0.1, 51, np.uint8),
        ("asymmetric", 1.0, 25.5, 25.5, 0.1, 0, np.uint8),
        ("asymmetric", -25.5, -1.0, 25.5, 0.1, 255, np.uint8),
        ("symmetric", 0.0, 0.0, 0.0, LEAST_SCALE, 0, np.int8),
    ],
)
def test_scales(
    coding: str, low: float, high: float, threshold: float, scale: float, zero: int, kind: type[np.generic]
) -> None:
    where = dataclasses.replace(placement("openvino"), coding=coding)  # type: ignore[arg-type]
    found = activation_scale(Range(low, high, threshold), where)
    assert found.scale == pytest.approx(scale)
    assert found.zero == zero
    assert found.zero.dtype == kind


def test_weights_of_zero_and_tiny_channels_keep_a_scale_above_zero() -> None:
    weight = np.zeros((3, 2, 1, 1), np.float32)
    weight[1] = 1e-30
    weight[2] = [[[-2.54]], [[1.27]]]
    quantised, scales = quantise_weight(weight, 0)
    np.testing.assert_allclose(scales, [LEAST_SCALE, LEAST_SCALE, 0.02])
    np.testing.assert_array_equal(quantised.reshape(3, 2), [[0, 0], [0, 0], [-127, 64]])


def test_bias_correction_restores_the_mean_of_a_pointwise_convolution() -> None:
    net = mbconv_net(size=32, seed=3)
    inputs = frames(6, size=32)
    ranges = measure_ranges(net, lambda: iter(inputs))
    # coarse weights make an error that can be told from rounding: four levels
    tensors = {t.name: t for t in net.graph.initializer}
    name = "/encoder/_blocks.0/_expand_conv.weight"
    weight = numpy_helper.to_array(tensors[name]).copy()
    weight[:, 0] += 40  # the largest weight of every channel: all others get few levels
    tensors[name].CopyFrom(numpy_helper.from_array(weight, name))
    ranges = measure_ranges(net, lambda: iter(inputs))
    only = ["(?<!_blocks.0/_expand_conv)/Conv$"]

    def shift(corrected: bool) -> float:
        # without factors, which would give these weights their levels back
        where = dataclasses.replace(placement("openvino"), channelwise=False)
        quantised = insert_qdq(net, ranges, where, exclude=only, bias_correction=corrected)
        made = "/encoder/_blocks.0/_expand_conv/Conv_output_0"
        means = measure_ranges(quantised, lambda: iter(inputs))[made].means
        return float(np.abs(np.array(means) - np.array(ranges[made].means)).max())

    assert shift(True) < 0.5 * shift(False)  # the rest comes from the rounded input


def test_missing_ranges_old_opsets_and_empty_plans_are_errors(net: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    with pytest.raises(HnxError, match="No range was measured"):
        insert_qdq(net, {}, "openvino")
    with pytest.raises(HnxError, match="Nothing is left") as caught:
        insert_qdq(net, ranges, "openvino", exclude=["Conv"])
    assert caught.value.code == ExitCode.USAGE
    old = onnx.ModelProto()
    old.CopyFrom(net)
    old.opset_import[0].version = 12
    with pytest.raises(HnxError, match="opset 12"):
        insert_qdq(old, ranges, "openvino")
