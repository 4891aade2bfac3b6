"""Where quantisation goes: presets for each runtime as data, and the plan they make of a graph."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from calibration.graph import Graph, attribute
from hybridnets.blocks import sort_blocks
from hybridnets.errors import ExitCode, HnxError, did_you_mean

if TYPE_CHECKING:
    import onnx

__all__ = ["PLACEMENTS", "Placement", "Plan", "Point", "check_exclusions", "make_plan", "placement"]

Coding = Literal["symmetric", "unsigned", "asymmetric"]


@dataclass(frozen=True)
class Placement:
    """What one runtime wants quantised. Weights are always symmetric per output channel, biases always float.

    Attributes:
        name: as typed by users.
        summary: one line for help texts and manifests.
        stem: the convolution that reads the image.
        gates: convolutions of squeeze-excite.
        gate_products: both inputs of the product of a map and its squeeze-excite gate.
        last: the convolutions of each output that no other follows.
        residual: the skip input of a residual addition, never the one a convolution makes.
        outputs: also what quantised convolutions make.
        least_channels: convolutions with fewer input or output channels stay float; depthwise ones do when their
            channels are no multiple of 8.
        channelwise: what a convolution reads is rounded with a scale for each channel, see `calibration.channels`.
        coding: of activations. `symmetric` is INT8 with zero point 0; `unsigned` takes UINT8 with zero point 0 where
            nothing is negative; `asymmetric` is UINT8 with a zero point.
        stored_weights: weights as INT8 and a DequantizeLinear; else as float with a pair, which TensorRT 8 needs.
    """

    name: str
    summary: str
    stem: bool = False
    gates: bool = False
    gate_products: bool = False
    last: bool = False
    residual: bool = False
    outputs: bool = False
    least_channels: int = 0
    channelwise: bool = False
    coding: Coding = "symmetric"
    stored_weights: bool = True


_ALL = (
    # cpu-side fusion: convolution + bias + Swish + requantise become one kernel; zero points cost 4 to 5 %
    Placement(
        "openvino",
        "symmetric on inputs of convolutions after their activation, channel by channel; no squeeze-excite, stem, last "
        "layers or additions",
        channelwise=True,
        coding="unsigned",
    ),
    Placement(
        "tensorrt",
        "explicit pairs by TensorRT's rules: inputs and weights of convolutions, the skip of residual additions",
        residual=True,
        least_channels=16,
        stored_weights=False,
    ),
    # ONNX Runtime makes a QLinearConv only of a convolution between pairs on both sides
    Placement(
        "onnxruntime",
        "inputs and outputs of convolutions, with zero points; no squeeze-excite, stem or last layers",
        outputs=True,
        coding="asymmetric",
    ),
)
PLACEMENTS: dict[str, Placement] = {entry.name: entry for entry in _ALL}


def placement(name: str) -> Placement:
    """A preset by its name.

    Raises:
        HnxError: unknown (exit code 2).
    """
    found = PLACEMENTS.get(name.strip().lower())
    if found is None:
        raise HnxError(
            f"Nothing can be quantised for {name!r}",
            why=did_you_mean(name, PLACEMENTS),
            fix="choose one of these",
            code=ExitCode.USAGE,
        )
    return found


@dataclass(frozen=True)
class Point:
    """One input of one node that reads a quantised tensor; `node` is its number in the graph."""

    node: int
    input: int
    tensor: str


@dataclass(frozen=True)
class Plan:
    """What is quantised in one graph.

    Attributes:
        nodes: numbers of the nodes that compute in INT8 (convolutions and products).
        points: inputs that read a quantised activation; all points of one tensor share a pair.
        outputs: tensors that are quantised where they are made, for all of their readers.
        kept: name of each convolution and product that stays float -> why.
        blocks: block -> (quantised, all) convolutions and products.
    """

    nodes: tuple[int, ...]
    points: tuple[Point, ...]
    outputs: tuple[str, ...]
    kept: dict[str, str]
    blocks: dict[str, tuple[int, int]]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Quantised activations, without repeats, in order."""
        return tuple(dict.fromkeys([*(point.tensor for point in self.points), *self.outputs]))


@dataclass(frozen=True)
class _Parts:
    """Nodes of a graph, by `id`, that placements treat in their own ways; see `Placement`."""

    stems: set[int]
    last: set[int]
    gates: set[int]

    @classmethod
    def of(cls, graph: Graph) -> _Parts:
        found = (_first_nodes(graph), _last_nodes(graph), _gate_nodes(graph))
        return cls(*({id(node) for node in nodes} for nodes in found))


