"""Each rule finds its violation, names the node, and says nothing about what is exported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from calibration.half import raise_opset, to_half
from calibration.lint import RULES, lint
from calibration.qdq import insert_qdq
from calibration.ranges import measure_ranges
from tests.calibration.nets import frames, mbconv_net


@pytest.fixture(scope="module")
def clean() -> onnx.ModelProto:
    model = mbconv_net()
    return insert_qdq(model, measure_ranges(model, lambda: iter(frames())), "tensorrt")


@pytest.fixture(scope="module")
def strong() -> onnx.ModelProto:
    model = mbconv_net()
    ranges = measure_ranges(model, lambda: iter(frames()))
    made = insert_qdq(model, ranges, "tensorrt")
    return to_half(raise_opset(made), {name: (found.low, found.high) for name, found in ranges.items()}).model


def test_what_is_exported_is_clean(clean: onnx.ModelProto, strong: onnx.ModelProto) -> None:
    assert lint(clean, "weak") == []
    assert lint(strong, "strong") == []


def _node(model: onnx.ModelProto, kind: str, part: str = "") -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == kind and part in node.name)


def _set(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def _activation(model: onnx.ModelProto, kind: str = "QuantizeLinear") -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.op_type == kind and "_weight" not in n.name)


def _no_zero_point(model: onnx.ModelProto) -> str:
    node = _activation(model)
    del node.input[2]
    return node.name


def _computed_scale(model: onnx.ModelProto) -> str:
    node = _activation(model)
    model.graph.node.insert(0, helper.make_node("Identity", [node.input[1]], ["computed"], "identity"))
    node.input[1] = "computed"
    return node.name


def _unsigned(model: onnx.ModelProto) -> str:
    node = _activation(model)
    _set(model, node.input[2], np.array(0, np.uint8))
    return node.name


def _shifted(model: onnx.ModelProto) -> str:
    node = _activation(model)
    _set(model, node.input[2], np.array(5, np.int8))
    return node.name


def _two_zero_points(model: onnx.ModelProto) -> str:
    node = _activation(model)
    _set(model, node.input[2], np.zeros(2, np.int8))
    return node.name


def _scale(value: float) -> Callable[[onnx.ModelProto], str]:
    def spoil(model: onnx.ModelProto) -> str:
        node = _activation(model)
        _set(model, node.input[1], np.array(value, np.float32))
        return node.name

    return spoil


def _per_channel(model: onnx.ModelProto) -> str:
    node = _activation(model)
    _set(model, node.input[1], np.full(16, 0.1, np.float32))
    _set(model, node.input[2], np.zeros(16, np.int8))
    return node.name


def _wrong_axis(model: onnx.ModelProto) -> str:
    node = _node(model, "QuantizeLinear", "_weight")
    next(a for a in node.attribute if a.name == "axis").i = 1
    return node.name


def _no_axis(model: onnx.ModelProto) -> str:
    node = _node(model, "QuantizeLinear", "_weight")
    del node.attribute[:]
    return node.name


def _quantised_bias(model: onnx.ModelProto) -> str:
    conv = next(n for n in model.graph.node if n.op_type == "Conv" and "_expand_conv" in n.name)
    scale, zero = (numpy_helper.from_array(v, n) for v, n in ((np.float32(0.1), "bs"), (np.int32(0), "bz")))
    stored = numpy_helper.from_array(np.ones(32, np.int32), "stored_bias")
    model.graph.initializer.extend([scale, zero, stored])
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["stored_bias", "bs", "bz"], ["float_bias"], "dq"))
    conv.input[2] = "float_bias"
    return conv.name


def _lonely(model: onnx.ModelProto) -> str:
    node = _activation(model)
    reader = next(n for n in model.graph.node if node.output[0] in n.input)
    model.graph.node.append(helper.make_node("Cast", [node.output[0]], ["as_float"], "cast", to=1))
    assert reader.op_type == "DequantizeLinear"
    return node.name


def _other_scale(model: onnx.ModelProto) -> str:
    node = _activation(model)
    reader = next(n for n in model.graph.node if node.output[0] in n.input)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "another"))
    reader.input[1] = "another"
    return node.name


def _integer(model: onnx.ModelProto) -> str:
    node = _node(model, "Conv")
    node.op_type = "ConvInteger"
    return node.name


def _output_of_a_convolution(model: onnx.ModelProto) -> str:
    sigmoid = _node(model, "Sigmoid", "/encoder/_blocks.0/_act/")
    q, dq = _activation(model), _activation(model, "DequantizeLinear")
    made = [
        helper.make_node("QuantizeLinear", [sigmoid.input[0], *q.input[1:]], ["early_q"], "early"),
        helper.make_node("DequantizeLinear", ["early_q", *dq.input[1:]], ["early_dq"], "early_dq"),
    ]
    place = list(model.graph.node).index(sigmoid)
    for node in reversed(made):
        model.graph.node.insert(place, node)
    _node(model, "Sigmoid", "/encoder/_blocks.0/_act/").input[0] = "early_dq"
    return "early"


def _both_addends(model: onnx.ModelProto) -> str:
    add = _node(model, "Add")
    other = next(name for name in add.input if "dequantized" not in name)
    q = _activation(model)
    place = list(model.graph.node).index(add)
    made = [
        helper.make_node("QuantizeLinear", [other, *q.input[1:]], ["second_q"], "second"),
        helper.make_node("DequantizeLinear", ["second_q", *q.input[1:]], ["second_dq"], "second_dq"),
    ]
    for node in reversed(made):
        model.graph.node.insert(place, node)
    add = _node(model, "Add")
    add.input[list(add.input).index(other)] = "second_dq"
    return add.name


def _on_the_branch(model: onnx.ModelProto) -> str:
    """The addition reads the skip as it is, and what its convolution makes through a pair."""
    add = _node(model, "Add", "_blocks.1")
    side = next(index for index, name in enumerate(add.input) if "dequantized" in name)
    dequantise = next(n for n in model.graph.node if n.output[0] == add.input[side])
    quantise = next(n for n in model.graph.node if n.output[0] == dequantise.input[0])
    branch, add.input[side] = add.input[1 - side], quantise.input[0]
    made = [
        helper.make_node("QuantizeLinear", [branch, *quantise.input[1:]], ["branch_q"], "branch"),
        helper.make_node("DequantizeLinear", ["branch_q", *quantise.input[1:]], ["branch_dq"], "branch_dq"),
    ]
    place = list(model.graph.node).index(add)
    for node in reversed(made):
        model.graph.node.insert(place, node)
    add = _node(model, "Add", "_blocks.1")
    add.input[1 - side] = "branch_dq"
    return add.name


def _joined_scales(model: onnx.ModelProto) -> str:
    pairs = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and "_weight" not in n.name][:2]
    model.graph.node.append(helper.make_node("Concat", [n.output[0] for n in pairs], ["joined"], "concat", axis=1))
    return "concat"


def _stored(model: onnx.ModelProto) -> str:
    quantise = _node(model, "QuantizeLinear", "_weight")
    dequantise = next(n for n in model.graph.node if quantise.output[0] in n.input)
    shape = next(t.dims for t in model.graph.initializer if t.name == quantise.input[0])
    model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.int8), "stored"))
    model.graph.node.remove(quantise)
    dequantise.input[0] = "stored"
    return dequantise.name


def _newer(model: onnx.ModelProto) -> str:
    model.opset_import[0].version = 19
    return "graph"


def _half_scale(model: onnx.ModelProto) -> str:
    node = _activation(model)
    _set(model, node.input[1], np.array(0.1, np.float16))
    return node.name


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        ("zero-point-missing", _no_zero_point),
        ("not-constant", _computed_scale),
        ("zero-point-type", _unsigned),
        ("zero-point-not-zero", _shifted),
        ("zero-point-count", _two_zero_points),
        ("scale-value", _scale(0.0)),
        ("scale-value", _scale(-1.0)),
        ("scale-value", _scale(float("nan"))),
        ("scale-value", _scale(float("inf"))),
        ("activation-per-channel", _per_channel),
        ("weight-axis", _wrong_axis),
        ("weight-axis", _no_axis),
        ("bias-quantised", _quantised_bias),
        ("unpaired", _lonely),
        ("unpaired", _other_scale),
        ("integer-operator", _integer),
        ("before-activation", _output_of_a_convolution),
        ("both-addends", _both_addends),
        ("residual-branch", _on_the_branch),
        ("concat-scales", _joined_scales),
        ("stored-weights", _stored),
        ("opset", _newer),
        ("types", _half_scale),
    ],
)
def test_each_rule_finds_its_violation(
    clean: onnx.ModelProto, rule: str, spoil: Callable[[onnx.ModelProto], str]
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(clean)
    name = spoil(model)
    found = lint(model, "weak")
    assert (rule, name) in {(finding.rule, finding.node) for finding in found}
    assert all(str(finding).startswith(finding.rule) and finding.text for finding in found)


def test_every_rule_is_tested_here() -> None:
    (mark,) = [m for m in test_each_rule_finds_its_violation.pytestmark if m.name == "parametrize"]
    assert {rule for rule, _ in mark.args[1]} == set(RULES)


def test_strong_typing_finds_mixed_types_and_an_old_opset(strong: onnx.ModelProto, clean: onnx.ModelProto) -> None:
    mixed = onnx.ModelProto()
    mixed.CopyFrom(strong)
    conv = next(n for n in mixed.graph.node if n.op_type == "Conv" and "_expand_conv" in n.name)
    bias = next(t for t in mixed.graph.initializer if t.name == conv.input[2])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias).astype(np.float32), bias.name))
    assert ("types", conv.name) in {(finding.rule, finding.node) for finding in lint(mixed, "strong")}
    assert {finding.rule for finding in lint(clean, "strong")} == {"opset"}


@pytest.mark.parametrize("kind", ["Add", "Mul", "Sub", "Max", "Pow", "Concat", "Where", "QuantizeLinear"])
def test_strong_typing_finds_mixed_types_of_elementwise_operators(strong: onnx.ModelProto, kind: str) -> None:
    mixed = onnx.ModelProto()
    mixed.CopyFrom(strong)
    half = _node(mixed, "Mul", "_act/Mul").output[0]
    constants = {"whole": np.ones(1, np.float32), "ok": np.ones(1, np.bool_), "zero": np.array(0, np.int8)}
    constants |= {"single": np.array(0.5, np.float32)}
    mixed.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    inputs = {"Where": ["ok", half, "whole"], "QuantizeLinear": [half, "single", "zero"]}.get(kind, [half, "whole"])
    attributes = {"axis": 0} if kind == "Concat" else {}
    mixed.graph.node.append(helper.make_node(kind, inputs, ["made"], "mixed", **attributes))
    (text,) = [finding.text for finding in lint(mixed, "strong") if (finding.rule, finding.node) == ("types", "mixed")]
    assert text == "its inputs are FLOAT and FLOAT16"


@pytest.mark.parametrize("name", ["/encoder/_blocks.0/_project_conv/Conv", "/encoder/_blocks.1/_depthwise_conv/Conv"])
def test_a_convolution_in_fp32_reads_its_weights_through_a_cast(clean: onnx.ModelProto, name: str) -> None:
    half = to_half(raise_opset(clean), {}, keep=[name])
    assert lint(half.model, "strong") == []
    quantise = _node(half.model, "QuantizeLinear", f"{name}_weight")
    next(a for a in quantise.attribute if a.name == "axis").i = 1
    assert [(finding.rule, finding.node) for finding in lint(half.model, "strong")] == [("weight-axis", quantise.name)]


def test_of_two_convolutions_the_pair_belongs_to_the_earlier_one() -> None:
    model = mbconv_net()
    (add,) = [node for node in model.graph.node if node.name == "/encoder/_blocks.1/Add"]
    add.input[0], add.input[1] = "/encoder/_blocks.0/_project_conv/Conv_output_0", add.input[0]
    ranges = measure_ranges(model, lambda: iter(frames(1)))
    made = insert_qdq(model, ranges, "tensorrt")
    assert lint(made, "weak") == []
    # casts around a convolution that stays in FP32 hide neither it nor the pair
    extremes = {name: (found.low, found.high) for name, found in ranges.items()}
    for kept in ("0", "1"):
        half = to_half(raise_opset(made), extremes, keep=[f"/encoder/_blocks.{kept}/_project_conv/Conv", add.name])
        assert lint(half.model, "strong") == []
    # the later convolution in float: the other one is the addition's own now, and the pair is on what it was
    other = insert_qdq(model, ranges, "tensorrt", exclude=["_blocks.1/_project_conv"])
    assert lint(other, "weak") == []
