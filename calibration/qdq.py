"""Explicit quantisation: QuantizeLinear and DequantizeLinear pairs put into an ONNX graph.

The result is an ordinary ONNX model in which every scale stands in the file. Runtimes that know the pairs compute in
INT8 between them; one that does not computes the same numbers in float, which is what makes them comparable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.channels import channel_reaches, smoothing
from calibration.graph import WEIGHT_AXES, Graph, attribute, opset_of
from calibration.placement import Placement, Plan, make_plan
from calibration.placement import placement as find_placement
from calibration.ranges import Range
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "LEAST_OPSET",
    "LEAST_SCALE",
    "activation_scale",
    "channel_scales",
    "insert_qdq",
    "quantisable_plan",
    "quantise_weight",
    "smoothed_scales",
]

LEAST_OPSET = 13  # QuantizeLinear has per-channel scales from here on
# FP16's smallest number above 0: a scale below it would become 0 in a graph of half precision
LEAST_SCALE = 2.0**-24


class Scale(NamedTuple):
    """Scale and zero point of one activation, or of each of its channels; the type of the zero point is that of the
    quantised tensor. `back` is the one scale that it is dequantised with where that is another."""

    scale: NDArray[np.float32]
    zero: NDArray[Any]
    back: NDArray[np.float32] | None = None


def insert_qdq(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    placement: Placement | str,
    *,
    exclude: Sequence[str] = (),
    keep: Collection[str] = (),
    bias_correction: bool = False,
    plan: Plan | None = None,
) -> onnx.ModelProto:
    """A quantised copy of a model.

    Args:
        model: float32, opset 13 or later; it stays as it is.
        ranges: of its activations, from `calibration.ranges.measure_ranges`.
        placement: a preset, or its name.
        exclude, keep: see `calibration.placement.make_plan`.
        bias_correction: take the mean error that rounded weights cause out of the biases (Nagel et al. 2019, 4.2; with
            the measured means of the inputs in place of those derived from batch norms).
        plan: the plan of these very arguments, where the caller has it already.

    Raises:
        HnxError: the opset is too old, ranges of a tensor are missing, or nothing is left to quantise (exit code 2).
    """
    import onnx

    where = find_placement(placement) if isinstance(placement, str) else placement
    plan = quantisable_plan(model, where, exclude=exclude, keep=keep, plan=plan)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(model)
    for tensor in plan.tensors:
        if tensor not in ranges:
            raise HnxError(
                f"No range was measured for tensor {tensor}",
                why="the ranges belong to another graph",
                fix="calibrate this network: hnx quantize --fresh",
            )
    writer = _Writer(copy, graph, where, smoothing(graph, plan, ranges) if where.channelwise else {})
    for point in plan.points:
        writer.quantise_input(point.node, point.input, point.tensor, ranges[point.tensor])
    for tensor in plan.outputs:
        writer.quantise_output(tensor, ranges[tensor])
    for number in plan.nodes:
        writer.quantise_weights(number, ranges if bias_correction else None)
    writer.finish()
    return copy


def quantisable_plan(
    model: onnx.ModelProto,
    where: Placement,
    *,
    exclude: Sequence[str] = (),
    keep: Collection[str] = (),
    plan: Plan | None = None,
) -> Plan:
    """The plan of a model that can be quantised; takes no ranges, so it can be asked for before any is measured.

    Args: see `insert_qdq`.

    Raises:
        HnxError: the opset is too old, an exclusion is wrong, or nothing is left to quantise (exit code 2).
    """
    if opset_of(model) < LEAST_OPSET:
        raise HnxError(
            f"This network has opset {opset_of(model)}",
            why=f"quantisation per channel exists from {LEAST_OPSET} on",
            fix="export it again with --opset 17",
            code=ExitCode.USAGE,
        )
    plan = plan or make_plan(model, where, exclude=exclude, keep=keep)
    if not plan.nodes:
        raise HnxError(
            "Nothing is left to quantise", why="every convolution is excluded", fix="exclude less", code=ExitCode.USAGE
        )
    return plan


def activation_scale(found: Range, where: Placement) -> Scale:
    """Scale and zero point that hold a range: [-t, t] for INT8 (t/127), [0, t] or [low, high] for UINT8."""
    low, high = max(found.low, -found.threshold), min(found.high, found.threshold)
    if where.coding == "asymmetric":
        low, high = min(low, 0.0), max(high, 0.0)  # zero must be exact: paddings are zeros
        scale = max((high - low) / 255, LEAST_SCALE)
        return Scale(np.array(scale, np.float32), np.array(int(np.clip(round(-low / scale), 0, 255)), np.uint8))
    if where.coding == "unsigned" and found.low >= 0:
        return Scale(np.array(max(high / 255, LEAST_SCALE), np.float32), np.array(0, np.uint8))
    return Scale(np.array(max(found.threshold / 127, LEAST_SCALE), np.float32), np.array(0, np.int8))


def channel_scales(found: Range, where: Placement) -> Scale:
    """Scale and zero point of each channel, for a depthwise convolution.

    Args:
        found: with `reaches`.
        where: of symmetric or unsigned coding.
    """
    zero = activation_scale(found, where).zero
    scales = np.maximum(channel_reaches(found) / np.iinfo(zero.dtype).max, LEAST_SCALE)
    return Scale(scales.astype(np.float32), np.zeros(len(scales), zero.dtype))


def smoothed_scales(found: Range, where: Placement, factors: NDArray[np.float64]) -> Scale:
    """Scales by which channels are rounded, and the one behind the convolution that takes `factors` into its weights.

    Args: see `channel_scales`.
    """
    zero = activation_scale(found, where).zero
    back = max(float((channel_reaches(found) / factors).max()) / np.iinfo(zero.dtype).max, LEAST_SCALE)
    scales = np.maximum(back * factors, LEAST_SCALE)
    return Scale(scales.astype(np.float32), np.zeros(len(scales), zero.dtype), np.array(back, np.float32))


def quantise_weight(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """INT8 weights in [-127, 127] and their scales, one for each index of `axis`.

    -128 is left out: the range is symmetric, and products of two -128 overflow 16 bits in kernels without VNNI.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    top = np.abs(weight).max(axis=others)
    scales = np.maximum(top / 127, LEAST_SCALE).astype(np.float32)
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    return np.clip(np.rint(weight / scales.reshape(shape)), -127, 127).astype(np.int8), scales


