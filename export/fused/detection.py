"""Boxes in input pixels inside the graph: all of them, or the best after non-maximum suppression.

The arithmetic is that of `hybridnets.postprocess.decode` and `nms`, in the same order of operations. With suppression,
the best scores are chosen first, so that some hundred rows are decoded instead of 46 000.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.rewrites.editing import GraphEditor
from hybridnets.bundle import NmsForm
from hybridnets.errors import ExitCode, HnxError

__all__ = ["add_boxes", "add_detections"]

_NAME = "/pipeline/detection"
_MOST_ANCHORS = 1 << 24
# far from every box that has a size: those are clipped to the picture
_ASIDE = -10000.0


def add_boxes(editor: GraphEditor, anchors: NDArray[np.float32], size: tuple[int, int]) -> None:
    """Make float32 `boxes` (N, A, 4) x1, y1, x2, y2 of `regression` (N, A, 4).

    Args:
        anchors: float32 (1, A, 4) y1, x1, y2, x2.
        size: (width, height).
    """
    sides, centres = _priors(anchors)
    _decode(
        editor,
        "regression",
        editor.add_constant(sides, f"{_NAME}/sides"),
        editor.add_constant(centres, f"{_NAME}/centres"),
        size,
        axis=2,
        output="boxes",
    )


def add_detections(
    editor: GraphEditor, anchors: NDArray[np.float32], size: tuple[int, int], form: NmsForm, classes: int
) -> None:
    """Make float32 `detections` (1, K, 6) of `regression` (1, A, 4) and `classification` (1, A, classes).

    Each anchor is a candidate for its best class. Rows are x1, y1, x2, y2, score, class, best first, then zeros.

    Args:
        anchors: float32 (1, A, 4) y1, x1, y2, x2.
        size: (width, height).

    Raises:
        HnxError: the input is larger than anchors can be counted for (exit code 2).
    """
    count = anchors.shape[1]
    if count > _MOST_ANCHORS:
        raise HnxError(
            f"Boxes of {size[0]}x{size[1]} pixels cannot be suppressed in the graph",
            why=f"{count} anchors cannot be numbered exactly in float32",
            fix="leave --nms out",
            code=ExitCode.USAGE,
        )
    candidates = min(form.candidates, count)
    add = editor.add_node

    def constant(name: str, *values: float, kind: type = np.int64) -> str:
        return editor.add_constant(np.array(values, kind), f"{_NAME}/{name}")

    # the best anchors, in their own order: suppressions settle ties of scores by it
    table = add("Reshape", ["classification", constant("scores_shape", count, classes)], f"{_NAME}/scores")
    best = table
    if classes > 1:
        best = _reduce(editor, "ReduceMax", table, "best_score", keepdims=0)
    else:
        best = add("Reshape", [table, constant("flat", count)], f"{_NAME}/flat_scores")
    chosen = _top(editor, best, candidates, "candidates")
    ordered = _sorted(editor, chosen, candidates)
    scores = add("Gather", [table, ordered], f"{_NAME}/candidate_scores", axis=0)  # (k, classes)
    regression = add("Reshape", ["regression", constant("rows_shape", count, 4)], f"{_NAME}/rows")
    sides, centres = (
        add("Gather", [editor.add_constant(values[0], f"{_NAME}/{name}"), ordered], f"{_NAME}/{name}_rows", axis=0)
        for name, values in zip(("sides", "centres"), _priors(anchors), strict=True)
    )
    rows = add("Gather", [regression, ordered], f"{_NAME}/candidate_rows", axis=0)
    boxes = _decode(editor, rows, sides, centres, size, axis=1)

    solid = add(
        "Reshape", [_solid(editor, boxes, candidates), constant("solid_shape", 1, candidates, 4)], f"{_NAME}/solid"
    )
    numbers, by_class = _by_class(editor, scores, candidates, classes)
    selected = add(
        "NonMaxSuppression",
        [
            solid,
            by_class,
            constant("most", form.boxes),
            constant("iou", form.iou, kind=np.float32),
            constant("conf", form.conf, kind=np.float32),
        ],
        f"{_NAME}/NonMaxSuppression",
    )
    index = add("Gather", [selected, constant("box_column", 2)], f"{_NAME}/selected_boxes", axis=1)
    index = add("Reshape", [index, constant("any", -1)], f"{_NAME}/selected_rows")
    wide = add("Concat", [boxes, numbers], f"{_NAME}/table", axis=1)  # (k, 6)
    kept = add("Gather", [wide, index], f"{_NAME}/kept", axis=0)
    # rows of zeros fill up to K, and go where there are more
    empty = editor.add_constant(np.zeros((form.boxes, 6), np.float32), f"{_NAME}/empty")
    filled = add("Concat", [kept, empty], f"{_NAME}/filled", axis=0)
    if classes > 1:  # selected class by class
        column = add("Gather", [filled, constant("score_column", 4)], f"{_NAME}/kept_scores", axis=1)
        column = add("Reshape", [column, constant("any_scores", -1)], f"{_NAME}/kept_flat")
        order = _top(editor, column, form.boxes, "kept_order")
        final = add("Gather", [filled, order], f"{_NAME}/best", axis=0)
    else:
        ends = [constant("first", 0), constant("last", form.boxes), constant("rows_axis", 0)]
        final = add("Slice", [filled, *ends], f"{_NAME}/best")
    add("Reshape", [final, constant("final", 1, form.boxes, 6)], f"{_NAME}/detections", output="detections")


def _priors(anchors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(1, A, 2) width, height and (1, A, 2) x, y of the centre, in float32 as outside the graph."""
    y1, x1, y2, x2 = np.moveaxis(anchors, -1, 0)
    return np.stack([x2 - x1, y2 - y1], axis=-1), np.stack([(x1 + x2) / 2, (y1 + y2) / 2], axis=-1)


