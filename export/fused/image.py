"""The letterboxed canvas as input: uint8 (N, H, W, 3) BGR, normalised inside the graph.

With x = v / (255 std) - mean / std the first convolution sees, for a channel c, W_c x_c = W_c / (255 std_c) (v_c - 255
mean_c). So the order of the channels and the factor go into its weights, and one subtraction is left: it cannot go into
the bias, because the convolution pads with zeros of x, which are 255 mean in v. Where several nodes or another kind of
node read the image (some timm backbones), channels are swapped and scaled in the graph.

v - 255 mean is rounded once where (v / 255 - mean) / std is rounded three times; the proof shows what is left of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.rewrites.convolutions import attribute, conv_weights
from export.rewrites.editing import GraphEditor
from hybridnets.errors import HnxError

if TYPE_CHECKING:
    import onnx

__all__ = ["take_canvas"]

_NAME = "/pipeline/input"


def take_canvas(editor: GraphEditor, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
    """Let the graph take the canvas instead of the normalised image; see the module.

    Args:
        size: (width, height).

    Raises:
        HnxError: nothing reads the image.
    """
    import onnx

    image = editor.model.graph.input[0]
    readers = list(editor.consumers.get(image.name, []))
    if not readers:
        raise HnxError("This graph reads no image", fix="export without --input uint8, and report this")
    width, height = size
    batch = image.type.tensor_type.shape.dim[0]
    shape = [batch.dim_param or batch.dim_value, height, width, 3]
    image.CopyFrom(onnx.helper.make_tensor_value_info(image.name, onnx.TensorProto.UINT8, shape))

    # TensorRT takes uint8 into nothing but a Cast; on CPUs the other order is no faster
    pixels = editor.add_node("Cast", [image.name], f"{_NAME}/Cast", to=onnx.TensorProto.FLOAT)
    floats = editor.add_node("Transpose", [pixels], f"{_NAME}/Transpose", perm=[0, 3, 1, 2])
    level = 255 * np.asarray(mean, np.float64)
    scale = 1 / (255 * np.asarray(std, np.float64))
    if _fold(editor, readers, scale):
        centred = editor.add_node("Sub", [floats, _channels(editor, level[::-1], "level")], f"{_NAME}/Sub")
    else:
        order = editor.add_constant(np.array([2, 1, 0], np.int64), f"{_NAME}/order")
        colours = editor.add_node("Gather", [floats, order], f"{_NAME}/Gather", axis=1)
        shifted = editor.add_node("Sub", [colours, _channels(editor, level, "level")], f"{_NAME}/Sub")
        centred = editor.add_node("Mul", [shifted, _channels(editor, scale, "scale")], f"{_NAME}/Mul")
    for node in readers:
        for index, name in enumerate(node.input):
            if name == image.name:
                editor.set_input(node, index, centred)


def _channels(editor: GraphEditor, values: NDArray[np.float64], name: str) -> str:
    return editor.add_constant(values.astype(np.float32).reshape(1, 3, 1, 1), f"{_NAME}/{name}")


def _fold(editor: GraphEditor, readers: Sequence[onnx.NodeProto], scale: NDArray[np.float64]) -> bool:
    """Put the order of the channels and the scale into the convolution that alone reads the image, if there is one."""
    node = readers[0] if len(readers) == 1 else None
    if node is not None and node.op_type == "Pad" and _pads_with_zeros(editor, node):
        node = editor.only_reader(node.output[0])
    if node is None or node.op_type != "Conv" or attribute(node, "group", 1) != 1:
        return False
    found = conv_weights(editor, node)
    if found is None or found[0].shape[1] != 3:
        return False
    weight = found[0].astype(np.float64) * scale[None, :, None, None]
    name = editor.add_constant(weight[:, ::-1].astype(found[0].dtype), f"{_NAME}/{node.input[1]}")
    editor.set_input(node, 1, name)
    return True


def _pads_with_zeros(editor: GraphEditor, node: onnx.NodeProto) -> bool:
    value = editor.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    return attribute(node, "mode", b"constant") == b"constant" and value is not None and not value.any()
