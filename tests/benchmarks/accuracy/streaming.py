"""Scores a long simulated evaluation and says how much memory it took: run by test_streaming in its own process.

python -m tests.benchmarks.accuracy.streaming IMAGES PREDICTIONS [CLASSES]
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.accuracy.bootstrap import intervals
from benchmarks.accuracy.metrics import Accumulator
from benchmarks.accuracy.protocols import Heads
from hybridnets.postprocess import Detections
from tests.benchmarks.accuracy.simulated import Scene, boxes_at, clipped, pixels, record_of

LABELS = 20


def crowd(random: np.random.Generator, predictions: int, classes: int) -> Scene:
    """20 labels, two predictions near each, the rest anywhere."""
    truth, number = boxes_at(random, LABELS), random.integers(0, classes, LABELS)
    size = np.tile(truth[:, 2:] - truth[:, :2], 2)
    near = clipped(np.tile(truth, (2, 1)) + random.normal(0, 0.1, (2 * LABELS, 4)) * np.tile(size, (2, 1)))
    boxes = np.concatenate([near, boxes_at(random, predictions - len(near))])
    kinds = np.concatenate([number, number, random.integers(0, classes, predictions - len(near))])
    scores = 0.001 + 0.998 * random.beta(1, 5, predictions)
    scores[: len(near)] = 0.001 + 0.998 * random.beta(3, 2, len(near))
    order = np.argsort(-scores)
    found = Detections(boxes[order].astype(np.float32), scores[order].astype(np.float32), kinds[order])
    return Scene(truth.astype(np.float32), number, found)


def memory(key: str) -> float:
    """MB of VmRSS, or of its highest value VmHWM, which unlike getrusage knows nothing of the parent process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def run(images: int, predictions: int, classes: int) -> dict[str, float]:
    """Everything from the first image to the last interval."""
    heads = Heads(tuple(f"c{index}" for index in range(classes)), ("road", "lane"))
    # what libraries keep for good is not growth: two images through everything first
    random = np.random.default_rng(0)
    made = crowd(random, predictions, classes)
    warm = Accumulator(heads)
    for name in ("a", "b"):
        warm.add(record_of(name, made, classes=classes, seg=pixels(random, 3)))
    warm.metrics()
    intervals({"warm": warm}, None, draws=2)
    accumulator, times = Accumulator(heads), []
    before = memory("VmRSS")
    for index in range(images):
        made, seg = crowd(random, predictions, classes), pixels(random, 3)
        start = time.perf_counter()
        accumulator.add(record_of(f"{index:06}", made, classes=classes, seg=seg))
        times.append(time.perf_counter() - start)
    scored = memory("VmRSS") - before
    start = time.perf_counter()
    metrics = accumulator.metrics()
    seconds, with_metrics = time.perf_counter() - start, memory("VmHWM") - before
    start = time.perf_counter()
    intervals({"row": accumulator}, None, draws=20)
    part = max(1, images // 10)
    return {
        "scored_mb": scored,
        "metrics_mb": with_metrics,
        "growth_mb": memory("VmHWM") - before,
        "first_ms": 1e3 * float(np.median(times[:part])),
        "last_ms": 1e3 * float(np.median(times[-part:])),
        "metrics_s": seconds,
        "intervals_s": time.perf_counter() - start,
        "map50": metrics.map50 or 0.0,
        "coco_ap": (metrics.coco.values or {}).get("AP") or 0.0 if metrics.coco else 0.0,
    }


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    print(json.dumps(run(numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else 1)))
