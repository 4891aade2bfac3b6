"""How far two deployments agree: raw outputs, boxes and masks, on the same input bytes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.bundle import Bundle
from hybridnets.difference import Difference, difference
from hybridnets.errors import ExitCode, HnxError
from hybridnets.postprocess import Detections, Prediction
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime
from runtimes.predictor import Pipeline

__all__ = ["TOLERANCES", "Agreement", "Side", "compare", "match_boxes"]

# Largest accepted relative L2 of an output, by the coarser precision of the two. float32 runtimes differ by the
# order of their sums (2e-6 on c3); bf16 keeps 8 bits of mantissa, fp16 11, and the network is 100 layers deep.
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1, "int8": 3e-1}
MATCH_IOU = 0.9  # two boxes of this overlap are the same box
MIN_BOXES = 0.98  # share of boxes that must have a partner
MIN_PIXELS = 0.99  # share of pixels that must have the same class


@dataclass(frozen=True)
class Side:
    """One of the two deployments."""

    bundle: Bundle
    runtime: str
    precision: str

    def __str__(self) -> str:
        return f"{self.runtime}:{self.precision} of {self.bundle.name}"


@dataclass(frozen=True)
class Agreement:
    """The result over all frames.

    Attributes:
        outputs: the worst difference of each output of numbers that both sides give in the same form.
        boxes: (on the first side, on the second, matched).
        box_agreement: matched boxes over the larger count; 1 when there are none on either side.
        pixel_agreement: share of pixels with the same class; None without a segmentation head.
        tolerance: the limit that held for `outputs`.
        problems: a sentence for each limit exceeded.
        input_sha256: of the network inputs of the first side, in order; the second's are made of the same canvas.
    """

    first: str
    second: str
    executed: tuple[str, str]
    frames: int
    outputs: dict[str, Difference]
    boxes: tuple[int, int, int]
    box_agreement: float
    pixel_agreement: float | None
    tolerance: float
    problems: tuple[str, ...]
    input_sha256: str

    def to_json(self) -> dict[str, Any]:
        """For a report file."""
        outputs = {
            name: {key: value if math.isfinite(value) else None for key, value in asdict(item).items()}
            for name, item in self.outputs.items()
        }
        return {"schema_version": 1, **asdict(self), "outputs": outputs}


def match_boxes(first: Detections, second: Detections, iou: float = MATCH_IOU) -> int:
    """Pairs of boxes of one class that overlap by at least `iou`; each box is used once, best scores first."""
    matched = 0
    free = np.ones(len(second), bool)
    for box, kind in zip(first.boxes, first.classes, strict=True):
        candidates = np.flatnonzero(free & (second.classes == kind))
        if not len(candidates):
            continue
        overlap = _iou(box, second.boxes[candidates])
        best = int(np.argmax(overlap))
        if overlap[best] >= iou:
            free[candidates[best]] = False
            matched += 1
    return matched


def _iou(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """(m,) IoU of one box with many; identical boxes count 1 whatever their area."""
    a, b = box.astype(np.float64), others.astype(np.float64)
    size = np.clip(np.minimum(a[2:], b[:, 2:]) - np.maximum(a[:2], b[:, :2]), 0, None)
    inter = size[:, 0] * size[:, 1]
    union = np.prod(a[2:] - a[:2]) + np.prod(b[:, 2:] - b[:, :2], axis=1) - inter
    same = np.abs(a - b).max(axis=1) < 1e-3
    return np.where(same, 1.0, np.divide(inter, union, out=np.zeros_like(inter), where=union > 0))


def compare(
    first: Side,
    second: Side,
    frames: Iterable[NDArray[Any]],
    *,
    threads: int | None = None,
    conf: float | None = None,
    iou: float | None = None,
    tolerance: float | None = None,
) -> Agreement:
    """Run both sides on the same preprocessed frames.

    Args:
        frames: uint8 (h, w, 3) BGR.
        conf, iou: thresholds of the boxes; None is what a side's graph suppresses with, else 0.25 and 0.3.
        tolerance: limit of the relative L2 of each output; default from `TOLERANCES`.

    Raises:
        HnxError: the two cannot be compared, or one cannot run.
    """
    _check_comparable(first.bundle, second.bundle)
    conf, iou = _thresholds(first.bundle, second.bundle, conf, iou)
    same_input = first.bundle.form.input == second.bundle.form.input
    roles = _common_numbers(first.bundle, second.bundle)
    with ExitStack() as stack:
        runtimes = [
            stack.enter_context(
                open_runtime(side.runtime, side.bundle, RuntimeOptions(precision=side.precision, threads=threads))
            )
            for side in (first, second)
        ]
        a, b = (Pipeline(runtime, conf=conf, iou=iou) for runtime in runtimes)
        worst: dict[str, Difference] = {}
        counts, pixels, same, total = np.zeros(3, np.int64), 0, 0, 0
        digest = hashlib.sha256()
        for frame in frames:
            tensor, box = a.preprocess(frame)
            digest.update(tensor.tobytes())
            raw_a = a.network(tensor)
            raw_b = b.network(tensor if same_input else b.preprocess(frame)[0])
            for role in roles & raw_a.keys() & raw_b.keys():
                value = difference(raw_b[role], raw_a[role])
                if role not in worst or value.rel_l2 > worst[role].rel_l2:
                    worst[role] = value
            found_a, found_b = a.postprocess(raw_a, box), b.postprocess(raw_b, box)
            counts += _count(found_a, found_b)
            if found_a.segmentation is not None and found_b.segmentation is not None:
                pixels += found_a.segmentation.size
                same += int(np.count_nonzero(found_a.segmentation == found_b.segmentation))
            total += 1
        executed = (runtimes[0].execution.precision, runtimes[1].execution.precision)
        limit = max(TOLERANCES[name] for name in executed) if tolerance is None else tolerance
    if not total:
        raise HnxError("No frame was compared", why="the source is empty", fix="name an image, folder or video")
    larger = int(max(counts[0], counts[1]))
    box_agreement = float(counts[2]) / larger if larger else 1.0
    pixel_agreement = same / pixels if pixels else None
    return Agreement(
        first=str(first),
        second=str(second),
        executed=executed,
        frames=total,
        outputs={role: worst[role] for role in sorted(worst)},
        boxes=(int(counts[0]), int(counts[1]), int(counts[2])),
        box_agreement=box_agreement,
        pixel_agreement=pixel_agreement,
        tolerance=limit,
        problems=tuple(_problems(worst, limit, box_agreement, pixel_agreement)),
        input_sha256=digest.hexdigest(),
    )


def _check_comparable(first: Bundle, second: Bundle) -> None:
    reasons = [
        name
        for name, a, b in (
            ("input size", first.target, second.target),
            ("preprocessing", (first.mean, first.std), (second.mean, second.std)),
            ("detection classes", len(first.classes), len(second.classes)),
            ("segmentation", (first.seg_mode, len(first.seg_classes)), (second.seg_mode, len(second.seg_classes))),
        )
        if a != b
    ]
    if not (first.detects and second.detects) and not (first.segments and second.segments):
        reasons.append("outputs")
    if reasons:
        raise HnxError(
            f"{first.name} and {second.name} cannot be compared",
            why=f"they differ in {', '.join(reasons)}",
            fix="export both from the same project at the same size",
            code=ExitCode.USAGE,
        )


def _thresholds(first: Bundle, second: Bundle, conf: float | None, iou: float | None) -> tuple[float, float]:
    """Those of both sides; what one graph suppresses with decides, since it cannot give other boxes.

    Raises:
        HnxError: what was asked for, or what the other graph does, is something else (exit code 2).
    """
    forms = [bundle.form for bundle in (first, second) if bundle.form.nms is not None]
    if not forms:
        return first.form.thresholds(conf, iou)
    found = [form.thresholds(None, iou) for form in forms]
    chosen = max(value for value, _ in found) if conf is None else conf
    # a higher score threshold than a graph's drops no box for another, so both sides can have the higher one
    pairs = [form.thresholds(chosen, found[0][1]) for form in forms]
    return pairs[0]


def _common_numbers(first: Bundle, second: Bundle) -> set[str]:
    """Roles of outputs that can be compared number by number: neither rows of boxes in an order, nor class numbers."""
    roles = set(first.outputs) & set(second.outputs) - {"detections"}
    forms = {first.form.segmentation, second.form.segmentation}
    if "classmap" in forms or len(forms) > 1:
        roles.discard("segmentation")
    return roles


def _count(a: Prediction, b: Prediction) -> NDArray[np.int64]:
    return np.array([len(a.detections), len(b.detections), match_boxes(a.detections, b.detections)])


def _problems(
    outputs: dict[str, Difference], limit: float, box_agreement: float, pixel_agreement: float | None
) -> list[str]:
    found = [
        f"{role}: relative L2 {value.rel_l2:.2e} is above {limit:.0e}"
        for role, value in sorted(outputs.items())
        if not value.rel_l2 <= limit
    ]
    if box_agreement < MIN_BOXES:
        found.append(f"boxes: only {box_agreement:.1%} have a partner, {MIN_BOXES:.0%} are needed")
    if pixel_agreement is not None and pixel_agreement < MIN_PIXELS:
        found.append(f"masks: only {pixel_agreement:.2%} of the pixels agree, {MIN_PIXELS:.0%} are needed")
    return found
