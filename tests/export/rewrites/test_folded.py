"""After all rewrites nothing stands behind a convolution that its weights and bias could do as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.rewrites import REWRITES, apply_rewrites
from export.rewrites.editing import GraphEditor
from tests.export.rewrites.networks import CASES, Case, graph


def foldable(model: onnx.ModelProto) -> list[str]:
    """Batch norms, and sums and products of a convolution's result, which nothing else reads, with a constant that has
    one value, or one for each channel."""
    editor = GraphEditor(model)
    found = [node.name for node in editor.nodes if node.op_type == "BatchNormalization"]
    for node in editor.nodes:
        if node.op_type not in ("Mul", "Div", "Add", "Sub"):
            continue
        for data, other in (node.input, reversed(node.input)):
            conv, constant = editor.private_maker(data, "Conv", "ConvTranspose"), editor.array(other)
            if conv is not None and constant is not None and _by_channel(constant):
                found.append(node.name)
    return found


def _by_channel(constant: np.ndarray) -> bool:
    shape = (1,) * (4 - constant.ndim) + constant.shape
    return constant.size == 1 or (len(shape) == 4 and constant.size == shape[1])


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_nothing_is_left_to_fold(case: Case) -> None:
    rewritten, _ = apply_rewrites(graph(case), tuple(REWRITES))
    assert foldable(rewritten) == []


def test_nothing_is_left_to_fold_in_a_bundle(bundle_path: Path) -> None:
    assert foldable(onnx.load(bundle_path / "hybridnets_128x256.onnx")) == []


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("Mul", (), True),
        ("Add", (4, 1, 1), True),
        ("Sub", (1, 4, 1, 1), True),
        ("Mul", (5, 5), False),  # another value at each pixel
        ("Relu", None, False),
        ("BatchNormalization", (4,), True),
    ],
    ids=str,
)
@pytest.mark.parametrize("second_reader", [False, True])
def test_what_counts(kind: str, shape: tuple[int, ...] | None, expected: bool, second_reader: bool) -> None:
    tensors = {"w": np.ones((4, 3, 1, 1), np.float32)}
    if shape is not None:
        tensors["c"] = np.full(shape, 2, np.float32)
    constants = ["c"] * (4 if kind == "BatchNormalization" else 1 if shape is not None else 0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], "conv"),
        helper.make_node(kind, ["y", *constants], ["z"], "behind"),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 5, 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("z", "y")[: 1 + second_reader]],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wanted = expected and (not second_reader or kind == "BatchNormalization")
    assert foldable(model) == (["behind"] if wanted else [])
