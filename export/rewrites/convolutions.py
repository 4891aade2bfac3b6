"""Reading and composing convolutions, for the passes that merge them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.rewrites.editing import GraphEditor

if TYPE_CHECKING:
    import onnx

__all__ = ["Pointwise", "attribute", "conv_weights", "is_plain_1x1", "read_pointwise"]


class Pointwise(NamedTuple):
    """y = matrix x + bias at each pixel.

    Attributes:
        matrix: (out, in).
        bias: (out,), zeros where the node has none.
    """

    node: onnx.NodeProto
    matrix: NDArray[np.floating[Any]]
    bias: NDArray[np.floating[Any]]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute."""
    import onnx

    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def conv_weights(
    editor: GraphEditor, node: onnx.NodeProto
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]] | None:
    """Constant (out, in/group, ...) weight and (out,) bias of a Conv, or None."""
    weight = editor.array(node.input[1])
    if weight is None or weight.dtype not in (np.float32, np.float64, np.float16):
        return None
    if len(node.input) < 3 or not node.input[2]:
        return weight, np.zeros(weight.shape[0], weight.dtype)
    bias = editor.array(node.input[2])
    return None if bias is None else (weight, bias)


def is_plain_1x1(node: onnx.NodeProto, weight_shape: tuple[int, ...]) -> bool:
    """A convolution that is a matrix at each pixel: 1x1, one group, no stride, no padding."""
    return (
        len(weight_shape) == 4
        and weight_shape[2:] == (1, 1)
        and attribute(node, "group", 1) == 1
        and not any(attribute(node, "pads", ()))
        and all(step == 1 for step in attribute(node, "strides", ()))
        and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    )


def read_pointwise(editor: GraphEditor, node: onnx.NodeProto | None) -> Pointwise | None:
    """A Conv as matrix and bias, if it is a plain 1x1 one with constant weights."""
    if node is None or node.op_type != "Conv":
        return None
    found = conv_weights(editor, node)
    if found is None or not is_plain_1x1(node, found[0].shape):
        return None
    return Pointwise(node, found[0][:, :, 0, 0], found[1])