class _Writer:
    """Puts pairs into a copy of the model."""

    def __init__(
        self, copy: onnx.ModelProto, graph: Graph, where: Placement, factors: Mapping[str, NDArray[np.float64]]
    ) -> None:
        self._copy, self._graph, self._where, self._factors = copy, graph, where, factors
        self._nodes: list[onnx.NodeProto] = list(copy.graph.node)
        self._before: dict[int, list[onnx.NodeProto]] = {}  # node -> what is put in front of it
        self._after: dict[int, list[onnx.NodeProto]] = {}
        self._pairs: dict[tuple[str, str], str] = {}  # tensor, kind of reader -> its dequantised form
        self._weights: dict[tuple[str, int, str], str] = {}
        self._makers = {name: number for number, node in enumerate(self._nodes) for name in node.output}
        self._names = {tensor.name for tensor in copy.graph.initializer} | set(self._makers)

    def quantise_input(self, number: int, index: int, tensor: str, found: Range) -> None:
        """Let one input of a node read a tensor through its pair, which is made once."""
        kind, scale = self._scale(number, tensor, found)
        key = tensor, kind
        if key not in self._pairs:
            pair, output = self._pair(tensor, f"{tensor}_{kind}" if kind else tensor, scale)
            self._pairs[key] = output
            if tensor in self._makers:
                self._after.setdefault(self._makers[tensor], []).extend(pair)
            else:
                self._before.setdefault(0, []).extend(pair)
        self._nodes[number].input[index] = self._pairs[key]

    def _scale(self, number: int, tensor: str, found: Range) -> tuple[str, Scale]:
        """Scales of what a node reads, and what kind of reader it is."""
        node = self._graph.nodes[number]
        if self._where.channelwise and found.reaches and self._graph.is_depthwise(node):
            return "channels", channel_scales(found, self._where)
        if self._is_smoothed(node, tensor):
            return "smoothed", smoothed_scales(found, self._where, self._factors[tensor])
        return "", activation_scale(found, self._where)

    def _is_smoothed(self, node: onnx.NodeProto, tensor: str) -> bool:
        return tensor in self._factors and self._graph.is_dense(node)

    def quantise_output(self, tensor: str, found: Range) -> None:
        """Let all readers of a tensor read it through its pair."""
        for number, node in enumerate(self._nodes):
            for index, name in enumerate(node.input):
                if name == tensor and node.op_type != "QuantizeLinear":
                    self.quantise_input(number, index, tensor, found)

    def quantise_weights(self, number: int, ranges: Mapping[str, Range] | None) -> None:
        """Quantise the weights of a node, and correct its bias where means of its input are given."""
        node = self._nodes[number]
        name = node.input[1]
        weight = self._graph.array(name)
        if weight is None:
            raise HnxError(f"Node {node.name} has no constant weights", why="they are computed", fix="exclude it")
        axis = weight_axis(node, weight.ndim)
        original = self._graph.nodes[number].input[0]
        smoothed = self._is_smoothed(node, original)
        factors = self._factors[original][:, None, None] if smoothed else np.ones(1)
        quantised, scales = quantise_weight(np.asarray(weight * factors, np.float32), axis)
        key = name, axis, original if smoothed else ""  # convolutions of several maps may share their weights
        if key not in self._weights:
            self._weights[key] = self._weight_pair(node, number, name, quantised, scales, axis)
        node.input[1] = self._weights[key]
        if ranges is not None and node.op_type == "Conv" and ranges[original].means:
            shape = [-1, *[1] * (weight.ndim - 1)]
            error = quantised * scales.reshape(shape) / factors - weight
            self._correct(node, error, np.array(ranges[original].means))

    def _weight_pair(
        self,
        node: onnx.NodeProto,
        number: int,
        name: str,
        quantised: NDArray[np.int8],
        scales: NDArray[np.float32],
        axis: int,
    ) -> str:
        import onnx

        label = f"{node.name or node.output[0]}_weight"
        zeros = np.zeros(scales.shape, np.int8)
        inputs = [self._constant(scales, f"{label}_scale"), self._constant(zeros, f"{label}_zero_point")]
        output = self._unique(f"{label}_dequantized")
        if self._where.stored_weights:
            stored = self._constant(quantised, f"{label}_quantized")
            made = []
        else:
            stored = self._unique(f"{label}_quantized")
            made = [
                onnx.helper.make_node("QuantizeLinear", [name, *inputs], [stored], f"{label}_QuantizeLinear", axis=axis)
            ]
        made.append(
            onnx.helper.make_node(
                "DequantizeLinear", [stored, *inputs], [output], f"{label}_DequantizeLinear", axis=axis
            )
        )
        self._before.setdefault(number, []).extend(made)
        return output

    def _correct(self, node: onnx.NodeProto, error: NDArray[Any], means: NDArray[Any]) -> None:
        """Subtract the expected effect of an error of the weights from the bias; paddings count as the mean."""
        group = int(attribute(node, "group", 1))
        per_input = error.reshape(error.shape[0], error.shape[1], -1).sum(axis=2)
        channels = means.reshape(group, -1)
        owner = np.arange(error.shape[0]) * group // error.shape[0]
        shift = (per_input * channels[owner]).sum(axis=1)
        has_bias = len(node.input) > 2 and node.input[2]
        bias = self._graph.array(node.input[2]) if has_bias else np.zeros(error.shape[0], np.float32)
        if bias is None:
            return
        name = self._constant((bias - shift).astype(np.float32), f"{node.name or node.output[0]}_bias_corrected")
        if has_bias:
            node.input[2] = name
        else:
            node.input.append(name)

    def _pair(self, tensor: str, label: str, found: Scale) -> tuple[list[onnx.NodeProto], str]:
        import onnx

        inputs = [
            self._constant(found.scale, f"{label}_scale"),
            self._constant(found.zero, f"{label}_zero_point"),
        ]
        back = inputs
        if found.back is not None:
            zero = self._constant(np.zeros((), found.zero.dtype), f"{label}_back_zero_point")
            back = [self._constant(found.back, f"{label}_back_scale"), zero]
        axis = {"axis": 1} if found.scale.ndim else {}
        axis_back = axis if found.back is None else {}
        quantised, output = self._unique(f"{label}_quantized"), self._unique(f"{label}_dequantized")
        return [
            onnx.helper.make_node("QuantizeLinear", [tensor, *inputs], [quantised], f"{label}_QuantizeLinear", **axis),
            onnx.helper.make_node(
                "DequantizeLinear", [quantised, *back], [output], f"{label}_DequantizeLinear", **axis_back
            ),
        ], output

    def _constant(self, value: NDArray[Any], name: str) -> str:
        import onnx

        name = self._unique(name)
        self._copy.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def _unique(self, name: str) -> str:
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found

    def finish(self) -> None:
        """Write the nodes in order, without initializers that nothing reads any more."""
        import onnx

        nodes: list[onnx.NodeProto] = []
        for number, node in enumerate(self._nodes):
            nodes += [*self._before.get(number, ()), node, *self._after.get(number, ())]
        graph = self._copy.graph
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
        read = {name for node in kept for name in node.input} | {value.name for value in graph.output}
        tensors = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(tensors)
        del graph.value_info[:]
        onnx.checker.check_model(self._copy)


def weight_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """The axis of output channels in the weights of a node."""
    if node.op_type == "Gemm" and not attribute(node, "transB", 0):
        return 1
    return dimensions - 1 if node.op_type == "MatMul" else WEIGHT_AXES[node.op_type]
