"""The gate of squeeze-and-excitation as a clipped convolution, in networks of hard activations.

``hard_sigmoid(z) = clip(alpha z + beta, 0, 1)`` with ``z = A x + a`` from a convolution that nothing else reads is::

    clip((alpha A) x + (alpha a + beta), 0, 1)

Every runtime computes a clip inside the convolution before it. OpenVINO 2026.4 has no fused HardSigmoid: each of the
26 gates of coefficient 3 was a node of its own between two changes of layout (docs/rewrites.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.rewrites.convolutions import attribute, conv_weights
from export.rewrites.editing import GraphEditor

if TYPE_CHECKING:
    import onnx

__all__ = ["clip_hard_sigmoids"]


def clip_hard_sigmoids(editor: GraphEditor) -> int:
    """See the module. Returns the number of gates."""
    gates = [node for node in editor.nodes if node.op_type == "HardSigmoid"]
    limits: list[str] = []
    count = 0
    for gate in gates:
        conv = editor.private_maker(gate.input[0], "Conv")
        if conv is None or not _rescale(editor, conv, float(attribute(gate, "alpha", 0.2)), _beta(gate)):
            continue
        weight = editor.array(conv.input[1])
        assert weight is not None
        if not limits:
            limits = [editor.add_constant(np.array(v, weight.dtype), f"gate_{v:.0f}") for v in (0.0, 1.0)]
        name = gate.name or gate.output[0]
        editor.remove(gate)
        editor.add_node("Clip", [gate.input[0], *limits], f"{name}_clip", output=gate.output[0])
        count += 1
    return count


def _beta(gate: onnx.NodeProto) -> float:
    return float(attribute(gate, "beta", 0.5))


def _rescale(editor: GraphEditor, conv: onnx.NodeProto, alpha: float, beta: float) -> bool:
    """Let a convolution give alpha z + beta instead of z."""
    found = conv_weights(editor, conv)
    if found is None:
        return False
    name = conv.name or conv.output[0]
    weight, bias = (array.astype(np.float64) for array in found)
    names = [
        editor.add_constant((alpha * weight).astype(found[0].dtype), f"{name}_gate_weight"),
        editor.add_constant((alpha * bias + beta).astype(found[1].dtype), f"{name}_gate_bias"),
    ]
    for index, constant in enumerate(names, 1):
        editor.set_input(conv, index, constant)
    return True
