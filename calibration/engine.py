"""From a bundle and frames to INT8 (and FP16) networks inside the bundle: one calibration for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.cache import CalibrationKey, calibration_key, default_place, read_ranges, write_ranges
from calibration.frames import FrameSet, select_frames
from calibration.graph import opset_of
from calibration.half import prove_half, raise_opset, to_half
from calibration.lint import Finding, Flavour, lint
from calibration.placement import PLACEMENTS, Plan, make_plan, placement
from calibration.qdq import insert_qdq
from calibration.ranges import Range, RangeConfig, measure_ranges
from calibration.variants import NewVariant, add_variants, float_model
from hybridnets.bundle import Bundle
from hybridnets.difference import Difference, difference
from hybridnets.errors import ExitCode, HnxError, did_you_mean

if TYPE_CHECKING:
    import onnx

__all__ = ["TARGETS", "Made", "QuantiseConfig", "Quantised", "quantise"]

# what `--for` takes -> the placement; fp16 quantises nothing
TARGETS: dict[str, str | None] = {**{name: name for name in PLACEMENTS}, "fp16": None}
_WEAK_OPSET = 17


@dataclass(frozen=True)
class QuantiseConfig:
    """One call of `hnx quantize`.

    Attributes:
        source: folder, pattern, data set or video that frames are chosen from.
        frames: how many.
        targets: keys of `TARGETS`.
        ranges: how thresholds are found.
        exclude: regular expressions over names of nodes and blocks that stay in floating point.
        split: part of a data set.
        seed: of the choice of frames.
        cache: file of ranges; None takes one in the user's cache folder, named by everything that decides the ranges.
        fresh: measure again, and replace the file.
        bias_correction: take the mean error of rounded weights out of the biases.

    Raises:
        HnxError: an unknown target, or none (exit code 2).
    """

    source: str | Path
    frames: int = 300
    targets: tuple[str, ...] = ("openvino", "onnxruntime", "tensorrt")
    ranges: RangeConfig = field(default_factory=RangeConfig)
    exclude: tuple[str, ...] = ()
    split: str | None = None
    seed: int = 0
    cache: Path | None = None
    fresh: bool = False
    bias_correction: bool = False

    def __post_init__(self) -> None:
        if not self.targets:
            raise HnxError("No runtime is named", fix="for example --for openvino", code=ExitCode.USAGE)
        for name in self.targets:
            if name not in TARGETS:
                raise HnxError(
                    f"Nothing can be made for {name!r}",
                    why=did_you_mean(name, TARGETS),
                    fix="choose one of these",
                    code=ExitCode.USAGE,
                )


@dataclass(frozen=True)
class Made:
    """One network that was made.

    Attributes:
        variant: what went into the bundle.
        plan: what is quantised in it; None for FP16.
        outputs: the worst difference of each output to FP32 on held-out frames.
        notes: what the user should know.
    """

    variant: NewVariant
    plan: Plan | None
    outputs: Mapping[str, Difference]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quantised:
    """The result of one call.

    Attributes:
        bundle: with the new networks.
        frames: what ranges were measured on.
        place: file of the ranges.
        reused: they were read from there.
        made: every new network.
    """

    bundle: Bundle
    frames: FrameSet
    place: Path
    reused: bool
    made: tuple[Made, ...]


def quantise(
    bundle: Bundle,
    config: QuantiseConfig,
    on_step: Callable[[str], None] = lambda _: None,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> Quantised:
    """Calibrate once, and put a network for each target into the bundle.

    Args:
        on_step: told what happens next.
        on_frame: told how many inferences of the calibration are done, and how many there are.

    Raises:
        HnxError: no frame can be read, stored ranges are stale, a rule of TensorRT is broken (a bug), or the bundle
            cannot be written.
    """
    model = float_model(bundle)
    on_step("choosing frames")
    frames = select_frames(config.source, config.frames, seed=config.seed, split=config.split)
    key, place = _place(model, frames, config, bundle)
    ranges = None if config.fresh or not place.exists() else read_ranges(place, key)
    reused = ranges is not None
    if ranges is None:
        on_step(f"measuring ranges on {len(frames)} frames")
        passes = 1 if config.ranges.method == "max" else 2
        ranges = measure_ranges(
            model,
            lambda: frames.tensors(bundle.preprocessor()),
            config.ranges,
            on_frame=lambda done: on_frame(done, max(done, passes * len(frames))),
        )
        write_ranges(place, key, ranges)
    made = []
    for target in config.targets:
        on_step(f"making {target}")
        made += _make(target, model, ranges, config, frames, bundle)
    on_step("writing the bundle")
    details = {"calibration": {**key.to_json(), "source": Path(config.source).name, "seed": config.seed}}
    variants = [
        NewVariant(
            entry.variant.precision,
            entry.variant.label,
            entry.variant.runtimes,
            entry.variant.model,
            {**details, **entry.variant.details, "rel_l2": {n: d.rel_l2 for n, d in entry.outputs.items()}},
        )
        for entry in made
    ]
    return Quantised(add_variants(bundle, variants), frames, place, reused, tuple(made))


def _place(
    model: onnx.ModelProto, frames: FrameSet, config: QuantiseConfig, bundle: Bundle
) -> tuple[CalibrationKey, Path]:
    key = calibration_key(model, frames, config.ranges, bundle)
    return key, default_place(key) if config.cache is None else config.cache


def _make(
    target: str,
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    config: QuantiseConfig,
    frames: FrameSet,
    bundle: Bundle,
) -> list[Made]:
    """The networks of one target; TensorRT has two."""
    if target == "fp16":
        return [_half(model, ranges, frames, bundle)]
    where = placement(target)
    plan = make_plan(model, where, exclude=config.exclude)
    quantised = insert_qdq(
        model, ranges, where, exclude=config.exclude, bias_correction=config.bias_correction, plan=plan
    )
    details = {"placement": target, "exclude": list(config.exclude), "method": config.ranges.describe()}
    outputs = _distances(model, quantised, frames, bundle)
    if target != "tensorrt":
        return [Made(NewVariant("int8", target, (target,), quantised, details), plan, outputs)]
    found = [_strong(quantised, ranges, plan, details, outputs)]
    if opset_of(quantised) <= _WEAK_OPSET:
        _require_clean(quantised, "weak")
        weak = NewVariant("int8", "tensorrt-weak", ("tensorrt-weak",), quantised, details)
        found.insert(0, Made(weak, plan, outputs))
    return found


def _strong(
    quantised: onnx.ModelProto,
    ranges: Mapping[str, Range],
    plan: Plan,
    details: Mapping[str, Any],
    outputs: Mapping[str, Difference],
) -> Made:
    half = to_half(raise_opset(quantised), _extremes(ranges))
    _require_clean(half.model, "strong")
    notes = tuple(f"{name} stays in FP32: {why}" for name, why in half.kept.items())
    return Made(NewVariant("int8", "tensorrt-strong", ("tensorrt-strong",), half.model, details), plan, outputs, notes)


def _half(model: onnx.ModelProto, ranges: Mapping[str, Range], frames: FrameSet, bundle: Bundle) -> Made:
    half = to_half(model, _extremes(ranges))
    outputs = prove_half(model, half, _check_tensors(frames, bundle))
    notes = tuple(f"{name} stays in FP32: {why}" for name, why in half.kept.items())
    return Made(NewVariant("fp16", "tensorrt-strong", ("tensorrt-strong",), half.model), None, outputs, notes)


def _extremes(ranges: Mapping[str, Range]) -> dict[str, tuple[float, float]]:
    return {name: (found.low, found.high) for name, found in ranges.items()}


def _require_clean(model: onnx.ModelProto, flavour: Flavour) -> None:
    """What we write must pass our own rules."""
    findings: Sequence[Finding] = lint(model, flavour)
    if findings:
        raise HnxError(
            f"The quantised graph breaks {len(findings)} rule(s) of TensorRT ({flavour}ly typed)",
            why="; ".join(map(str, findings[:3])),
            fix="leave tensorrt out of --for, and report this",
        )


def _check_tensors(frames: FrameSet, bundle: Bundle) -> Sequence[np.ndarray]:
    """Inputs that no range was measured on; of a source with too few frames the first one that was."""
    preprocess = bundle.preprocessor()
    held_out = [tensor.copy() for tensor in frames.tensors(preprocess, held_out=True)]
    return held_out or [next(iter(frames.tensors(preprocess))).copy()]


def _distances(
    model: onnx.ModelProto, quantised: onnx.ModelProto, frames: FrameSet, bundle: Bundle
) -> dict[str, Difference]:
    """The worst difference of each output, both graphs in ONNX Runtime, pairs computed as they are written."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    # its fusions to integer kernels round in other places
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    first, second = (
        ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for graph in (model, quantised)
    )
    names = [output.name for output in first.get_outputs() if output.name != "anchors"]
    feed = first.get_inputs()[0].name
    worst: dict[str, Difference] = {}
    for tensor in _check_tensors(frames, bundle):
        for name, a, b in zip(names, first.run(names, {feed: tensor}), second.run(names, {feed: tensor}), strict=True):
            value = difference(np.asarray(b), np.asarray(a))
            if name not in worst or value.rel_l2 > worst[name].rel_l2:
                worst[name] = value
    return worst
