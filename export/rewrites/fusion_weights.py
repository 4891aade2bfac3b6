"""Weights of the BiFPN's sums inside the convolutions that make the summands.

A node of the BiFPN adds maps with constant weights, ``w_1 x_1 + w_2 x_2``; each x is what a convolution (with its
batch norm folded) makes, used in several sums, some of them enlarged or pooled first. Enlarging, pooling and a border
of zeros commute with a positive factor, and a factor of a convolution's output is one of its weights and bias::

    w U(A x + a) = U(w A x + w a),   w pool(A x + a) = pool(w A x + w a),   w > 0

So one of the uses of a map needs no product any more; the others multiply by the ratio of their weight to that one.
The largest map is chosen, among weights of at least an eighth of the largest, so that ratios stay at most 8 and no
feature shrinks to where half precision loses it. Weights that training has made zero stay where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from export.rewrites.convolutions import attribute, conv_weights
from export.rewrites.editing import GraphEditor
from export.rewrites.max_pool import LOWEST

if TYPE_CHECKING:
    import onnx

__all__ = ["fold_fusion_weights"]

_SMALLEST_SHARE = 1 / 8


class _Use(NamedTuple):
    """A product of a map, possibly enlarged or pooled, with a constant number."""

    node: onnx.NodeProto
    data: str
    weight: float
    elements: int


def fold_fusion_weights(editor: GraphEditor) -> int:
    """See the module. Returns the number of products that went into convolutions."""
    count = 0
    for conv in [node for node in editor.nodes if node.op_type == "Conv"]:
        uses = _uses(editor, conv.output[0])
        chosen = _choose(uses) if uses else None
        if uses and chosen is not None and _scale(editor, conv, chosen.weight):
            count += _divide(editor, uses, chosen.weight)
    return count


def _uses(editor: GraphEditor, name: str) -> list[_Use] | None:
    """All products that a tensor goes into, None where anything else reads it."""
    readers = editor.consumers.get(name, [])
    if name in editor.fixed or not readers:
        return None
    found: list[_Use] = []
    for node in readers:
        use = _product(editor, node, name)
        further = [use] if use is not None else None
        if use is None and _commutes(editor, node, name):
            further = _uses(editor, node.output[0])
        if further is None:
            return None
        found += further
    return found


def _product(editor: GraphEditor, node: onnx.NodeProto, name: str) -> _Use | None:
    if node.op_type != "Mul" or node.output[0] in editor.fixed:
        return None
    factor = editor.array(node.input[1] if node.input[0] == name else node.input[0])
    shape = editor.shape(name)
    if factor is None or factor.size != 1 or factor.ndim > 4 or factor.dtype not in (np.float16, np.float32):
        return None
    weight = float(factor.reshape(()))
    if shape is None or len(shape) != 4 or not np.isfinite(weight) or weight < 0:
        return None
    return _Use(node, name, weight, int(np.prod([size or 1 for size in shape], dtype=np.float64)))


def _commutes(editor: GraphEditor, node: onnx.NodeProto, name: str) -> bool:
    """Whether f(w x) = w f(x) for every w > 0."""
    if len(node.output) != 1 or (node.input[0] != name and node.op_type != "Max"):
        return False
    if node.op_type == "Resize":
        return attribute(node, "coordinate_transformation_mode", b"half_pixel") != b"tf_crop_and_resize"
    if node.op_type == "Pad":
        value = editor.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        return attribute(node, "mode", b"constant") == b"constant" and value is not None and not value.any()
    if node.op_type == "Max" and len(node.input) == 2:  # of `max-pool`: a constant of zeros and the lowest number
        floor = editor.array(node.input[1] if node.input[0] == name else node.input[0])
        return floor is not None and bool(np.isin(floor, (0.0, LOWEST)).all())
    return node.op_type == "MaxPool"


def _choose(uses: list[_Use]) -> _Use | None:
    largest = max(use.weight for use in uses)
    if largest <= 0 or all(use.weight == 1 for use in uses):
        return None
    return max((use for use in uses if use.weight >= largest * _SMALLEST_SHARE), key=lambda use: use.elements)


def _scale(editor: GraphEditor, conv: onnx.NodeProto, factor: float) -> bool:
    """Multiply a convolution's weights and bias."""
    found = conv_weights(editor, conv)
    if found is None:
        return False
    name = conv.name or conv.output[0]
    for index, array in enumerate(found[: len(conv.input) - 1], 1):
        scaled = (array.astype(np.float64) * factor).astype(array.dtype)
        editor.set_input(conv, index, editor.add_constant(scaled, f"{name}_scaled{index}"))
    return True


def _divide(editor: GraphEditor, uses: list[_Use], factor: float) -> int:
    """Leave of each product what the convolution does not do already; the number of products that are gone."""
    gone = 0
    for use in uses:
        if use.weight == factor:
            editor.remove(use.node)
            editor.redirect(use.node.output[0], use.data)
            gone += 1
            continue
        index = 1 if use.node.input[0] == use.data else 0
        kind = editor.array(use.node.input[index])
        assert kind is not None
        ratio = np.full(kind.shape, use.weight / factor, kind.dtype)
        editor.set_input(use.node, index, editor.add_constant(ratio, f"{use.node.name or use.node.output[0]}_ratio"))
    return gone
