"""FP16 networks for GPUs: types written into the graph, nothing overflowing in silence, and a proof against FP32.

TensorRT 11 and TensorRT for RTX compute exactly in the types of the file. Half precision ends at 65504: what goes
beyond it becomes infinite, and the usual converters cut weights to that limit without a word. Here a node whose weights
or calibrated activations do not fit stays in FP32 between two casts, and is named.

ONNX Runtime's CPU provider runs FP16 graphs in FP32 and drops the roundings between, so running the file there proves
nothing. The proof runs a copy in which every FP16 tensor is rounded by explicit casts: products in FP32, results stored
in FP16, which is what GPUs do.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.distances import worst_distances
from calibration.graph import Graph
from hybridnets.difference import Difference
from hybridnets.errors import ExitCode, HnxError, first_line

if TYPE_CHECKING:
    import onnx

__all__ = [
    "HALF_LIMIT",
    "STRONG_OPSET",
    "TOLERANCE",
    "HalfModel",
    "emulate_half",
    "half_distances",
    "prove_half",
    "raise_opset",
    "to_half",
]

HALF_LIMIT = 65504.0  # largest finite FP16
# activations may reach further on the road than on calibration frames, and sums on the way to them, too
_HEADROOM = 2.0
STRONG_OPSET = 19  # from here on QuantizeLinear takes FP16 values and scales
# same limit as `hnx compare` has for fp16: 11 bits of mantissa through 100 layers
TOLERANCE = 2e-2


@dataclass(frozen=True)
class HalfModel:
    """A converted network.

    Attributes:
        model: inputs and outputs are as before, the network between is FP16; fused pre- and postprocessing is not.
        kept: name of each node of the network that stays in FP32 -> why.
        activations_checked: ranges of activations were known; without them only weights were looked at.
    """

    model: onnx.ModelProto
    kept: Mapping[str, str]
    activations_checked: bool


def to_half(
    model: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    *,
    keep: Collection[str] = (),
) -> HalfModel:
    """An FP16 copy of a float32 network, with or without Q/DQ pairs.

    Args:
        model: stays as it is. With Q/DQ nodes its opset must be `STRONG_OPSET` or later (see `raise_opset`).
        ranges: (smallest, largest) value of its tensors on calibration frames.
        keep: names of further nodes that shall stay in FP32.

    Raises:
        HnxError: a weight is not finite, or Q/DQ nodes stand in a graph of an older opset (exit code 2).
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _name_nodes(copy)
    kinds = {node.op_type for node in copy.graph.node}
    if kinds & {"QuantizeLinear", "DequantizeLinear"} and _opset(copy) < STRONG_OPSET:
        raise HnxError(
            f"A quantised network of opset {_opset(copy)} cannot become FP16",
            why=f"QuantizeLinear takes FP16 from opset {STRONG_OPSET} on",
            fix="raise its opset first",
            code=ExitCode.USAGE,
        )
    graph = Graph(copy)
    # boxes of 640 pixels in half pixels, anchors numbered up to 2048: pre- and postprocessing always stays in FP32
    pipeline = [node.name for node in graph.nodes if graph.in_pipeline(node)]
    kept = dict.fromkeys(keep, "as asked") | _beyond(copy, ranges or {})
    logging.getLogger("onnxruntime.transformers.float16").setLevel(logging.ERROR)
    converted = convert_float_to_float16(
        copy, keep_io_types=True, node_block_list=[*kept, *pipeline], max_finite_val=HALF_LIMIT
    )
    _drop_round_trips(converted)
    nodes = list(_sorted(converted))
    del converted.graph.node[:]
    converted.graph.node.extend(nodes)
    del converted.graph.value_info[:]
    onnx.checker.check_model(converted, full_check=True)
    return HalfModel(converted, kept, ranges is not None)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Nodes are kept by name, which ONNX does not demand."""
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _beyond(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """The nodes that FP16 cannot hold: their weights, what they read or what they make goes beyond its range."""
    import onnx

    too_large: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        value = np.abs(onnx.numpy_helper.to_array(tensor))
        top = float(value.max(initial=0.0))
        if not np.isfinite(top):
            raise HnxError(
                f"Weight {tensor.name} is not finite", why="training diverged", fix="export another checkpoint"
            )
        if top > HALF_LIMIT:
            too_large[tensor.name] = f"weight {tensor.name} reaches {top:.3g}"
    for name, extremes in ranges.items():
        reach = float(np.abs(extremes).max())  # NaN stays NaN
        if not reach * _HEADROOM <= HALF_LIMIT:
            too_large[name] = f"tensor {name} reaches {reach:.3g} on calibration frames"
    kept = {}
    for node in model.graph.node:
        reasons = [too_large[name] for name in (*node.input, *node.output) if name in too_large]
        if reasons:
            kept[node.name] = f"{reasons[0]}, FP16 ends at {HALF_LIMIT:.0f}"
    return kept


def _drop_round_trips(model: onnx.ModelProto) -> None:
    """Let nodes that stay in FP32 hand tensors over as they are: the converter puts a cast to FP16 and one back between
    them, and what one of them keeps from overflowing would overflow there."""
    import onnx

    graph = model.graph
    targets = {
        node.output[0]: next(entry.i for entry in node.attribute if entry.name == "to")
        for node in graph.node
        if node.op_type == "Cast"
    }
    sources = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    back = {
        name: sources[sources[name]]
        for name, kind in targets.items()
        if kind == onnx.TensorProto.FLOAT and targets.get(sources[name]) == onnx.TensorProto.FLOAT16
    }
    kept = {value.name for value in graph.output}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in back:
                node.input[index] = back[name]
    while True:
        read = {name for node in graph.node for name in node.input} | kept
        dead = [node for node in graph.node if node.op_type == "Cast" and node.output[0] not in read]
        if not dead:
            return
        for node in dead:
            graph.node.remove(node)


def _sorted(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes after those whose outputs they read, otherwise in their order: the converter appends its casts."""
    made = {name for node in model.graph.node for name in node.output}
    waiting = list(model.graph.node)
    known: set[str] = set()
    while waiting:
        later = []
        for node in waiting:
            if all(name in known or name not in made for name in node.input):
                known.update(node.output)
                yield node
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise HnxError("The FP16 graph has a cycle", why="the conversion went wrong", fix="report this")
        waiting = later


