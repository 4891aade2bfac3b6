"""Take the segmentation head inside: through the sum, the enlargement, and into the last 1x1 of each branch.

The decoder ends as ``head(sum_i up(P_i x_i + b_i) + P_2 x_2 + b_2)`` with ``head(y) = H y + h``: 64 channels are
enlarged, added and only then reduced to C = 1 to 3 classes. An interpolation ``up`` acts on each channel alone, is
linear, and its weights sum to one, so for matrices over channels ``H up(x) = up(H x)`` and ``up(x + b) = up(x) + b``.
Hence::

    head(...) = up(sum_i (H P_i) x_i + H sum_i b_i) + (H P_2) x_2 + H b_2 + h

Branches that are enlarged in the same way are added before one common enlargement, on C channels. The sum of 1x1
convolutions is itself one 1x1 convolution over the branches' channels side by side.

Coefficient 3 at 640x384: 0.14 of 8.50 GMAC and 64 -> 3 channels in the largest additions (docs/rewrites.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from export.rewrites.convolutions import Pointwise, attribute, read_pointwise
from export.rewrites.editing import GraphEditor

if TYPE_CHECKING:
    import onnx

__all__ = ["fold_segmentation_head"]


class _Branch(NamedTuple):
    conv: Pointwise
    resize: onnx.NodeProto | None


def fold_segmentation_head(editor: GraphEditor) -> int:
    """See the module. Returns the number of heads folded."""
    count = 0
    for node in list(editor.nodes):
        head = read_pointwise(editor, node)
        if head is None or head.matrix.shape[0] >= head.matrix.shape[1]:
            continue
        additions: list[onnx.NodeProto] = []
        leaves = _summands(editor, node.input[0], additions)
        branches = [_branch(editor, name) for name in leaves]
        found = [branch for branch in branches if branch is not None]
        if additions and len(found) == len(leaves) and any(branch.resize for branch in found):
            _fold(editor, head, found)
            editor.remove(*additions)
            count += 1
    return count


def _summands(editor: GraphEditor, name: str, additions: list[onnx.NodeProto]) -> list[str]:
    """What is added up to a tensor, through sums that nothing else reads; the sums are put into `additions`."""
    node = editor.private_maker(name, "Add")
    if node is None or editor.shape(node.input[0]) != editor.shape(node.input[1]) or not editor.shape(node.input[0]):
        return [name]
    additions.append(node)
    return [leaf for read in node.input for leaf in _summands(editor, read, additions)]


def _branch(editor: GraphEditor, name: str) -> _Branch | None:
    resize = editor.private_maker(name, "Resize")
    if resize is not None:
        if not _commutes(editor, resize):
            return None
        name = resize.input[0]
    conv = read_pointwise(editor, editor.private_maker(name, "Conv"))
    return None if conv is None else _Branch(conv, resize)


def _commutes(editor: GraphEditor, resize: onnx.NodeProto) -> bool:
    """Whether a Resize interpolates linearly over the two spatial axes with weights that sum to one."""
    scales = editor.array(resize.input[2]) if len(resize.input) == 3 and resize.input[2] else None
    return (
        scales is not None
        and scales.shape == (4,)
        and scales[:2].tolist() == [1, 1]
        and attribute(resize, "mode", b"nearest") in (b"linear", b"nearest")
        and attribute(resize, "coordinate_transformation_mode", b"half_pixel") != b"tf_crop_and_resize"  # pads
        and not attribute(resize, "axes")
    )


def _fold(editor: GraphEditor, head: Pointwise, branches: list[_Branch]) -> None:
    name = head.node.name or "head"
    groups: dict[tuple[object, ...], list[_Branch]] = {}
    for branch in branches:
        groups.setdefault(_enlargement(editor, branch), []).append(branch)
    parts: list[str] = []
    editor.remove(head.node)
    for index, group in enumerate(groups.values()):
        bias = _composed_bias(head, group)
        if index == 0:
            bias = bias + head.bias
        part = _merged_convolution(editor, head, group, bias, f"{name}_folded{index}")
        resize = group[0].resize
        if resize is not None:
            settings = {a.name: attribute(resize, a.name) for a in resize.attribute}
            part = editor.add_node("Resize", [part, *resize.input[1:]], f"{name}_folded{index}_resize", **settings)
        parts.append(part)
    for index, part in enumerate(parts[1:], 1):
        last = index == len(parts) - 1
        output = head.node.output[0] if last else None
        parts[0] = editor.add_node("Add", [parts[0], part], f"{name}_sum{index}", output=output)
    if len(parts) == 1:
        editor.producers[parts[0]].output[0] = head.node.output[0]
        editor.producers[head.node.output[0]] = editor.producers.pop(parts[0])
    editor.remove(*(branch.conv.node for branch in branches))
    editor.remove(*(branch.resize for branch in branches if branch.resize is not None))


def _enlargement(editor: GraphEditor, branch: _Branch) -> tuple[object, ...]:
    """Branches of the same key are enlarged by the same linear map."""
    if branch.resize is None:
        return ()
    scales = editor.array(branch.resize.input[2])
    assert scales is not None
    settings = sorted((a.name, str(attribute(branch.resize, a.name))) for a in branch.resize.attribute)
    return (editor.shape(branch.resize.input[0]), tuple(scales.tolist()), *settings)


def _composed_bias(head: Pointwise, group: list[_Branch]) -> np.ndarray:
    return head.matrix.astype(np.float64) @ sum(branch.conv.bias.astype(np.float64) for branch in group)


def _merged_convolution(editor: GraphEditor, head: Pointwise, group: list[_Branch], bias: np.ndarray, name: str) -> str:
    """sum_i (H P_i) x_i + bias as one 1x1 convolution over the inputs side by side."""
    kind = head.matrix.dtype
    matrix = np.concatenate([head.matrix.astype(np.float64) @ b.conv.matrix.astype(np.float64) for b in group], axis=1)
    weight = editor.add_constant(matrix[:, :, None, None].astype(kind), f"{name}_weight")
    shift = editor.add_constant(bias.astype(kind), f"{name}_bias")
    inputs = [branch.conv.node.input[0] for branch in group]
    joined = inputs[0] if len(inputs) == 1 else editor.add_node("Concat", inputs, f"{name}_concat", axis=1)
    return editor.add_node("Conv", [joined, weight, shift], name, kernel_shape=[1, 1])
