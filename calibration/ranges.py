"""How far the activations of a network reach on real frames, measured through ONNX Runtime.

Extremes of every tensor are found by reductions inside the graph, so one frame costs one inference and a few numbers.
Methods that look at how values are distributed read the tensors themselves, in groups of bounded size, and keep
histograms, never activations: memory does not grow with the number of frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from calibration.graph import Graph, element_count
from calibration.histogram import BINS, Histogram
from calibration.thresholds import entropy, mean_square, percentile
from hybridnets.errors import ExitCode, HnxError, did_you_mean, first_line

if TYPE_CHECKING:
    import onnx

__all__ = [
    "METHODS",
    "Method",
    "Range",
    "RangeConfig",
    "Ranges",
    "measure_ranges",
    "measured_tensors",
    "observed_tensors",
]

Method = Literal["max", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)
# bytes of activations that one pass over the frames keeps at a time: c3 at 640x384 has 0.4 GB of them
_GROUP_BYTES = 256 << 20

Tensors = Callable[[], Iterator[NDArray[Any]]]


@dataclass(frozen=True)
class RangeConfig:
    """How ranges are chosen.

    Attributes:
        method: `max` keeps everything that was seen; the others clip outliers. On coefficient 0 and 80 generated scenes
            INT8 in OpenVINO lost 1.1 points of mAP50 and 0.8 of lane IoU with percentile 99.99, 1.5 and 1.2 with mse.
        percentile: share of |x| that stays inside, in percent, for `percentile`.
        threads: of ONNX Runtime.

    Raises:
        HnxError: a value is out of range (exit code 2).
    """

    method: Method = "percentile"
    percentile: float = 99.99
    threads: int = 1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise HnxError(
                f"Unknown calibration method {self.method!r}",
                why=did_you_mean(str(self.method), METHODS),
                fix="choose one of these",
                code=ExitCode.USAGE,
            )
        if not 50 < self.percentile <= 100:
            raise HnxError(
                f"A percentile of {self.percentile:g}",
                why="it is the share of values that are not clipped, above 50 and at most 100",
                fix="99.99 is usual",
                code=ExitCode.USAGE,
            )

    def describe(self) -> str:
        """Method and what belongs to it."""
        return f"percentile {self.percentile:g}" if self.method == "percentile" else self.method


@dataclass(frozen=True)
class Range:
    """One tensor.

    Attributes:
        low, high: smallest and largest value seen.
        threshold: |x| above which values are clipped; at most the larger of |low| and |high|.
        means: mean of each channel (axis 1), empty where there are none: what bias correction needs.
        reaches: largest |x| seen of each channel, for maps that convolutions read; empty for all else.
    """

    low: float
    high: float
    threshold: float
    means: tuple[float, ...] = ()
    reaches: tuple[float, ...] = ()

    @property
    def reach(self) -> float:
        """Largest |x| seen."""
        return max(abs(self.low), abs(self.high))


Ranges = Mapping[str, Range]


def observed_tensors(model: onnx.ModelProto) -> list[str]:
    """Tensors that a placement may quantise: what convolutions, products, additions and gates read, and what
    convolutions make. In the order of the graph, without constants."""
    graph = Graph(model)
    matrix = {id(node) for node in graph.matrix_nodes()}
    found: dict[str, None] = {}
    for node in graph.nodes:
        if id(node) in matrix:
            found[node.input[0]] = None
            found[node.output[0]] = None
        elif node.op_type in (
            "Add",
            "Mul",
            "Concat",
            "MaxPool",
            "Resize",
            "Sigmoid",
            "HardSwish",
            "HardSigmoid",
            "Relu",
        ):
            found.update(dict.fromkeys(name for name in (*node.input, *node.output) if name))
    floats = _float_tensors(model)
    return [name for name in found if name in floats and name not in graph.constants]


def measured_tensors(model: onnx.ModelProto) -> list[str]:
    """What `measure_ranges` gives a range: all floating-point tensors that the nodes make, and the input."""
    constants = Graph(model).constants
    return [name for name in _float_tensors(model) if name not in constants]


def measure_ranges(
    model: onnx.ModelProto,
    frames: Tensors,
    config: RangeConfig | None = None,
    *,
    on_frame: Callable[[int], None] = lambda _: None,
) -> dict[str, Range]:
    """Ranges of `measured_tensors`.

    Thresholds of the method are found for what `observed_tensors` names; for all others the extremes are.

    Args:
        model: float32, with one image input.
        frames: gives the inputs anew each time it is called: float32 (1, 3, H, W), or what the graph takes.
        on_frame: told how many inferences are done.

    Raises:
        HnxError: there is no frame, a tensor is not finite, or ONNX Runtime refuses the network.
    """
    config = config or RangeConfig()
    graph = Graph(model)
    extremes, count = _extremes(model, graph, measured_tensors(model), frames, config.threads, on_frame)
    if not count:
        raise HnxError("No frame to calibrate on", why="the source gave none", fix="name another source")
    thresholds: dict[str, float] = {}
    if config.method != "max":
        for number, group in enumerate(_groups(graph, observed_tensors(model)), 1):
            histograms = _histograms(model, graph, group, frames, config.threads, on_frame, number * count)
            thresholds.update({name: _threshold(config, histogram) for name, histogram in histograms.items()})
    return {
        name: replace(found, threshold=min(thresholds.get(name, math.inf), found.reach))
        for name, found in extremes.items()
    }


def _threshold(config: RangeConfig, histogram: Histogram) -> float:
    if config.method == "percentile":
        return percentile(histogram, config.percentile)
    return entropy(histogram) if config.method == "entropy" else mean_square(histogram)


def _float_tensors(model: onnx.ModelProto) -> dict[str, None]:
    """Names of float32 tensors by type inference, in order; without those of pre- and postprocessing, which may be
    empty (no box) or infinite (a box of a score of 0)."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    block = Graph(model)
    made = [name for node in block.nodes if not block.in_pipeline(node) for name in node.output]
    names = [value.name for value in graph.input] + made
    return dict.fromkeys(name for name in names if kinds.get(name) == onnx.TensorProto.FLOAT)


