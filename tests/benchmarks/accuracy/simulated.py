"""Random scenes with labels and predictions that resemble a detector's: some labels missed, some found twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.records import CocoMatches, ImageRecord
from benchmarks.accuracy.scoring import score_boxes
from hybridnets.postprocess import Detections

WIDTH, HEIGHT = 1280, 720


@dataclass(frozen=True)
class Scene:
    """Boxes of one image in frame pixels."""

    labels: NDArray[np.float32]
    number: NDArray[np.int64]
    found: Detections


def boxes_at(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Boxes of 5 to 300 px anywhere in the frame."""
    centre, half = random.uniform(0, 1, (count, 2)) * [WIDTH, HEIGHT], np.exp(random.uniform(1, 5, (count, 2)))
    return clipped(np.concatenate([centre - half, centre + half], axis=1))


def clipped(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """As both labels and predictions are before they are compared."""
    return np.clip(boxes, 0, [WIDTH, HEIGHT] * 2)


def scene(
    random: np.random.Generator,
    *,
    classes: int = 1,
    labels: int = 8,
    predictions: int = 40,
    noise: float = 0.1,
    ties: bool = False,
) -> Scene:
    """One image; at most `labels` labels, some images have none, some no predictions."""
    count = int(random.integers(0, labels + 1))
    truth, number = boxes_at(random, count), random.integers(0, classes, count)
    near = random.integers(0, count, int(random.integers(0, 2 * count + 1))) if count else np.zeros(0, np.int64)
    size = np.tile(truth[near, 2:] - truth[near, :2], 2)
    close = clipped(truth[near] + random.normal(0, noise, (len(near), 4)) * size)
    far = boxes_at(random, int(random.integers(0, max(1, predictions - len(near)))))
    kinds = np.concatenate([number[near], random.integers(0, classes, len(far))])
    scores = np.concatenate([random.beta(4, 2, len(near)), random.beta(1, 6, len(far))]) * 0.998 + 0.001
    if ties:
        scores = np.maximum(np.round(scores, 1), 0.1)
    order = np.argsort(-scores, kind="stable")
    boxes = np.concatenate([close, far])[order].astype(np.float32)
    return Scene(truth.astype(np.float32), number, Detections(boxes, scores[order].astype(np.float32), kinds[order]))


def record_of(name: str, made: Scene, *, classes: int = 1, seg: Any = None, sha: str = "") -> ImageRecord:
    """What the scorer makes of a scene."""
    parts = score_boxes(made.labels, made.number, made.found, classes)
    counts = np.zeros((0, 4), np.int64) if seg is None else np.asarray(seg, np.int64)
    return ImageRecord(name=name, input_sha256=sha, seg=counts, **parts)


def pixels(random: np.random.Generator, channels: int, *, good: float = 0.9) -> NDArray[np.int64]:
    """(channels, 4) counts of a 100x100 map whose classes are found with that probability; some are absent."""
    true = np.where(random.random(channels) < 0.2, 0, random.integers(1, 3000, channels))
    hit = (true * np.clip(random.normal(good, 0.05, channels), 0, 1)).astype(np.int64)
    false = np.where(random.random(channels) < 0.3, 0, random.integers(0, 400, channels))
    return np.stack([hit, false, true - hit, 10_000 - true - false], axis=1)


def same_record(first: ImageRecord, second: ImageRecord) -> bool:
    """Equal to the last bit, types included."""

    def equal(one: Any, two: Any) -> bool:
        if isinstance(one, CocoMatches):
            return all(equal(value, getattr(two, key)) for key, value in vars(one).items())
        if isinstance(one, str):
            return bool(one == two)
        return one.dtype == two.dtype and one.shape == two.shape and bool((one == two).all())

    return all(equal(value, getattr(second, key)) for key, value in vars(first).items())
