"""Our steps around the network against `benchmarks.reference`, taking turns: `python -m benchmarks.overhead`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import reference
from benchmarks.environment import Stopwatch
from benchmarks.sampling import wait_idle
from benchmarks.scripts import foreign_cores, is_busy, write_figures
from benchmarks.statistics import percentile
from hybridnets.anchors import make_anchors
from hybridnets.data import read_demo_frame
from hybridnets.postprocess import Postprocessor
from hybridnets.preprocess import Letterbox, Preprocessor

__all__ = ["TARGETS", "Comparison", "compare", "main", "measure", "synthetic_outputs"]

INPUT = (384, 640)
CLASSES, SEG_CLASSES = ("car",), ("road", "lane")
# what we promise, as a share of the reference's time
# (the promise must hold against plain numpy, too: torch's two threads need 7 ms on two quiet cores, 250 ms when
# another program uses one of them)
TARGETS = {"pre + post": 0.35, "pre + post, without torch": 0.35, "drawing": 0.10}
# A busy street: every car is found by a handful of neighbouring anchors
BOXES, CANDIDATES = 75, 500


def synthetic_outputs(target: tuple[int, int] = INPUT, *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Outputs as a trained network gives them on a busy street: 500 candidates around 75 boxes, a road, two lanes.

    Returns:
        regression (1, A, 4), classification (1, A, 1), segmentation (1, 3, H, W), float32.
    """
    random = np.random.default_rng(seed)
    height, width = target
    anchors = make_anchors(width, height).reshape(-1, 4).astype(np.float64)
    # one box in each of 15 x 5 cells: they do not overlap, so that all of them stay
    cell_w, cell_h = width / 15, height / 5
    centres = np.array([((x + 0.5) * cell_w, (y + 0.5) * cell_h) for y in range(5) for x in range(15)])
    sizes = random.uniform(0.5, 0.8, (BOXES, 2)) * (cell_w, cell_h)
    rows = random.choice(len(anchors), CANDIDATES, replace=False)
    which = np.arange(CANDIDATES) % BOXES
    jitter = random.normal(0, 0.02, (CANDIDATES, 2)) * sizes[which]
    x, y = (centres[which] + jitter).T
    w, h = sizes[which].T
    prior = anchors[rows]
    prior_h, prior_w = prior[:, 2] - prior[:, 0], prior[:, 3] - prior[:, 1]
    regression = random.normal(0, 0.1, (1, len(anchors), 4)).astype(np.float32)
    regression[0, rows] = np.stack(
        [
            (y - (prior[:, 0] + prior[:, 2]) / 2) / prior_h,
            (x - (prior[:, 1] + prior[:, 3]) / 2) / prior_w,
            np.log(h / prior_h),
            np.log(w / prior_w),
        ],
        axis=1,
    )
    classification = random.uniform(0, 0.05, (1, len(anchors), 1)).astype(np.float32)
    classification[0, rows, 0] = random.uniform(0.3, 0.99, CANDIDATES)

    logits = np.zeros((3, height, width), np.float32)
    road, lanes = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    corners = np.array([(0.42, 0.45), (0.58, 0.45), (1.0, 1.0), (0.0, 1.0)]) * (width, height)
    cv2.fillPoly(road, [corners.astype(np.int32)], 1.0)
    for left in (0.3, 0.7):
        top, bottom = (int(0.5 * width), int(0.45 * height)), (int(left * width), height - 1)
        cv2.line(lanes, top, bottom, 1.0, 8)
    noise = cv2.GaussianBlur(random.normal(0, 4, (height, width)).astype(np.float32), (0, 0), 8)
    logits[1] = 6 * (cv2.GaussianBlur(road, (0, 0), 3) - 0.5) + noise
    logits[2] = 8 * (cv2.GaussianBlur(lanes, (0, 0), 2) - 0.4) + noise
    return {"regression": regression, "classification": classification, "segmentation": logits[None]}


@dataclass(frozen=True)
class Comparison:
    """Two ways to do one thing.

    Attributes:
        name: of the thing.
        ours_ms, reference_ms: medians, milliseconds.
        ratio: median over the pairs of ours / reference.
        target: what we promise; None where nothing is.
        samples_ms: all samples of both, in the order in which they were taken.
    """

    name: str
    ours_ms: float
    reference_ms: float
    ratio: float
    target: float | None
    samples_ms: dict[str, list[float]]

    @property
    def met(self) -> bool:
        """The promise is kept, or there is none."""
        return self.target is None or self.ratio <= self.target