def _decode(
    editor: GraphEditor,
    regression: str,
    sides: str,
    centres: str,
    size: tuple[int, int],
    *,
    axis: int,
    output: str | None = None,
) -> str:
    """Boxes x1, y1, x2, y2 along the last axis (`axis`) of rows ty, tx, th, tw."""
    add = editor.add_node
    places = editor.add_constant(np.array([1, 0], np.int64), f"{_NAME}/places")
    spans = editor.add_constant(np.array([3, 2], np.int64), f"{_NAME}/spans")
    half = editor.add_constant(np.array([0.5], np.float32), f"{_NAME}/half")
    zero = editor.add_constant(np.zeros(2, np.float32), f"{_NAME}/zero")
    last = editor.add_constant(np.array([size[0] - 1, size[1] - 1], np.float32), f"{_NAME}/last")
    offset = add("Gather", [regression, places], f"{_NAME}/offsets", axis=axis)
    span = add("Gather", [regression, spans], f"{_NAME}/logarithms", axis=axis)
    centre = add("Add", [add("Mul", [offset, sides], f"{_NAME}/moved"), centres], f"{_NAME}/centre")
    span = add("Mul", [add("Exp", [span], f"{_NAME}/Exp"), sides], f"{_NAME}/span")
    reach = add("Mul", [span, half], f"{_NAME}/reach")  # by a power of two: exact
    low = add("Max", [add("Sub", [centre, reach], f"{_NAME}/corner1"), zero], f"{_NAME}/clipped1")
    high = add("Min", [add("Add", [centre, reach], f"{_NAME}/corner2"), last], f"{_NAME}/clipped2")
    return add("Concat", [low, high], f"{_NAME}/boxes", output=output, axis=axis)


def _solid(editor: GraphEditor, boxes: str, count: int) -> str:
    """(k, 4) boxes that can be compared: those without a positive size, which overlap nothing, put aside one by one.

    Operators take negative sizes for corners given the other way round, and OpenCV's lets boxes without an area be
    suppressed by any other (13 of 45 on a real frame with weights of an early epoch).
    """
    add = editor.add_node
    corners = []
    for name, columns in (("high", [2, 3]), ("low", [0, 1])):
        index = editor.add_constant(np.array(columns, np.int64), f"{_NAME}/{name}_columns")
        corners.append(add("Gather", [boxes, index], f"{_NAME}/{name}", axis=1))
    least = _reduce(editor, "ReduceMin", add("Sub", corners, f"{_NAME}/extent"), "least_extent", keepdims=1)
    zero = editor.add_constant(np.zeros(1, np.float32), f"{_NAME}/no_extent")
    places = np.stack([_ASIDE - 2 * np.arange(count), np.full(count, _ASIDE)], axis=1)
    aside = editor.add_constant(np.concatenate([places, places + 1], axis=1).astype(np.float32), f"{_NAME}/aside")
    return add("Where", [add("Greater", [least, zero], f"{_NAME}/positive"), boxes, aside], f"{_NAME}/comparable")


