"""From a bundle and frames to INT8 (and FP16) networks inside the bundle: one calibration for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration.cache import CalibrationKey, calibration_key, default_place, read_ranges, write_ranges
from calibration.distances import worst_distances
from calibration.frames import FrameSet, select_frames
from calibration.graph import opset_of
from calibration.half import HalfModel, prove_half, raise_opset, to_half
from calibration.lint import Finding, Flavour, lint
from calibration.placement import PLACEMENTS, Placement, Plan, check_exclusions, make_plan, placement
from calibration.qdq import insert_qdq
from calibration.ranges import Range, RangeConfig, measure_ranges, measured_tensors
from calibration.strong import prove_strong
from calibration.variants import NewVariant, add_variants, float_model
from hybridnets.bundle import Bundle
from hybridnets.difference import Difference
from hybridnets.errors import ExitCode, HnxError, did_you_mean

if TYPE_CHECKING:
    import onnx

__all__ = ["TARGETS", "Calibrated", "Made", "QuantiseConfig", "Quantised", "calibrate", "quantise", "variant_of"]

# what `--for` takes -> the placement; fp16 quantises nothing
TARGETS: dict[str, str | None] = {**{name: name for name in PLACEMENTS}, "fp16": None}
_WEAK_OPSET = 17
# what computes in the FP16 types of a file; weakly typed TensorRT makes FP16 from the float32 network by a flag
HALF_RUNTIMES = ("tensorrt-strong", "onnxruntime-cuda")


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
        per_tensor: one scale for every activation, for all targets.

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
    per_tensor: bool = False

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
        outputs: the worst difference of each of the network's own outputs to FP32 on held-out frames.
        notes: what the user should know.
    """

    variant: NewVariant
    plan: Plan | None
    outputs: Mapping[str, Difference]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibrated:
    """A float network and the ranges of its activations.

    Attributes:
        model: the network.
        ranges: of its tensors.
        frames: what they were measured on.
        key: everything that decided them.
        place: file of the ranges.
        reused: they were read from there.
    """

    model: onnx.ModelProto
    ranges: Mapping[str, Range]
    frames: FrameSet
    key: CalibrationKey
    place: Path
    reused: bool


@dataclass(frozen=True)
class Quantised:
    """The result of one call.

    Attributes:
        bundle: with the new networks.
        calibrated: what they were made from.
        made: every new network.
    """

    bundle: Bundle
    calibrated: Calibrated
    made: tuple[Made, ...]


