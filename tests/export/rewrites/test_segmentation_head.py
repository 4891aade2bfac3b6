"""The head folded into the branches gives the same logits, and each of its terms is needed for that."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.rewrites import apply_rewrites, segmentation_head
from tests.export.rewrites.networks import CASES, SMALL, Case, assert_idempotent, changed_by, distance, graph, kinds

NAME = "segmentation-head"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_logits_from_fewer_operations(case: Case) -> None:
    model = graph(case)
    rewritten, moved = changed_by(model, NAME)
    assert moved < 1e-5
    assert_idempotent(rewritten, NAME)
    _, (report,) = apply_rewrites(model, [NAME])
    assert report.after.macs < report.before.macs
    assert report.after.activation_bytes < report.before.activation_bytes
    assert report.after.nodes < report.before.nodes
    # five enlargements of 64 channels became one of C
    assert kinds(rewritten)["Resize"] == kinds(model)["Resize"] - 4
    assert [output.name for output in rewritten.graph.output] == [output.name for output in model.graph.output]


def test_the_input_model_stays_as_it_is() -> None:
    model = graph(SMALL)
    before = model.SerializeToString(deterministic=True)
    apply_rewrites(model, [NAME])
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    "mutation",
    ["without the bias of the branches", "without the bias of the head", "head not composed", "branches swapped"],
)
def test_broken_algebra_is_seen(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bias, merge = segmentation_head._composed_bias, segmentation_head._merged_convolution
    if mutation == "without the bias of the branches":
        monkeypatch.setattr(segmentation_head, "_composed_bias", lambda head, group: 0 * bias(head, group))
    elif mutation == "without the bias of the head":
        fold = segmentation_head._fold
        monkeypatch.setattr(
            segmentation_head, "_fold", lambda e, head, found: fold(e, head._replace(bias=0 * head.bias), found)
        )
    elif mutation == "head not composed":

        def first_rows(editor: Any, head: Any, group: Any, shift: Any, name: str) -> str:
            eye = np.eye(*head.matrix.shape, dtype=np.float32)
            return merge(editor, head._replace(matrix=eye), group, shift, name)

        monkeypatch.setattr(segmentation_head, "_merged_convolution", first_rows)
    else:

        def swapped(editor: Any, head: Any, group: Any, shift: Any, name: str) -> str:
            matrices = [branch.conv.matrix for branch in group][::-1]
            mixed = [b._replace(conv=b.conv._replace(matrix=m)) for b, m in zip(group, matrices, strict=True)]
            return merge(editor, head, mixed, shift, name)

        monkeypatch.setattr(segmentation_head, "_merged_convolution", swapped)
    _, moved = changed_by(graph(SMALL), NAME)
    assert moved > 1e-3


def _decoder(
    mode: str = "linear", pads: bool = False, classes: int = 2, second_reader: bool = False
) -> onnx.ModelProto:
    """head(up(P1 a) + up(P2 b) + P3 c) on a few channels."""
    generator = np.random.default_rng(0)
    weights = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in {
            "p1": (8, 4, 1, 1),
            "p2": (8, 4, 1, 1),
            "p3": (8, 4, 1, 1),
            "h": (classes, 8, 1, 1),
            "b1": (8,),
            "bh": (classes,),
        }.items()
    }
    weights["s"] = np.array([1, 1, 2, 2], np.float32)
    resize: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "align_corners"}
    if pads:
        resize["coordinate_transformation_mode"] = "tf_crop_and_resize"
    roi = ["roi"] if pads else [""]
    weights["roi"] = np.array([0, 0, 0, 0, 1, 1, 1.5, 1.5], np.float32)
    nodes = [
        helper.make_node("Conv", ["a", "p1", "b1"], ["pa"], "c1"),
        helper.make_node("Conv", ["b", "p2"], ["pb"], "c2"),
        helper.make_node("Conv", ["c", "p3", "b1"], ["pc"], "c3"),
        helper.make_node("Resize", ["pa", *roi, "s"], ["ua"], "u1", **resize),
        helper.make_node("Resize", ["pb", *roi, "s"], ["ub"], "u2", **resize),
        helper.make_node("Add", ["ua", "ub"], ["s1"], "a1"),
        helper.make_node("Add", ["pc", "s1"], ["s2"], "a2"),
        helper.make_node("Conv", ["s2", "h", "bh"], ["y"], "head"),
    ]
    outputs = ["y", "s1"] if second_reader else ["y"]
    shapes = {"a": [1, 4, 3, 5], "b": [1, 4, 3, 5], "c": [1, 4, 6, 10]}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    results = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [1, weights["h" if name == "y" else "p1"].shape[0], 6, 10]
        )
        for name in outputs
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "g", infos, results, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_every_interpolation_whose_weights_sum_to_one(mode: str) -> None:
    model = _decoder(mode)
    rewritten, moved = changed_by(model, NAME)
    assert moved < 1e-6
    assert kinds(rewritten) == {"Conv": 2, "Concat": 1, "Resize": 1, "Add": 1}


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(_decoder(pads=True), id="an enlargement that pads does not keep constants"),
        pytest.param(_decoder(classes=8), id="no fewer channels behind the head"),
        pytest.param(_decoder(second_reader=True), id="the sum is an output, too"),
        pytest.param(_decoder("cubic"), id="a mode nobody proved"),
    ],
)
def test_what_is_not_the_pattern_stays(model: onnx.ModelProto) -> None:
    rewritten, (report,) = apply_rewrites(model, [NAME])
    assert report.places == 0
    assert distance(rewritten, model) == 0


def test_different_enlargements_are_not_added_before_them() -> None:
    model = _decoder()
    for attribute in next(node for node in model.graph.node if node.name == "u2").attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = b"half_pixel"
    rewritten, moved = changed_by(model, NAME)
    assert moved < 1e-6
    assert kinds(rewritten)["Resize"] == 2