def make_plan(
    model: onnx.ModelProto, where: Placement, *, exclude: Sequence[str] = (), keep: Collection[str] = ()
) -> Plan:
    """Which nodes and tensors of a graph are quantised.

    Args:
        exclude: regular expressions; a node stays float when one is found in its name or in its block's.
        keep: blocks that stay float, by their full names (`hybridnets.blocks`).

    Raises:
        HnxError: an expression is no regular expression, or matches nothing that this or any preset quantises (exit
            code 2).
    """
    graph = Graph(model)
    numbers = {id(node): index for index, node in enumerate(graph.nodes)}
    parts = _Parts.of(graph)
    patterns = [_compile(text) for text in exclude]
    _check_matches(graph, parts, (where, *PLACEMENTS.values()), patterns)
    _check_blocks(graph, keep)
    quantised: list[onnx.NodeProto] = []
    kept: dict[str, str] = {}
    blocks: dict[str, tuple[int, int]] = {}
    for node in graph.matrix_nodes():
        block = graph.block(node.name)
        reason = _excluded(node, block, patterns, keep) or _why_float(graph, node, where, parts)
        if reason:
            kept[node.name or node.output[0]] = reason
        else:
            quantised.append(node)
        done, total = blocks.get(block, (0, 0))
        blocks[block] = (done + (not reason), total + 1)
    points = [Point(numbers[id(node)], 0, node.input[0]) for node in quantised]
    for node, index in _extra_points(graph, where, {id(node) for node in quantised}, parts.gates):
        if not _excluded(node, graph.block(node.name), patterns, keep):
            points.append(Point(numbers[id(node)], index, node.input[index]))
    outputs = [node.output[0] for node in quantised if where.outputs and node.output[0] not in graph.outputs]
    return Plan(
        tuple(numbers[id(node)] for node in quantised),
        tuple(points),
        tuple(outputs),
        kept,
        blocks,
    )


