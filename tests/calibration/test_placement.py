"""What each preset quantises in a network with stem, depthwise convolutions, squeeze-excite, skips and heads."""

from __future__ import annotations

import dataclasses

import onnx
import pytest

from calibration.placement import PLACEMENTS, Placement, Plan, check_exclusions, make_plan, placement
from hybridnets.errors import ExitCode, HnxError
from tests.calibration.nets import mbconv_net

STEM = "/encoder/_conv_stem/Conv"
GATES = [f"/encoder/_blocks.{i}/_se_{kind}/Conv" for i in range(2) for kind in ("reduce", "expand")]
LAST = ["/regressor/header/Conv", "/segmentation_head/segmentation_head.0/Conv"]


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    return mbconv_net()


def names(net: onnx.ModelProto, plan: Plan) -> set[str]:
    return {net.graph.node[number].name for number in plan.nodes}


@pytest.mark.parametrize("name", PLACEMENTS)
def test_presets_leave_stem_gates_and_last_layers_in_float(net: onnx.ModelProto, name: str) -> None:
    plan = make_plan(net, placement(name))
    convs = {node.name for node in net.graph.node if node.op_type == "Conv"}
    assert set(plan.kept) == {STEM, *GATES, *LAST}
    assert names(net, plan) == convs - set(plan.kept)
    assert plan.kept[STEM].startswith("stem")
    assert all(plan.kept[name] == "squeeze-excite" for name in GATES)
    assert all("last layer" in plan.kept[name] for name in LAST)
    assert plan.blocks["encoder/stem"] == (0, 1)
    assert plan.blocks["encoder/stage1"] == (6, 10)
    assert plan.blocks["regressor"] == (1, 2)


@pytest.mark.parametrize(
    ("field", "added"), [("stem", {STEM}), ("gates", set(GATES)), ("last", set(LAST))], ids=["stem", "gates", "last"]
)
def test_each_exclusion_is_an_option(net: onnx.ModelProto, field: str, added: set[str]) -> None:
    base = placement("openvino")
    more = make_plan(net, dataclasses.replace(base, **{field: True}))
    assert names(net, more) - names(net, make_plan(net, base)) == added


def test_inputs_are_quantised_after_the_activation(net: onnx.ModelProto) -> None:
    plan = make_plan(net, placement("openvino"))
    read = {net.graph.node[point.node].name: point.tensor for point in plan.points}
    assert read["/encoder/_blocks.0/_depthwise_conv/Conv"] == "/encoder/_blocks.0/_act/Mul_output_0"
    assert read["/encoder/_blocks.0/_project_conv/Conv"] == "/encoder/_blocks.0/Mul_output_0"
    assert not plan.outputs
    assert all(net.graph.node[point.node].op_type == "Conv" for point in plan.points)


def test_tensorrt_quantises_the_skip_and_not_the_convolution(net: onnx.ModelProto) -> None:
    plan = make_plan(net, placement("tensorrt"))
    adds = {net.graph.node[p.node].name: p.tensor for p in plan.points if net.graph.node[p.node].op_type == "Add"}
    assert adds == {
        "/encoder/_blocks.0/Add": "/encoder/_act/Mul_output_0",
        "/encoder/_blocks.1/Add": "/encoder/_blocks.0/Add_output_0",
    }


def test_of_two_convolutions_the_later_one_stays_float() -> None:
    net = mbconv_net()
    (add,) = [node for node in net.graph.node if node.name == "/encoder/_blocks.1/Add"]
    add.input[0], add.input[1] = "/encoder/_blocks.0/_project_conv/Conv_output_0", add.input[0]
    plan = make_plan(net, placement("tensorrt"))
    skips = {p.tensor for p in plan.points if net.graph.node[p.node].name == add.name}
    assert skips == {"/encoder/_blocks.0/_project_conv/Conv_output_0"}


def test_gate_products_are_an_option(net: onnx.ModelProto) -> None:
    where = dataclasses.replace(placement("tensorrt"), gate_products=True)
    muls = {
        (net.graph.node[point.node].name, point.input)
        for point in make_plan(net, where).points
        if net.graph.node[point.node].op_type == "Mul"
    }
    assert muls == {(f"/encoder/_blocks.{i}/Mul", side) for i in range(2) for side in (0, 1)}


def test_onnxruntime_gets_pairs_on_both_sides(net: onnx.ModelProto) -> None:
    plan = make_plan(net, placement("onnxruntime"))
    made = {net.graph.node[number].output[0] for number in plan.nodes}
    assert set(plan.outputs) == made


def test_narrow_convolutions_stay_float_for_tensorrt(net: onnx.ModelProto) -> None:
    wide = make_plan(net, dataclasses.replace(placement("tensorrt"), least_channels=17))
    left = {name for name, reason in wide.kept.items() if "fewer than 17" in reason}
    # 16 channels on one side; depthwise ones have 16 or 32, multiples of 8, and stay
    assert "/encoder/_blocks.0/_expand_conv/Conv" in left
    assert "/encoder/_blocks.0/_depthwise_conv/Conv" not in left


def test_exclusions_by_name_and_by_block(net: onnx.ModelProto) -> None:
    where = placement("openvino")
    everything = names(net, make_plan(net, where))
    by_name = names(net, make_plan(net, where, exclude=["_depthwise_conv"]))
    assert everything - by_name == {f"/encoder/_blocks.{i}/_depthwise_conv/Conv" for i in range(2)}
    for plan in (
        make_plan(net, where, exclude=["^encoder/stage1$", "regressor"]),
        make_plan(net, where, keep=["encoder/stage1", "regressor"]),
    ):
        assert names(net, plan) == {"/bifpndecoder/seg_p2/conv/Conv"}
        assert plan.blocks["encoder/stage1"] == (0, 10)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"exclude": ["(unclosed"]}, "not a regular expression"),
        ({"exclude": ["no_such_node"]}, "matches no node"),
        ({"exclude": ["Sigmoid"]}, "matches only what stays in floating point anyway"),
        ({"exclude": ["_depthwise_conv", "^encoder/stem$"]}, "'\\^encoder/stem\\$' matches only"),
        ({"exclude": ["_se_reduce"]}, "matches only"),
        ({"keep": ["encoder/stage9"]}, "no block"),
    ],
)
def test_exclusions_that_do_nothing_are_errors(
    net: onnx.ModelProto, arguments: dict[str, list[str]], text: str
) -> None:
    with pytest.raises(HnxError, match=text) as caught:
        make_plan(net, placement("openvino"), **arguments)
    assert caught.value.code == ExitCode.USAGE


def test_an_exclusion_must_matter_to_one_of_the_placements_wanted(net: onnx.ModelProto) -> None:
    openvino, tensorrt = placement("openvino"), placement("tensorrt")
    check_exclusions(net, [openvino, tensorrt], ["/Add$", "encoder/stage1"])
    with pytest.raises(HnxError, match="'/Add\\$' matches only") as caught:
        check_exclusions(net, [openvino], ["/Add$"])
    assert caught.value.why == "quantised are parts of encoder/stage1, regressor, decoder/p2"
    assert caught.value.code == ExitCode.USAGE
    with pytest.raises(HnxError, match="matches only") as caught:
        check_exclusions(net, [], ["encoder/stage1"])
    assert caught.value.why == "nothing would be quantised"


def test_unknown_presets_are_suggested() -> None:
    with pytest.raises(HnxError) as caught:
        placement("openvno")
    assert "did you mean 'openvino'" in caught.value.why
    assert isinstance(placement("TensorRT"), Placement)
