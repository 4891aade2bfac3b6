"""Pooling without a border of zeros is pooling with one, and the constant is needed for that at every edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.rewrites import apply_rewrites, max_pool
from tests.export.rewrites.networks import CASES, SMALL, Case, assert_idempotent, changed_by, graph, kinds, run

NAME = "max-pool"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_features_without_borders(case: Case) -> None:
    model = graph(case)
    rewritten, moved = changed_by(model, NAME)
    assert moved < 1e-6  # a comparison rounds nothing
    assert_idempotent(rewritten, NAME)
    before, after = kinds(model), kinds(rewritten)
    assert after.get("Pad", 0) == before["Pad"] - before["MaxPool"]
    assert after["MaxPool"] == after["Max"] == before["MaxPool"]


def _pooling(
    shape: tuple[int, int],
    pads: tuple[int, int, int, int] = (0, 0, 1, 1),
    kernel: int = 3,
    stride: int = 2,
    value: float = 0.0,
    second_reader: bool = False,
    **settings: Any,
) -> onnx.ModelProto:
    """A border, top, left, bottom, right, and a MaxPool; the input is made negative first."""
    top, left, bottom, right = pads
    rows, columns = (
        (size + before + after - kernel) // stride + 1
        for size, before, after in ((shape[0], top, bottom), (shape[1], left, right))
    )
    tensors = {
        "pads": np.array([0, 0, top, left, 0, 0, bottom, right], np.int64),
        "value": np.array(value, np.float32),
        "five": np.array(5.0, np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["input", "five"], ["x"], "sub"),
        helper.make_node("Pad", ["x", "pads", "value"], ["padded"], "pad", mode="constant"),
        helper.make_node(
            "MaxPool", ["padded"], ["y"], "pool", kernel_shape=[kernel] * 2, strides=[stride] * 2, **settings
        ),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, rows, columns])]
    if second_reader:
        wide = [1, 4, shape[0] + top + bottom, shape[1] + left + right]
        outputs.append(helper.make_tensor_value_info("padded", TensorProto.FLOAT, wide))
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, *shape])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 4), (8, 13)], ids=str)
@pytest.mark.parametrize("pads", [(0, 0, 1, 1), (1, 1, 1, 1), (1, 0, 2, 1)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_edge_of_negative_maps(shape: tuple[int, int], pads: tuple[int, int, int, int], stride: int) -> None:
    if min(shape[0] + pads[0] + pads[2], shape[1] + pads[1] + pads[3]) < 3:
        pytest.skip("smaller than the window")
    model = _pooling(shape, pads, stride=stride)
    rewritten, _ = changed_by(model, NAME)
    assert np.array_equal(run(rewritten)["y"], run(model)["y"])


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(_pooling((6, 6), value=-1.0), id="a border of something else"),
        pytest.param(_pooling((6, 6), pads=(3, 0, 0, 0)), id="a window of padding alone"),
        pytest.param(_pooling((6, 6), second_reader=True), id="the border is an output, too"),
        pytest.param(_pooling((6, 6), ceil_mode=1), id="windows that reach over the border"),
    ],
)
def test_what_is_not_the_pattern_stays(model: onnx.ModelProto) -> None:
    same, (report,) = apply_rewrites(model, [NAME])
    assert report.places == 0
    assert same == model


@pytest.mark.parametrize("mutation", ["no zero at the bottom and right", "zero everywhere", "edges off by one"])
def test_broken_algebra_is_seen(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = max_pool._floor

    def wrong(*arguments: Any) -> np.ndarray:
        floor = right(*arguments)
        if mutation == "no zero at the bottom and right":
            return np.full_like(floor, max_pool.LOWEST)
        return np.zeros_like(floor) if mutation == "zero everywhere" else np.roll(floor, 1, axis=(2, 3))

    monkeypatch.setattr(max_pool, "_floor", wrong)
    model = graph(SMALL)
    _, moved = changed_by(model, NAME)
    assert moved > 1e-3


@pytest.mark.parametrize("opset", [11, 20])
def test_every_opset_and_a_constant_that_half_precision_holds(opset: int) -> None:
    rewritten, moved = changed_by(graph(SMALL, opset), NAME)
    assert moved < 1e-6
    floors = [numpy_helper.to_array(t) for t in rewritten.graph.initializer if t.name.endswith("_floor")]
    assert floors
    assert all(np.isfinite(floor.astype(np.float16)).all() for floor in floors)
