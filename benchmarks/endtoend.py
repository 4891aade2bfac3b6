"""Camera frame to boxes and masks of its size, against upstream's pipeline: `python -m benchmarks.endtoend BUNDLE`.

Ours is what `hnx.load` gives, for each bundle, runtime and precision that is named. The reference does the same in the
straightforward way of upstream's scripts (`benchmarks.reference`): PyTorch in eager mode and float32, with the weights
of the first bundle, resizing and normalising the whole frame, decoding every box. Both get as many threads, nothing is
drawn, and all of them live in one process and take turns, forwards and then backwards, so that a drifting machine slows
all alike. What counts is the ratio inside each round; beside it stands how far the results are the same.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import reference
from benchmarks.agreement import match_boxes
from benchmarks.environment import Stopwatch, describe_environment
from benchmarks.frames import decode_jpeg, load_frames
from benchmarks.scripts import exit_code, foreign_cores, is_busy, write_figures
from benchmarks.statistics import percentile, summarise
from benchmarks.turns import Timing, take_turns
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.errors import ExitCode, HnxError
from hybridnets.postprocess import Prediction
from hybridnets.preprocess import Letterbox
from runtimes.base import RuntimeOptions, available_threads
from runtimes.opening import obstacle, open_runtime
from runtimes.predictor import Pipeline
from runtimes.registry import RuntimeEntry, parse_runtimes, probe

__all__ = ["REFERENCE", "STAGES", "Equality", "Row", "Staged", "equality", "main", "measure", "rows"]

REFERENCE = "reference"
STAGES = ("pre", "run", "post")
SCHEMA_VERSION = 1
# two boxes of this overlap are the same box
MATCH_IOU = 0.9


class Stages(Protocol):
    """The three stages of one frame."""

    def preprocess(self, frame: NDArray[Any], /) -> tuple[Any, Letterbox]: ...
    def network(self, tensor: Any, /) -> dict[str, NDArray[Any]]: ...
    def postprocess(self, outputs: dict[str, NDArray[Any]], box: Letterbox, /) -> Prediction: ...


class Staged:
    """One pipeline, run frame after frame, that remembers how long the stages of the last frame took.

    Attributes:
        last_ms: milliseconds of each of `STAGES`.
    """

    def __init__(self, stages: Stages, frames: Sequence[NDArray[np.uint8]]) -> None:
        self._stages, self._frames = stages, itertools.cycle(frames)
        self.last_ms: tuple[float, ...] = ()

    def __call__(self) -> Prediction:
        """The next frame."""
        return self.predict(next(self._frames))

    def predict(self, frame: NDArray[np.uint8]) -> Prediction:
        """One frame."""
        t0 = time.perf_counter_ns()
        tensor, box = self._stages.preprocess(frame)
        t1 = time.perf_counter_ns()
        outputs = self._stages.network(tensor)
        t2 = time.perf_counter_ns()
        found = self._stages.postprocess(outputs, box)
        t3 = time.perf_counter_ns()
        self.last_ms = ((t1 - t0) / 1e6, (t2 - t1) / 1e6, (t3 - t2) / 1e6)
        return found


@dataclass(frozen=True)
class Equality:
    """How far results are the reference's.

    Attributes:
        boxes: (of the reference, of this row, matched), over all frames.
        score: largest difference of a score, where both have as many boxes in a frame; None where none has.
        pixels: share of the masks' pixels with the same class.
    """

    boxes: tuple[int, int, int]
    score: float | None
    pixels: float


def equality(expected: Sequence[Prediction], found: Sequence[Prediction]) -> Equality:
    """Results of the same frames, in their order."""
    counts, same, pixels = np.zeros(3, np.int64), 0, 0
    scores: list[float] = []
    for a, b in zip(expected, found, strict=True):
        matched = match_boxes(a.detections, b.detections, MATCH_IOU)
        counts += (len(a.detections), len(b.detections), matched)
        if 0 < len(a.detections) == len(b.detections):
            scores.append(float(np.abs(np.sort(a.detections.scores) - np.sort(b.detections.scores)).max()))
        assert a.segmentation is not None
        assert b.segmentation is not None
        same += int(np.count_nonzero(a.segmentation == b.segmentation))
        pixels += a.segmentation.size
    return Equality((int(counts[0]), int(counts[1]), int(counts[2])), max(scores, default=None), same / pixels)


@dataclass(frozen=True)
class Row:
    """One pipeline against the reference.

    Attributes:
        name: `bundle runtime:precision`.
        p50_ms: median of all samples.
        stages_ms: median of each of `STAGES`.
        ratio: median over the rounds of the ratio of their medians.
        interval: 95 % interval of that median, from the order of the rounds' ratios.
        cpu_ratio: as `ratio`, of CPU time.
        equality: None for the reference itself.
    """

    name: str
    p50_ms: float
    stages_ms: dict[str, float]
    ratio: float
    interval: tuple[float, float]
    cpu_ratio: float
    equality: Equality | None


def rows(
    timings: Mapping[str, Timing],
    stages: Mapping[str, Sequence[Sequence[float]]],
    same: Mapping[str, Equality],
) -> list[Row]:
    """A row for each pipeline; `REFERENCE` is what the others are compared with.

    Args:
        stages: name to the times of `STAGES` in each sample.
    """
    base = timings[REFERENCE]
    found = []
    for name, timing in timings.items():
        wall = summarise(_ratios(timing.wall, base.wall))
        found.append(
            Row(
                name=name,
                p50_ms=percentile([sample for part in timing.wall for sample in part], 50),
                stages_ms={
                    stage: percentile([sample[index] for sample in stages[name]], 50)
                    for index, stage in enumerate(STAGES)
                },
                ratio=wall.median,
                interval=(wall.median_low, wall.median_high),
                cpu_ratio=percentile(_ratios(timing.cpu, base.cpu), 50),
                equality=same.get(name),
            )
        )
    return found


def _ratios(rounds: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> list[float]:
    return [percentile(a, 50) / percentile(b, 50) for a, b in zip(rounds, base, strict=True)]


def measure(
    pipelines: Mapping[str, Staged], frames: Sequence[NDArray[np.uint8]], *, rounds: int, samples: int
) -> tuple[dict[str, Timing], dict[str, list[tuple[float, ...]]], dict[str, Equality]]:
    """Times, stage times of each sample, and equality to `REFERENCE`, which is one of them."""
    results = {name: [pipeline.predict(frame) for frame in frames] for name, pipeline in pipelines.items()}
    same = {name: equality(results[REFERENCE], found) for name, found in results.items() if name != REFERENCE}
    stages: dict[str, list[tuple[float, ...]]] = {name: [] for name in pipelines}
    timings = take_turns(
        pipelines,
        rounds=rounds,
        samples=samples,
        after=lambda name: stages[name].append(pipelines[name].last_ms),
    )
    return timings, stages, same


def labels(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    """What rows of each bundle are called: its name, or where it is when another bundle has the same name."""
    return [name if names.count(name) == 1 else str(path) for path, name in zip(paths, names, strict=True)]


@contextlib.contextmanager
def _opened(
    bundles: Mapping[str, Bundle],
    wanted: Sequence[tuple[RuntimeEntry, str | None]],
    frames: Sequence[NDArray[np.uint8]],
    threads: int,
) -> Iterator[tuple[dict[str, Staged], dict[str, str]]]:
    """Every pipeline that can run, the reference first, and the reason of each that cannot."""
    import torch

    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        found = {REFERENCE: Staged(reference.UpstreamPipeline(next(iter(bundles.values()))), frames)}
        for (shown, bundle), (row, precision) in itertools.product(bundles.items(), wanted):
            state = probe(row)
            for name in row.precisions if precision is None else (precision,):
                label = f"{shown} {row.name}:{name}"
                problem = state.reason or state.precisions.get(name)
                if not problem and (obstruction := obstacle(bundle, row, name)) is not None:
                    problem = obstruction["reason"]
                if problem:
                    skipped[label] = problem
                    continue
                runtime = stack.enter_context(open_runtime(row.name, bundle, RuntimeOptions(name, threads)))
                found[label] = Staged(Pipeline(runtime), frames)
        # opening a runtime may set either
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        yield found, skipped


def _print(found: Sequence[Row], skipped: Mapping[str, str], heading: str) -> None:
    print(heading)
    width = max(len(row.name) for row in found)
    head = f"{'':{width}} {'p50 ms':>8} {'pre':>6} {'run':>8} {'post':>6} {'ratio':>6} {'interval':>14} {'CPU':>6}"
    print(head + "  boxes (reference, row, matched), scores within, pixels equal")
    for row in found:
        stages = row.stages_ms
        interval = f"{row.interval[0]:.3f} to {row.interval[1]:.3f}"
        text = ""
        if row.equality is not None:
            score = "-" if row.equality.score is None else f"{row.equality.score:.1e}"
            text = f"  {', '.join(map(str, row.equality.boxes))}; {score}; {row.equality.pixels:.4%}"
        print(
            f"{row.name:{width}} {row.p50_ms:8.2f} {stages['pre']:6.2f} {stages['run']:8.2f} {stages['post']:6.2f} "
            f"{row.ratio:6.3f} {interval:>14} {row.cpu_ratio:6.3f}{text}"
        )
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")


def _main(options: argparse.Namespace) -> int:
    paths = list(dict.fromkeys(options.bundles))
    opened = [open_bundle(path) for path in paths]
    bundles = dict(zip(labels(paths, [bundle.name for bundle in opened]), opened, strict=True))
    wanted = parse_runtimes(options.runtime)
    threads = options.threads or available_threads()
    frames = [decode_jpeg(data) for data in load_frames(options.source)]
    with _opened(bundles, wanted, frames, threads) as (pipelines, skipped):
        watch = Stopwatch()
        timings, stages, same = measure(pipelines, frames, rounds=options.rounds, samples=options.samples)
        wall, others = watch.stop()
    found = rows(timings, stages, same)
    sizes = sorted({f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames})
    where = f"{len(frames)} frame(s) of {', '.join(sizes)}, {threads} thread(s), {options.rounds} rounds"
    _print(found, skipped, f"{where}; ratios to PyTorch eager float32 of {next(iter(bundles))}")
    foreign = foreign_cores(wall, others)
    if is_busy(foreign):
        print(f"busy machine: other programs kept {foreign:.1f} cores busy meanwhile; look at the CPU column")
    if options.json is not None:
        report: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "bundles": list(bundles),
            "frames": {"count": len(frames), "sizes": sizes},
            "threads": threads,
            "rounds": options.rounds,
            "samples": options.samples,
            "foreign_cores": foreign,
            "environment": describe_environment(),
            "rows": [
                asdict(row) | {"samples_ms": {**asdict(timings[row.name]), "stages": stages[row.name]}} for row in found
            ],
            "skipped": skipped,
        }
        write_figures(options.json, report)
    ours = [row for row in found if row.name != REFERENCE]
    if not ours:
        raise HnxError(
            "None of the rows could run here", why="; ".join(skipped.values())[:300], fix="hnx doctor",
            code=ExitCode.NOTHING_RAN,
        )  # fmt: skip
    best = min(ours, key=lambda row: row.ratio)
    print(f"fastest: {best.name}, {best.ratio:.3f} of the reference's time")
    if options.check is not None and best.ratio > options.check:
        print(f"the limit is {options.check:.3f}")
        return int(ExitCode.GATE_FAILED)
    return int(ExitCode.OK)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 3 where every row stays above the ratio given with --check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endtoend", description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="the first holds the weights")
    parser.add_argument(
        "--runtime", default="openvino:fp32,openvino:bf16", help="R[:PRECISION],... (default: %(default)s)"
    )
    parser.add_argument("--source", help="image, folder, pattern or video (default: the shipped 1280x720 frame)")
    parser.add_argument("--rounds", type=int, default=8, help="each goes through all rows twice (default: 8)")
    parser.add_argument("--samples", type=int, default=3, help="frames at each turn (default: 3)")
    parser.add_argument("--threads", type=int, help="of every row and the reference (default: all available)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples too")
    parser.add_argument("--check", type=float, metavar="RATIO", help="exit with 3 when every row needs more")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.samples < 1 or (options.threads is not None and options.threads < 1):
        parser.error("--rounds, --samples and --threads count from 1")
    return exit_code(lambda: _main(options))


if __name__ == "__main__":
    sys.exit(main())
