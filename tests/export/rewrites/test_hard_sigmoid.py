"""Hard sigmoids behind convolutions as clips of rescaled convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.rewrites import apply_rewrites, hard_sigmoid
from tests.export.rewrites.networks import CASES, Case, assert_idempotent, changed_by, distance, graph, kinds

NAME = "hard-sigmoid"
HARD = CASES[1]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_gate_of_networks_with_hard_activations(case: Case) -> None:
    model = graph(case)
    if case[-1] == "swish":
        same, (report,) = apply_rewrites(model, [NAME])
        assert (report.places, same) == (0, model)
        return
    rewritten, moved = changed_by(model, NAME)
    assert moved < 1e-5
    assert_idempotent(rewritten, NAME)
    assert kinds(model)["HardSigmoid"] == kinds(rewritten)["Clip"] == 16
    assert "HardSigmoid" not in kinds(rewritten)


@pytest.mark.parametrize("opset", [11, 20])
def test_every_opset(opset: int) -> None:
    _, moved = changed_by(graph(HARD, opset), NAME)
    assert moved < 1e-5


def _gate(bias: bool = True, second_reader: bool = False, behind: str = "Conv", **settings: float) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weights = {"k": 3 * generator.standard_normal((4, 3, 1, 1)).astype(np.float32)}
    if bias:
        weights["b"] = generator.standard_normal(4).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k", *(["b"] if bias else [])], ["c"], "conv"),
        helper.make_node("HardSigmoid", ["c" if behind == "Conv" else "x"], ["y"], "gate", **settings),
    ]
    outputs = ["y", "c"] if second_reader or behind != "Conv" else ["y"]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 5, 7])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "c", "h", "w"]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("settings", [{}, {"alpha": 1 / 6, "beta": 0.5}, {"alpha": -0.3, "beta": 0.1}], ids=str)
def test_any_slope_and_shift(bias: bool, settings: dict[str, float]) -> None:
    rewritten, moved = changed_by(_gate(bias, **settings), NAME)
    assert moved < 1e-6
    assert kinds(rewritten) == {"Conv": 1, "Clip": 1}
    assert_idempotent(rewritten, NAME)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(_gate(second_reader=True), id="the convolution has another reader, as in HardSwish"),
        pytest.param(_gate(behind="input"), id="no convolution before it"),
    ],
)
def test_what_is_not_the_pattern_stays(model: onnx.ModelProto) -> None:
    same, (report,) = apply_rewrites(model, [NAME])
    assert report.places == 0
    assert distance(same, model) == 0


@pytest.mark.parametrize("mutation", ["without the shift", "without the slope", "bias not scaled"])
def test_broken_algebra_is_seen(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, weights = hard_sigmoid._rescale, hard_sigmoid.conv_weights
    if mutation == "bias not scaled":

        def undone(*arguments: Any) -> Any:
            weight, bias = weights(*arguments)
            return weight, 6 * bias

        monkeypatch.setattr(hard_sigmoid, "conv_weights", undone)
    else:
        wrong = {"without the shift": (None, 0.0), "without the slope": (1.0, None)}[mutation]
        monkeypatch.setattr(
            hard_sigmoid,
            "_rescale",
            lambda e, conv, *values: right(
                e, conv, *(v if w is None else w for v, w in zip(values, wrong, strict=True))
            ),
        )
    _, moved = changed_by(graph(HARD), NAME)
    assert moved > 1e-3
