"""Separable convolutions multiplied out to dense ones: a rewrite that is not made, because it does not pay.

A depthwise convolution D, 3x3, with a bias d, and a pointwise one P with a bias p and nothing between them are
together one dense convolution: `P (D x + d) + p = (P D) x + (P d + p)`, whose weights are the products of each row of P
with the channels' windows. It has nine times the multiplications of P, and the map between the two is never written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.bundle import Bundle, open_bundle

if TYPE_CHECKING:
    import onnx

__all__ = ["dense_variants", "merge_separable"]

_HEADER = "header"  # in the names of the last convolutions of the two detection heads


def dense_variants(bundle: Bundle, folder: Path) -> dict[str, Bundle]:
    """A bundle's float32 graph with the separable headers of its heads merged, and with all separable convolutions.

    Raises:
        HnxError: the graph cannot be read.
    """
    import onnx

    path = bundle.file(bundle.variant("fp32", "openvino").file)
    found = {}
    picks: dict[str, Callable[[str], bool]] = {"headers": lambda name: _HEADER in name, "everything": lambda _: True}
    for title, pick in picks.items():
        model = onnx.load(path)
        count = merge_separable(model, pick)
        target = folder / f"dense-{title}" / path.name
        target.parent.mkdir()
        onnx.save(model, target)
        found[f"dense {title} ({count})"] = open_bundle(target)
    return found


def merge_separable(model: onnx.ModelProto, pick: Callable[[str], bool]) -> int:
    """Merge pairs of convolutions in place.

    Args:
        pick: whether to merge the pair whose pointwise convolution has this name.

    Returns:
        How many pairs were merged.
    """
    import onnx

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept_open = {output.name for output in graph.output}

    def array(name: str) -> NDArray[Any]:
        return onnx.numpy_helper.to_array(weights[name])

    merged = []
    for depthwise in graph.node:
        after = readers.get(depthwise.output[0], [])
        if len(after) != 1 or depthwise.output[0] in kept_open or not _is_depthwise(depthwise, weights):
            continue
        pointwise = after[0]
        if not _is_pointwise(pointwise, weights) or not pick(pointwise.name):
            continue
        rows, windows = array(pointwise.input[1])[:, :, 0, 0], array(depthwise.input[1])[:, 0]
        bias = array(pointwise.input[2]) if len(pointwise.input) > 2 else np.zeros(len(rows), np.float32)
        if len(depthwise.input) > 2:
            bias = bias + rows @ array(depthwise.input[2])
        tensors = {"weight": rows[:, :, None, None] * windows[None], "bias": bias}
        names = [f"{depthwise.output[0]}_dense_{kind}" for kind in tensors]
        for name, values in zip(names, tensors.values(), strict=True):
            graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
        depthwise.input[:] = [depthwise.input[0], *names]
        next(a for a in depthwise.attribute if a.name == "group").i = 1
        depthwise.output[0] = pointwise.output[0]
        merged.append(pointwise)
    for node in merged:
        graph.node.remove(node)
    onnx.checker.check_model(model)
    return len(merged)


def _shape(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> tuple[int, ...]:
    if node.op_type != "Conv" or node.input[1] not in weights:
        return ()
    return tuple(weights[node.input[1]].dims)


def _group(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


def _is_depthwise(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    shape = _shape(node, weights)
    return len(shape) == 4 and shape[1:] == (1, 3, 3) and _group(node) == shape[0]


def _is_pointwise(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    shape = _shape(node, weights)
    return len(shape) == 4 and shape[2:] == (1, 1) and _group(node) == 1