def raise_opset(model: onnx.ModelProto, opset: int = STRONG_OPSET) -> onnx.ModelProto:
    """A copy of at least this opset, by ONNX's own version converter.

    Raises:
        HnxError: the converter refuses the graph.
    """
    import onnx
    from onnx import version_converter

    if _opset(model) >= opset:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    try:
        return version_converter.convert_version(model, opset)
    except Exception as error:
        raise HnxError(
            f"The network cannot be brought to opset {opset}",
            why=first_line(error),
            fix=f"export it with --opset {opset}",
        ) from error


def prove_half(
    reference: onnx.ModelProto,
    half: HalfModel,
    inputs: Iterable[NDArray[Any]],
    *,
    tolerance: float = TOLERANCE,
) -> dict[str, Difference]:
    """Run the FP32 network and the roundings of the FP16 one on the same inputs.

    Returns:
        The worst difference of each of the network's own outputs, also of those the graph makes something else of.

    Raises:
        HnxError: an output is not finite or differs by more than `tolerance` (relative L2), or nothing could be run.
    """
    worst = half_distances(reference, half, inputs)
    name, value = max(worst.items(), key=lambda item: item[1].rel_l2)
    if not value.rel_l2 <= tolerance:
        raise HnxError(
            f"The FP16 network is not the FP32 network: output {name!r} differs",
            why=f"relative L2 {value.rel_l2:.2e}, largest difference {value.max_abs:.2e}; the limit is {tolerance:.0e}",
            fix="nothing was written; keep the FP32 network, or more of it in FP32",
        )
    return worst


def half_distances(
    reference: onnx.ModelProto, half: HalfModel, inputs: Iterable[NDArray[Any]]
) -> dict[str, Difference]:
    """The worst difference of each of the network's own outputs when the roundings of FP16 are computed.

    Raises:
        HnxError: there was no input.
    """
    # optimisations would take the roundings out again
    worst = worst_distances(reference, emulate_half(half.model), inputs, optimised=False)
    if not worst:
        raise HnxError("The FP16 network is not proved", why="there was no input to run", fix="name some frames")
    return worst


def emulate_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph with the numbers of an FP16 graph: each FP16 tensor is rounded where it is made.

    Outputs are those of the FP16 graph; none of them nor an input may be FP16.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    half = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            value = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        if node.op_type == "Cast":
            for entry in node.attribute:
                if entry.name == "to" and entry.i == onnx.TensorProto.FLOAT16:
                    entry.i = onnx.TensorProto.FLOAT
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in half:
                node.output[index] = f"{name}_exact"
                nodes.append(_cast(f"{name}_exact", f"{name}_rounded", onnx.TensorProto.FLOAT16))
                nodes.append(_cast(f"{name}_rounded", name, onnx.TensorProto.FLOAT))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    import onnx

    return onnx.helper.make_node("Cast", [source], [target], f"{target}_Cast", to=kind)