def compare(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    pairs: int = 100,
    warmup: int = 5,
    clock: Callable[[], int] = time.perf_counter_ns,
    settle: Callable[[], object] = wait_idle,
) -> Comparison:
    """Time two functions in turns, in the order ours, theirs, theirs, ours, so that none always comes second.

    Before each sample the threads of the sample before must sleep (torch's spin for some milliseconds and took 0.5 ms
    from OpenCV's), then one unrecorded call wakes the ones that are needed.

    Args:
        pairs: samples of each.
        warmup: unrecorded calls of each.
    """
    functions = {"ours": ours, "reference": theirs}
    samples: dict[str, list[float]] = {key: [] for key in functions}
    for _ in range(warmup):
        for function in functions.values():
            function()
    for index in range(pairs):
        for key in functions if index % 2 == 0 else reversed(functions):
            settle()
            functions[key]()
            start = clock()
            functions[key]()
            samples[key].append((clock() - start) / 1e6)
    ratios = [a / b for a, b in zip(samples["ours"], samples["reference"], strict=True) if b > 0]
    return Comparison(
        name=name,
        ours_ms=percentile(samples["ours"], 50),
        reference_ms=percentile(samples["reference"], 50),
        ratio=percentile(ratios, 50) if ratios else 0.0,
        target=TARGETS.get(name),
        samples_ms=samples,
    )


def measure(frame: NDArray[np.uint8], *, pairs: int = 100) -> list[Comparison]:
    """Preprocessing, postprocessing, both together, and drawing, of one frame at 640x384."""
    from hybridnets.draw import draw_overlay

    height, width = INPUT
    anchors = make_anchors(width, height)
    outputs = synthetic_outputs()
    before, after = Preprocessor(INPUT), Postprocessor(anchors, INPUT)
    box = Letterbox.fit((frame.shape[0], frame.shape[1]), INPUT)
    prediction = after(outputs, box)

    def ours() -> None:
        _, place = before(frame)
        after(outputs, place)

    def theirs() -> None:
        reference.preprocess(frame, INPUT)
        reference.postprocess(outputs, anchors, box)

    def theirs_without_torch() -> None:
        reference.preprocess_numpy(frame, INPUT)
        reference.postprocess(outputs, anchors, box, torch=False)

    found = [
        compare("preprocessing", lambda: before(frame), lambda: reference.preprocess(frame, INPUT), pairs=pairs),
        compare(
            "postprocessing",
            lambda: after(outputs, box),
            lambda: reference.postprocess(outputs, anchors, box),
            pairs=pairs,
        ),
        compare("pre + post", ours, theirs, pairs=pairs),
    ]
    if reference.has_torch():
        found.append(compare("pre + post, without torch", ours, theirs_without_torch, pairs=pairs))
    found.append(
        compare(
            "drawing",
            lambda: draw_overlay(frame, prediction, CLASSES, SEG_CLASSES),
            lambda: reference.draw(frame, prediction, CLASSES),
            pairs=pairs,
        )
    )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 3 when a target is missed and --check is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--pairs", type=int, default=100, help="samples of each side (default: 100)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples too")
    parser.add_argument("--check", action="store_true", help="exit with 3 when a target is missed")
    options = parser.parse_args(arguments)
    if options.pairs < 1:
        parser.error("--pairs counts from 1")
    watch = Stopwatch()
    found = measure(read_demo_frame(), pairs=options.pairs)
    wall, others = watch.stop()
    print(f"{'p50 in ms':28} {'ours':>8} {'reference':>10} {'ratio':>7}  target")
    for item in found:
        target = "" if item.target is None else f"<= {item.target:.2f} {'ok' if item.met else 'MISSED'}"
        print(f"{item.name:28} {item.ours_ms:8.3f} {item.reference_ms:10.3f} {item.ratio:7.3f}  {target}")
    kind = "torch tensors, as upstream runs it" if reference.has_torch() else "numpy (torch is not installed)"
    print(f"reference: {kind}")
    foreign = foreign_cores(wall, others)
    if is_busy(foreign):
        print(f"not valid: other programs kept {foreign:.1f} cores busy meanwhile; close them and measure again")
    if options.json is not None:
        report: dict[str, Any] = {
            "schema_version": 1,
            "foreign_cores": foreign,
            "rows": [asdict(item) | {"met": item.met} for item in found],
        }
        write_figures(options.json, report)
    return 3 if options.check and not all(item.met for item in found) else 0


if __name__ == "__main__":
    sys.exit(main())
