"""The pairs that are written: their numbers, their places, and what the network then computes."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.placement import PLACEMENTS, placement
from calibration.qdq import LEAST_SCALE, activation_scale, insert_qdq, quantise_weight
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
    values = constants(quantised)
    found = ranges[quantise.input[0]]
    assert values[quantise.input[1]] == pytest.approx(found.threshold / 127)
    assert values[quantise.input[2]].dtype == np.int8
    # bias and squeeze-excite are what they were
    assert conv.input[2] == "/encoder/_blocks.0/_depthwise_conv.bias"
    gate = nodes["/encoder/_blocks.0/_se_reduce/Conv"]
    assert makers[gate.input[0]].op_type == "GlobalAveragePool"


def test_weights_are_per_output_channel(net: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    values = constants(net)
    for name, stored in (("openvino", True), ("tensorrt", False)):
        quantised = insert_qdq(net, ranges, name)
        found = constants(quantised)
        makers = {output: node for node in quantised.graph.node for output in node.output}
        (conv,) = [n for n in quantised.graph.node if n.name == "/encoder/_blocks.1/_project_conv/Conv"]
        node = makers[conv.input[1]]
        weight = values["/encoder/_blocks.1/_project_conv.weight"]
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
        quantised = insert_qdq(net, ranges, "openvino", exclude=only, bias_correction=corrected)
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
