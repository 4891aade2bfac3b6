"""1x1 convolutions of one input side by side: one convolution with all their filters, and a split of its channels.

``A x + a`` and ``B x + b`` are the upper and lower channels of ``[A; B] x + [a; b]``. The input is read once instead of
twice; the BiFPN's first cell projects P4 twice and P5 three times. The encoder's next stage reads P4 as well, but its
convolution is followed by an activation, which runtimes compute inside it: it stays alone.
"""

from __future__ import annotations

import numpy as np

from export.rewrites.convolutions import Pointwise, read_pointwise
from export.rewrites.editing import GraphEditor

__all__ = ["merge_parallel_convolutions"]

_ACTIVATIONS = frozenset(
    {"Sigmoid", "HardSwish", "HardSigmoid", "Relu", "Clip", "LeakyRelu", "Elu", "Tanh", "Softplus"}
)
# from here on the sizes of a Split are an input, before that an attribute
_SPLIT_BY_INPUT = 13


def merge_parallel_convolutions(editor: GraphEditor) -> int:
    """See the module. Returns the number of convolutions that went into another one."""
    groups: dict[str, list[Pointwise]] = {}
    for node in editor.nodes:
        found = read_pointwise(editor, node)
        if found is not None and node.output[0] not in editor.fixed and not _activated(editor, node.output[0]):
            groups.setdefault(node.input[0], []).append(found)
    merged = 0
    for source, group in groups.items():
        if len(group) > 1 and len({part.matrix.dtype for part in group}) == 1:
            _merge(editor, source, group)
            merged += len(group) - 1
    return merged


def _activated(editor: GraphEditor, name: str) -> bool:
    return any(node.op_type in _ACTIVATIONS for node in editor.consumers.get(name, []))


def _merge(editor: GraphEditor, source: str, group: list[Pointwise]) -> None:
    name = f"{group[0].node.name or source}_merged"
    weight = editor.add_constant(np.concatenate([part.matrix for part in group])[:, :, None, None], f"{name}_weight")
    bias = editor.add_constant(np.concatenate([part.bias for part in group]), f"{name}_bias")
    sizes = [len(part.matrix) for part in group]
    editor.remove(*(part.node for part in group))
    joined = editor.add_node("Conv", [source, weight, bias], name, kernel_shape=[1, 1])
    outputs = [part.node.output[0] for part in group]
    if editor.opset < _SPLIT_BY_INPUT:
        editor.insert("Split", [joined], f"{name}_split", outputs, axis=1, split=sizes)
    else:
        lengths = editor.add_constant(np.array(sizes, np.int64), f"{name}_sizes")
        editor.insert("Split", [joined, lengths], f"{name}_split", outputs, axis=1)