def calibrate(
    bundle: Bundle,
    config: QuantiseConfig,
    on_step: Callable[[str], None] = lambda _: None,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> Calibrated:
    """Choose frames and measure ranges on them, or read those that are kept.

    Args:
        on_step: told what happens next.
        on_frame: told how many inferences are done, and how many there are.

    Raises:
        HnxError: an exclusion has no effect on any target (exit code 2), no frame can be read, or the file of ranges
            belongs to something else.
    """
    model = float_model(bundle)
    check_exclusions(model, [placement(name) for name in config.targets if TARGETS[name] is not None], config.exclude)
    on_step("choosing frames")
    frames = select_frames(config.source, config.frames, seed=config.seed, split=config.split)
    key = calibration_key(model, frames, config.ranges, bundle)
    place = default_place(key) if config.cache is None else config.cache
    if not config.fresh and place.exists():
        return Calibrated(model, read_ranges(place, key, measured_tensors(model)), frames, key, place, reused=True)
    on_step(f"measuring ranges on {len(frames)} frames")
    passes = 1 if config.ranges.method == "max" else 2
    ranges = measure_ranges(
        model,
        lambda: frames.tensors(bundle.preprocessor()),
        config.ranges,
        on_frame=lambda done: on_frame(done, max(done, passes * len(frames))),
    )
    write_ranges(place, key, ranges)
    return Calibrated(model, ranges, frames, key, place, reused=False)


def quantise(
    bundle: Bundle,
    config: QuantiseConfig,
    found: Calibrated,
    on_step: Callable[[str], None] = lambda _: None,
    *,
    keep: Collection[str] = (),
) -> Quantised:
    """Put a network for each target into the bundle.

    Args:
        found: of `calibrate`, with the same bundle and configuration.
        on_step: told what happens next.
        keep: blocks that stay float, beside what the configuration excludes.

    Raises:
        HnxError: nothing is left to quantise (exit code 2), a rule of TensorRT is broken or an FP16 file computes
            something else (bugs), or the bundle cannot be written.
    """
    made = []
    for target in config.targets:
        on_step(f"making {target}")
        made += _make(target, found, config, bundle, keep)
    on_step("writing the bundle")
    origin = {"calibration": {**found.key.to_json(), "source": Path(config.source).name, "seed": config.seed}}
    variants = [
        replace(
            entry.variant,
            details={
                **origin,
                **entry.variant.details,
                "rel_l2": {name: value.rel_l2 for name, value in entry.outputs.items()},
            },
        )
        for entry in made
    ]
    return Quantised(add_variants(bundle, variants), found, tuple(made))


def variant_of(target: str, found: Calibrated, config: QuantiseConfig, keep: Collection[str] = ()) -> NewVariant:
    """The INT8 network of one target, not checked and not written: what a search measures.

    Raises:
        HnxError: nothing is left to quantise (exit code 2).
    """
    where = placement_of(target, config)
    plan = make_plan(found.model, where, exclude=config.exclude, keep=keep)
    model = insert_qdq(
        found.model,
        found.ranges,
        where,
        exclude=config.exclude,
        keep=keep,
        bias_correction=config.bias_correction,
        plan=plan,
    )
    details = {
        "placement": target,
        "activation_scales": "channel" if where.channelwise else "tensor",
        "exclude": list(config.exclude),
        "kept_float": sorted(keep),
        "method": config.ranges.describe(),
    }
    runtimes = (target,) if target != "tensorrt" else ("tensorrt-weak",)
    return NewVariant("int8", runtimes[0], runtimes, model, details)


def placement_of(target: str, config: QuantiseConfig) -> Placement:
    """The preset of a target, with what the configuration changes of it."""
    where = placement(target)
    return replace(where, channelwise=False) if config.per_tensor else where


def _make(target: str, found: Calibrated, config: QuantiseConfig, bundle: Bundle, keep: Collection[str]) -> list[Made]:
    """The networks of one target; TensorRT has two."""
    if target == "fp16":
        return [_half(found, bundle)]
    plan = make_plan(found.model, placement(target), exclude=config.exclude, keep=keep)
    variant = variant_of(target, found, config, keep)
    tensors = _check_tensors(found.frames, bundle)
    made = Made(variant, plan, worst_distances(found.model, variant.model, tensors, optimised=True))
    if target != "tensorrt":
        return [made]
    strong = _strong(made, found, tensors)
    opset = opset_of(variant.model)
    if opset > _WEAK_OPSET:
        missing = f"no weakly typed network for TensorRT 8.5 to 10: opset {opset} is above {_WEAK_OPSET}"
        note = f"{missing}; hnx export --opset {_WEAK_OPSET} makes a bundle that gets one"
        return [replace(strong, notes=(*strong.notes, note))]
    _require_clean(variant.model, "weak")
    return [made, strong]


def _strong(weak: Made, found: Calibrated, tensors: Sequence[np.ndarray]) -> Made:
    half = to_half(raise_opset(weak.variant.model), _extremes(found.ranges))
    _require_clean(half.model, "strong")
    outputs = prove_strong(found.model, half, weak.outputs, tensors)
    variant = replace(weak.variant, label="tensorrt-strong", runtimes=("tensorrt-strong",), model=half.model)
    return Made(variant, weak.plan, outputs, _kept(half))


def _half(found: Calibrated, bundle: Bundle) -> Made:
    half = to_half(found.model, _extremes(found.ranges))
    outputs = prove_half(found.model, half, _check_tensors(found.frames, bundle))
    variant = NewVariant("fp16", "gpu", HALF_RUNTIMES, half.model)
    return Made(variant, None, outputs, _kept(half))


def _kept(half: HalfModel) -> tuple[str, ...]:
    return tuple(f"{name} stays in FP32: {why}" for name, why in half.kept.items())


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