def _reduce(editor: GraphEditor, kind: str, values: str, name: str, *, keepdims: int) -> str:
    """Over the second axis; from opset 18 on axes are an input."""
    if editor.opset < 18:
        return editor.add_node(kind, [values], f"{_NAME}/{name}", axes=[1], keepdims=keepdims)
    axes = editor.add_constant(np.array([1], np.int64), f"{_NAME}/{name}_axes")
    return editor.add_node(kind, [values, axes], f"{_NAME}/{name}", keepdims=keepdims)


def _top(editor: GraphEditor, values: str, count: int, name: str) -> str:
    """Indices of the largest of (n,) values, largest first."""
    most = editor.add_constant(np.array([count], np.int64), f"{_NAME}/{name}_count")
    index = editor.unique(f"{_NAME}/{name}_index")
    outputs = [editor.unique(f"{_NAME}/{name}_value"), index]
    editor.insert("TopK", [values, most], f"{_NAME}/{name}", outputs, axis=0, largest=1, sorted=1)
    return index


def _sorted(editor: GraphEditor, index: str, count: int) -> str:
    """(count,) indices in ascending order; sorted as floats, which TensorRT wants and which hold them exactly."""
    import onnx

    most = editor.add_constant(np.array([count], np.int64), f"{_NAME}/ascending_count")
    floats = editor.add_node("Cast", [index], f"{_NAME}/index_floats", to=onnx.TensorProto.FLOAT)
    value = editor.unique(f"{_NAME}/ascending_value")
    outputs = [value, editor.unique(f"{_NAME}/ascending_place")]
    editor.insert("TopK", [floats, most], f"{_NAME}/ascending", outputs, axis=0, largest=0, sorted=1)
    return editor.add_node("Cast", [value], f"{_NAME}/ascending_index", to=onnx.TensorProto.INT64)


def _by_class(editor: GraphEditor, scores: str, candidates: int, classes: int) -> tuple[str, str]:
    """Of scores (k, classes): best score and its class (k, 2), and (1, classes, k) with 0 beside the best class."""
    import onnx

    add = editor.add_node

    def constant(name: str, *values: int) -> str:
        return editor.add_constant(np.array(values, np.int64), f"{_NAME}/{name}")

    if classes == 1:
        zeros = editor.add_constant(np.zeros((candidates, 1), np.float32), f"{_NAME}/class_0")
        numbers = add("Concat", [scores, zeros], f"{_NAME}/numbers", axis=1)
        shape = constant("by_class_shape", 1, 1, candidates)
        return numbers, add("Reshape", [scores, shape], f"{_NAME}/by_class")
    number = add("ArgMax", [scores], f"{_NAME}/class", axis=1, keepdims=1)  # (k, 1)
    own = add("Equal", [number, constant("classes", *range(classes))], f"{_NAME}/own")  # (k, classes)
    zero = editor.add_constant(np.zeros(1, np.float32), f"{_NAME}/no_score")
    alone = add("Where", [own, scores, zero], f"{_NAME}/alone")
    best = _reduce(editor, "ReduceMax", alone, "best_column", keepdims=1)
    floats = add("Cast", [number], f"{_NAME}/class_number", to=onnx.TensorProto.FLOAT)
    turned = add("Transpose", [alone], f"{_NAME}/turned", perm=[1, 0])
    by_class = add("Reshape", [turned, constant("by_class_shape", 1, classes, candidates)], f"{_NAME}/by_class")
    return add("Concat", [best, floats], f"{_NAME}/numbers", axis=1), by_class
