"""Outputs as a trained network gives them, for proofs that must not depend on what weights find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = ["boxes_alone", "busy_street"]

_CANDIDATES, _OBJECTS = 500, 75


def boxes_alone(model: onnx.ModelProto, raw: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """The part of a fused graph that makes boxes, as a graph of its own that reads raw outputs of these shapes."""
    import onnx

    part = onnx.ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    nodes = [node for node in graph.node if node.name.startswith("/pipeline/detection/")]
    read = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    outputs = [value for value in graph.output if value.name in ("boxes", "detections")]
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        for name, array in raw.items()
        if name in read
    ]
    graph.CopyFrom(onnx.helper.make_graph(nodes, "boxes", inputs, outputs, constants))
    return part


def busy_street(anchors: NDArray[np.float32], target: tuple[int, int], classes: int) -> dict[str, NDArray[np.float32]]:
    """`regression` and `classification` with 500 anchors on 75 objects, some beyond the picture's edges."""
    random = np.random.default_rng(5)
    prior = anchors.reshape(-1, 4).astype(np.float64)
    count = len(prior)
    regression = random.normal(0, 0.3, (1, count, 4)).astype(np.float32)
    classification = random.uniform(0, 0.2, (1, count, classes)).astype(np.float32)
    rows = random.choice(count, min(_CANDIDATES, count // 2), replace=False)
    which = np.arange(len(rows)) % _OBJECTS
    height, width = target
    centre = random.uniform(-0.05, 1.05, (_OBJECTS, 2))[which] * (height, width)
    side = random.uniform(0.03, 0.3, (_OBJECTS, 2))[which] * (height, width)
    centre += random.normal(0, 0.05, centre.shape) * side
    span = prior[rows, 2:] - prior[rows, :2]
    regression[0, rows, :2] = (centre - (prior[rows, :2] + prior[rows, 2:]) / 2) / span
    regression[0, rows, 2:] = np.log(side * np.exp(random.normal(0, 0.05, side.shape)) / span)
    kind = random.integers(0, classes, _OBJECTS)[which]
    # seen clearly or hardly: thresholds of any value divide them; two digits, so that some scores are equal
    level = random.uniform(0.05, 0.99, _OBJECTS)[which]
    classification[0, rows, kind] = np.round(level * random.uniform(0.9, 1.0, len(rows)), 2)
    return {"regression": regression, "classification": classification}