def _session(model: onnx.ModelProto, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # fusions would compute other tensors than the graph names
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise HnxError(
            "The network cannot be calibrated",
            why=first_line(error),
            fix="export it again with `hnx export`",
        ) from error


def _extremes(
    model: onnx.ModelProto,
    graph: Graph,
    names: Sequence[str],
    frames: Tensors,
    threads: int,
    on_frame: Callable[[int], None],
) -> tuple[dict[str, Range], int]:
    """What was seen of each tensor over all frames, nothing clipped, and the number of frames."""
    copy, asked = _with_reductions(model, graph, names)
    session = _session(copy, threads)
    feed = graph.inputs[0]
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    sums: dict[str, NDArray[np.float64]] = {}
    reaches: dict[str, NDArray[np.float64]] = {}
    count = 0
    for tensor in frames():
        found = [((feed, "ReduceMin"), tensor.min()), ((feed, "ReduceMax"), tensor.max())] if feed in names else []
        found += zip(asked, session.run(None, {feed: tensor}), strict=True)
        for (name, kind), value in found:
            if kind == "means":
                channels = np.asarray(value, np.float64).mean(axis=(0, 2, 3))
                sums[name] = sums[name] + channels if name in sums else channels
                continue
            if kind == "reaches":
                channels = np.asarray(value, np.float64).max(axis=(0, 2, 3))
                reaches[name] = np.maximum(reaches[name], channels) if name in reaches else channels
                continue
            extreme = float(value)
            if not math.isfinite(extreme):
                raise _not_finite(name, count)
            if kind == "ReduceMin":
                low[name] = min(low.get(name, extreme), extreme)
            else:
                high[name] = max(high.get(name, extreme), extreme)
        count += 1
        on_frame(count)
    nothing: NDArray[np.float64] = np.zeros(0)
    return {
        name: Range(
            low[name],
            high[name],
            max(abs(low[name]), abs(high[name])),
            tuple((sums.get(name, nothing) / count).tolist()),
            tuple(reaches.get(name, nothing).tolist()),
        )
        for name in low
    }, count


def _with_reductions(
    model: onnx.ModelProto, graph: Graph, names: Sequence[str]
) -> tuple[onnx.ModelProto, list[tuple[str, str]]]:
    """A copy that gives a few numbers of each tensor and nothing else, and which output is what of which tensor."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    asked: list[tuple[str, str]] = []

    def ask(name: str, kind: str, *steps: tuple[str, dict[str, int]]) -> None:
        for step, (operator, attributes) in enumerate(steps):
            output = f"hnx_{kind}_{len(asked)}" + ("" if step == len(steps) - 1 else f"_{operator}")
            copy.graph.node.append(onnx.helper.make_node(operator, [name], [output], output, **attributes))
            name = output
        copy.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))

    inner = [name for name in names if name not in graph.inputs]
    maps = {name for name in inner if len(graph.shape(name) or ()) == 4}
    read = {node.input[0] for node in graph.nodes if node.op_type == "Conv"}
    for name in inner:
        # the global poolings have no axes, whose place changed from attribute to input between opsets
        kinds: list[tuple[str, tuple[tuple[str, dict[str, int]], ...]]] = [
            ("ReduceMin", (("ReduceMin", {"keepdims": 0}),)),
            ("ReduceMax", (("ReduceMax", {"keepdims": 0}),)),
        ]
        if name in maps:
            kinds.append(("means", (("GlobalAveragePool", {}),)))
        if name in maps & read:
            kinds.append(("reaches", (("Abs", {}), ("GlobalMaxPool", {}))))
        for kind, steps in kinds:
            ask(name, kind, *steps)
            asked.append((name, kind))
    return copy, asked


def _not_finite(name: str, frame: int) -> HnxError:
    return HnxError(
        f"Tensor {name} is not finite on calibration frame {frame}",
        why="the network itself overflows or divides by zero there, before any quantisation",
        fix="check the weights: hnx compare BUNDLE --runtime torch,onnxruntime",
    )


def _groups(graph: Graph, names: Sequence[str]) -> Iterator[list[str]]:
    """Tensors in groups of bounded size, in order: those of a group are made by neighbouring nodes."""
    group: list[str] = []
    size = 0
    for name in names:
        if name in graph.inputs:
            continue
        bytes_ = 4 * element_count(graph.shape(name))
        if group and size + bytes_ > _GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += bytes_
    if group:
        yield group


def _histograms(
    model: onnx.ModelProto,
    graph: Graph,
    names: Sequence[str],
    frames: Tensors,
    threads: int,
    on_frame: Callable[[int], None],
    done: int,
) -> dict[str, Histogram]:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for name in names:
        copy.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = _session(copy, threads)
    histograms = {name: Histogram(BINS) for name in names}
    for count, tensor in enumerate(frames(), 1):
        for name, value in zip(names, session.run(list(names), {graph.inputs[0]: tensor}), strict=True):
            histograms[name].add(value)
        on_frame(done + count)
    return histograms