def _compile(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise HnxError(
            f"{text!r} is not a regular expression",
            why=str(error),
            fix="for example --exclude 'encoder/stage1|_depthwise_'",
            code=ExitCode.USAGE,
        ) from error


def check_exclusions(model: onnx.ModelProto, wheres: Sequence[Placement], exclude: Sequence[str]) -> None:
    """Refuse what `make_plan` would take without any effect; asked before minutes are spent on measuring.

    Args:
        wheres: the placements wanted; an expression must matter to one of them.

    Raises:
        HnxError: an expression is no regular expression, or matches nothing that would be quantised (exit code 2).
    """
    graph = Graph(model)
    _check_matches(graph, _Parts.of(graph), wheres, [_compile(text) for text in exclude])


def _check_matches(
    graph: Graph, parts: _Parts, wheres: Sequence[Placement], patterns: Sequence[re.Pattern[str]]
) -> None:
    """An exclusion that excludes nothing is a typing error, and would be found out on the road only."""
    if not patterns:
        return
    names = {node.name for where in wheres for node in _candidates(graph, where, parts)}
    blocks = {graph.block(name) for name in names}
    for pattern in patterns:
        if any(map(pattern.search, (*names, *blocks))):
            continue
        everything = [node.name for node in graph.nodes]
        float_anyway = any(map(pattern.search, (*everything, *map(graph.block, everything))))
        raise HnxError(
            f"--exclude {pattern.pattern!r} matches "
            + ("only what stays in floating point anyway" if float_anyway else "no node and no block"),
            why=f"quantised are parts of {', '.join(sort_blocks(blocks))}" if blocks else "nothing would be quantised",
            fix="correct it, or leave it out",
            code=ExitCode.USAGE,
        )


def _check_blocks(graph: Graph, keep: Collection[str]) -> None:
    blocks = {graph.block(node.name) for node in graph.nodes} if keep else set()
    for block in keep:
        if block not in blocks:
            raise HnxError(f"There is no block {block!r}", why=did_you_mean(block, sorted(blocks)), code=ExitCode.USAGE)


def _candidates(graph: Graph, where: Placement, parts: _Parts) -> Iterator[onnx.NodeProto]:
    """Every node that a placement quantises something of when nothing is excluded."""
    quantised = [node for node in graph.matrix_nodes() if not _why_float(graph, node, where, parts)]
    yield from quantised
    for node, _ in _extra_points(graph, where, {id(node) for node in quantised}, parts.gates):
        yield node


def _excluded(node: onnx.NodeProto, block: str, patterns: Sequence[re.Pattern[str]], keep: Collection[str]) -> str:
    if block in keep:
        return f"block {block} is kept in float"
    return next((f"excluded by {p.pattern!r}" for p in patterns if p.search(node.name) or p.search(block)), "")


def _why_float(graph: Graph, node: onnx.NodeProto, where: Placement, parts: _Parts) -> str:
    """Why a placement leaves a convolution in float, or ""."""
    if node.input[0] in graph.constants:
        return "its input is constant"
    if not where.stem and id(node) in parts.stems:
        return "stem: it reads the image"
    if not where.gates and id(node) in parts.gates:
        return "squeeze-excite"
    if not where.last and id(node) in parts.last:
        return "last layer of an output"
    if where.least_channels and not _wide_enough(graph, node, where.least_channels):
        return f"fewer than {where.least_channels} channels"
    return ""


def _wide_enough(graph: Graph, node: onnx.NodeProto, least: int) -> bool:
    """ModelOpt's rule: INT8 kernels of narrow convolutions are slower than FP16 ones."""
    name = graph.weight_name(node)
    shape = tuple(graph.constants[name].dims) if name is not None else ()
    if node.op_type != "Conv" or len(shape) < 3:
        return not shape or min(shape[:2]) >= least
    group = int(attribute(node, "group", 1))
    if group > 1:
        return shape[0] % 8 == 0 and max(shape[2:]) >= 3
    return min(shape[0], shape[1]) >= least


def _first_nodes(graph: Graph) -> Iterator[onnx.NodeProto]:
    """The convolutions and products between which and the image there is no other one; normalisation may be."""
    matrix = {id(node) for node in graph.matrix_nodes()}
    image = set(graph.inputs)
    for node in graph.nodes:
        if not image.isdisjoint(node.input):
            if id(node) in matrix:
                yield node
            else:
                image.update(node.output)


def _last_nodes(graph: Graph) -> Iterator[onnx.NodeProto]:
    """The convolutions and products between which and an output of the graph there is no other one."""
    matrix = {id(node) for node in graph.matrix_nodes()}
    stack = [graph.producers[name] for name in graph.outputs if name in graph.producers]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if id(node) in matrix:
            yield node
        else:
            stack += graph.upstream(node)


def _gate_nodes(graph: Graph) -> Iterator[onnx.NodeProto]:
    """Everything computed from a global average of a map: the two convolutions, the activation, the gate's sigmoid."""
    pooled: set[str] = set()
    for node in graph.nodes:
        if _is_global_pool(graph, node):
            pooled.update(node.output)
            continue
        data = [name for name in node.input if name and name not in graph.constants]
        if data and all(name in pooled for name in data):
            pooled.update(node.output)
            yield node


def _is_global_pool(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        found = graph.array(node.input[1])
        axes = None if found is None else np.ravel(found).tolist()
    return axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]


def _extra_points(
    graph: Graph, where: Placement, quantised: set[int], gates: set[int]
) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Inputs of additions and products that are quantised beside the convolutions'."""
    order = {id(node): index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if where.residual and node.op_type == "Add":
            skip = _skip_input(graph, node, quantised, order)
            if skip is not None:
                yield node, skip
        if where.gate_products and node.op_type == "Mul":
            makers = [graph.producers.get(name) for name in node.input]
            from_gate = [maker is not None and id(maker) in gates for maker in makers]
            if from_gate.count(True) == 1 and not any(name in graph.constants for name in node.input):
                yield node, 0
                yield node, 1


def _skip_input(graph: Graph, node: onnx.NodeProto, quantised: set[int], order: dict[int, int]) -> int | None:
    """The input of a residual addition that is not made by its own convolution.

    Where both come from convolutions, the later one is the longer path: it stays float, so that TensorRT fuses the
    addition into it.
    """
    if any(name in graph.constants for name in node.input):
        return None
    makers = [graph.producers.get(name) for name in node.input]
    convs = [index for index, maker in enumerate(makers) if maker is not None and id(maker) in quantised]
    if not convs or graph.shape(node.input[0]) != graph.shape(node.input[1]):
        return None
    own = max(convs, key=lambda index: order[id(makers[index])])
    return 1 - own
