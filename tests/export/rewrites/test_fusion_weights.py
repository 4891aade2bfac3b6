"""Weights of sums inside convolutions: the same sums, with fewer products."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.rewrites import apply_rewrites, fusion_weights
from tests.export.rewrites.networks import CASES, SMALL, Case, assert_idempotent, changed_by, distance, graph, kinds

NAME = "fusion-weights"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_features_with_fewer_products(case: Case) -> None:
    model = graph(case)
    rewritten, moved = changed_by(model, NAME)
    assert moved < 1e-5
    assert_idempotent(rewritten, NAME)
    _, (report,) = apply_rewrites(model, [NAME])
    assert report.places >= 15
    assert kinds(rewritten)["Mul"] == kinds(model)["Mul"] - report.places
    assert {k: n for k, n in kinds(rewritten).items() if k != "Mul"} == {
        k: n for k, n in kinds(model).items() if k != "Mul"
    }


@pytest.mark.parametrize("order", [("max-pool", NAME), (NAME, "max-pool")])
def test_before_and_after_poolings_lose_their_border(order: tuple[str, str]) -> None:
    model = graph(SMALL)
    rewritten = model
    for name in order:
        rewritten, (report,) = apply_rewrites(rewritten, [name])
    assert distance(rewritten, model) < 1e-5
    assert kinds(rewritten)["Mul"] == kinds(changed_by(model, NAME)[0])["Mul"]
    assert report.places > 0


def _sums(
    weights: tuple[float, ...] = (0.5, 0.25, 0.75),
    bias: bool = True,
    between: str = "MaxPool",
    shape: tuple[int, ...] = (),
    **changes: Any,
) -> onnx.ModelProto:
    """y_i = w_i f_i(conv(x)), f enlarging, pooling over a border of zeros, and nothing."""
    generator = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {
        "k": generator.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "s": np.array([1, 1, 2, 2], np.float32),
        "p": np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64),
        "z": np.array(changes.get("border", 0.0), np.float32),
        **{f"w{index}": np.full(shape, value, np.float32) for index, value in enumerate(weights)},
    }
    if bias:
        tensors["b"] = generator.standard_normal(4).astype(np.float32)
    pooling = {"kernel_shape": [3, 3], "strides": [2, 2]} if between == "MaxPool" else {}
    nodes = [
        helper.make_node("Conv", ["x", "k", *(["b"] if bias else [])], ["c"], "conv", kernel_shape=[3, 3]),
        helper.make_node("Resize", ["c", "", "s"], ["u"], "up", mode="nearest"),
        helper.make_node("Pad", ["c", "p", "z"], ["e"], "pad"),
        helper.make_node(between, ["e"], ["d"], "down", **pooling),
        helper.make_node("Mul", ["u", "w0"], ["m0"], "mul0"),
        helper.make_node("Mul", ["w1", "d"], ["m1"], "mul1"),
        helper.make_node("Mul", ["c", "w2"], ["m2"], "mul2"),
        *(helper.make_node("Neg", [f"m{index}"], [f"y{index}"], f"n{index}") for index in range(3)),
    ]
    outputs = ["y0", "y1", "y2", *changes.get("outputs", ())]
    if "more" in changes:
        nodes.append(changes["more"])
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 9, 9])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "c", "h", "w"]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_one_of_three_products_goes(bias: bool, shape: tuple[int, ...]) -> None:
    rewritten, moved = changed_by(_sums(bias=bias, shape=shape), NAME)
    assert moved < 1e-6
    assert kinds(rewritten)["Mul"] == 2
    assert "mul0" not in {node.name for node in rewritten.graph.node}  # that of the largest map
    assert_idempotent(rewritten, NAME)


def test_weights_that_are_zero_or_small_do_not_scale_the_convolution() -> None:
    rewritten, moved = changed_by(_sums((0.01, 0.0, 0.75)), NAME)
    assert moved < 1e-6
    assert {node.name for node in rewritten.graph.node if node.op_type == "Mul"} == {"mul0", "mul1"}
    for model in (_sums((0.0, 0.0, 0.0)), _sums((1.0, 1.0, 1.0))):
        same, (report,) = apply_rewrites(model, [NAME])
        assert (report.places, same) == (0, model)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(_sums((0.5, -0.25, 0.75)), id="pooling does not commute with a negative factor"),
        pytest.param(_sums(border=1.0), id="a border of ones"),
        pytest.param(_sums(between="Sigmoid"), id="a function that is not linear"),
        pytest.param(_sums(outputs=("c",)), id="the map is an output, too"),
        pytest.param(_sums(outputs=("u",)), id="the enlarged map is an output, too"),
        pytest.param(_sums((0.5, float("inf"), 0.75)), id="a weight that is no number"),
        pytest.param(_sums(shape=(4, 1, 1)), id="a weight for each channel"),
        pytest.param(
            _sums(more=helper.make_node("Relu", ["c"], ["r"], "r"), outputs=("r",)), id="another reader of the map"
        ),
    ],
)
def test_what_is_not_the_pattern_stays(model: onnx.ModelProto) -> None:
    same, (report,) = apply_rewrites(model, [NAME])
    assert report.places == 0
    assert same == model


@pytest.mark.parametrize("mutation", ["bias not scaled", "others keep their weight", "a negative factor"])
def test_broken_algebra_is_seen(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if mutation == "bias not scaled":
        weights = fusion_weights.conv_weights
        monkeypatch.setattr(fusion_weights, "conv_weights", lambda *a: (w := weights(*a)) and w[:1])
    elif mutation == "others keep their weight":
        divide = fusion_weights._divide

        def unchanged(editor: Any, uses: list[Any], factor: float) -> int:
            return divide(editor, [use for use in uses if use.weight == factor], factor)

        monkeypatch.setattr(fusion_weights, "_divide", unchanged)
    else:
        scale, divide = fusion_weights._scale, fusion_weights._divide
        monkeypatch.setattr(fusion_weights, "_scale", lambda e, conv, factor: scale(e, conv, -factor))
        monkeypatch.setattr(
            fusion_weights,
            "_divide",
            lambda e, uses, factor: divide(
                e, [u if u.weight == factor else u._replace(weight=-u.weight) for u in uses], factor
            ),
        )
    _, moved = changed_by(graph(SMALL), NAME)
    assert moved > 1e-3
