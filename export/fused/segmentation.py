"""The segmentation output as a map of classes, or as logits before their last enlargement."""

from __future__ import annotations

import numpy as np

from export.rewrites.editing import GraphEditor
from hybridnets.bundle.form import LOWRES_FACTOR
from hybridnets.config import SegMode
from hybridnets.errors import HnxError

__all__ = ["add_class_map", "before_enlargement"]

_NAME = "/pipeline/segmentation"
_OUTPUT = "segmentation"


def add_class_map(editor: GraphEditor, logits: str, seg_mode: SegMode, size: tuple[int, int]) -> None:
    """Make uint8 `segmentation` of float32 logits (N, C, H, W); see `GraphForm`.

    Multiclass: the first channel with the largest logit. Else the sigmoid is at least 0.5 where the logit is at least
    0; comparisons with NaN are false, in the graph as outside.

    Args:
        size: (width, height).
    """
    import onnx

    def bytes_of(values: str, output: str | None = None) -> str:
        # by way of floats: TensorRT converts nothing else to uint8
        floats = editor.add_node("Cast", [values], f"{_NAME}/Floats", to=onnx.TensorProto.FLOAT)
        return editor.add_node("Cast", [floats], f"{_NAME}/Cast", output=output, to=onnx.TensorProto.UINT8)

    if seg_mode == "multiclass":
        bytes_of(editor.add_node("ArgMax", [logits], f"{_NAME}/ArgMax", axis=1, keepdims=0), _OUTPUT)
        return
    zero = editor.add_constant(np.zeros(1, np.float32), f"{_NAME}/zero")
    if editor.opset >= 12:
        on = editor.add_node("GreaterOrEqual", [logits, zero], f"{_NAME}/GreaterOrEqual")
    else:
        above = editor.add_node("Greater", [logits, zero], f"{_NAME}/Greater")
        equal = editor.add_node("Equal", [logits, zero], f"{_NAME}/Equal")
        on = editor.add_node("Or", [above, equal], f"{_NAME}/Or")
    if seg_mode == "multilabel":
        bytes_of(on, _OUTPUT)
        return
    number = bytes_of(on)
    # 0: as it is, the batch
    shape = editor.add_constant(np.array([0, size[1], size[0]], np.int64), f"{_NAME}/shape")
    editor.add_node("Reshape", [number, shape], f"{_NAME}/Reshape", output=_OUTPUT)


def before_enlargement(editor: GraphEditor, logits: str) -> None:
    """Make `segmentation` of what the last enlargement reads.

    Raises:
        HnxError: the logits are not enlarged by 4, linearly and with aligned corners.
    """
    resize = editor.maker(logits, "Resize")
    scales = editor.array(resize.input[2]) if resize is not None and len(resize.input) == 3 else None
    settings = {a.name: a.s for a in resize.attribute} if resize is not None else {}
    if (
        resize is None
        or scales is None
        or scales.tolist() != [1, 1, LOWRES_FACTOR, LOWRES_FACTOR]
        or settings.get("mode") != b"linear"
        or settings.get("coordinate_transformation_mode") != b"align_corners"
    ):
        raise HnxError(
            "This network does not end with an enlargement of its segmentation by 4",
            why="there are no logits before it",
            fix="use --seg logits or classmap, and report this",
        )
    editor.add_node("Identity", [resize.input[0]], f"{_NAME}/Identity", output=_OUTPUT)
