"""What precisions lose against float32: on labelled images, or in agreement where there are no labels."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy.config import EvalConfig
from benchmarks.accuracy.engine import EvalProgress, run_eval
from benchmarks.accuracy.measurable import unmeasurable, warnings_of
from benchmarks.accuracy.protocols import Heads
from benchmarks.accuracy.quick import task_names
from benchmarks.agreement import match_boxes
from benchmarks.report import row_name
from benchmarks.tuning.config import TuneConfig
from hybridnets.bundle import Bundle
from hybridnets.errors import HnxError
from hybridnets.postprocess import Prediction
from hybridnets.sources import open_source
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime
from runtimes.predictor import Pipeline

__all__ = ["Counts", "Losses", "measure_losses"]

# two boxes of this overlap mean the same car: mAP50 asks for as much
_IOU = 0.5


@dataclass(frozen=True)
class Losses:
    """Points lost against float32.

    Attributes:
        lost: precision to task to points; negative is a gain. Float32 is not in it.
        images: how many were looked at.
        source: name of the data set or folder.
        notes: what the user should know.
    """

    lost: dict[str, dict[str, float]]
    images: int
    source: str
    notes: tuple[str, ...] = ()


def measure_losses(
    config: TuneConfig,
    precisions: Sequence[str],
    on_progress: Callable[[int, int, str], None] = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Losses:
    """Losses of some precisions, none of them fp32.

    Args:
        on_progress: told how many inferences are done, how many there are, and what is at work.
        say: gets sentences that the user should read.

    Raises:
        HnxError: no image or frame can be read, no task can be measured, or a precision does not run.
    """
    if config.split is not None:
        return _with_labels(config, precisions, on_progress, say)
    return _by_agreement(config, precisions, on_progress)


# -- labels --------------------------------------------------------------------------------------------------


def _with_labels(
    config: TuneConfig,
    precisions: Sequence[str],
    on_progress: Callable[[int, int, str], None],
    say: Callable[[str], None],
) -> Losses:
    """By `hnx eval`'s own engine, which goes on where an interrupted run ended."""
    assert config.split is not None
    rows = [f"{config.runtime}:{name}" for name in ("fp32", *precisions)]
    plan = EvalConfig(
        config.bundle,
        config.split,
        runtimes=",".join(rows),
        limit=config.limit,
        threads=config.thread_count,
        baseline=rows[0],
        draws=0,
        store=config.store,
    )

    def show(state: EvalProgress) -> None:
        on_progress(state.done, state.total, f"{state.row} {state.text}".strip())

    report = run_eval(plan, show, say).report
    if report.skipped:
        row = report.skipped[0]
        raise HnxError(f"{row_name(row)} was not evaluated", why=row["skipped"]["reason"], fix=row["skipped"]["fix"])
    heads = Heads.for_bundle(config.bundle)
    wanted = task_names(heads)
    lost = {
        row["precision"]: {task: values["points"] for task, values in row["drop"]["metrics"].items() if task in wanted}
        for row in report.measured
        if "drop" in row
    }
    baseline = next(row for row in report.measured if row["precision"] == "fp32")
    if any(not tasks for tasks in lost.values()):
        raise HnxError(
            f"No task can be measured on {report.data['path']}",
            why="its labels hold no box and no area of the network's classes",
            fix="name labelled images with --data, or frames without labels with --frames",
        )
    notes = warnings_of(unmeasurable(baseline["metrics"], heads), heads, untrained=config.bundle.untrained)
    if broken := report.data["broken"]["count"]:
        notes.append(f"{broken} image(s) cannot be read and are left out; `hnx data check` names them")
    return Losses(lost, int(baseline["images"]), config.split.images.parent.parent.name or "data", tuple(notes))


# -- agreement -----------------------------------------------------------------------------------------------


class Counts:
    """How far one network's answers are another's, summed over frames.

    Args:
        bundle: of both.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._boxes = np.zeros(3, np.int64)  # of the reference, of the other, matched
        self._areas = np.zeros((len(bundle.seg_classes), 2), np.int64)  # pixels in both, in either

    def add(self, reference: Prediction, other: Prediction) -> None:
        """Take in one frame."""
        pair = reference.detections, other.detections
        self._boxes += [len(pair[0]), len(pair[1]), match_boxes(*pair, _IOU)]
        if reference.segmentation is None or other.segmentation is None:
            return
        for index in range(len(self._areas)):
            a, b = reference.mask(index), other.mask(index)
            self._areas[index] += [np.count_nonzero(a & b), np.count_nonzero(a | b)]

    def points(self) -> dict[str, float]:
        """Task to points of disagreement, 0 to 100: boxes without a partner, and areas outside of the intersection."""
        found = {}
        if self._bundle.detects:
            total = int(self._boxes[0] + self._boxes[1])
            found["boxes"] = 100.0 * (1 - 2 * int(self._boxes[2]) / total) if total else 0.0
        if self._bundle.segments:
            for name, (both, either) in zip(self._bundle.seg_classes, self._areas.tolist(), strict=True):
                found[name] = 100.0 * (1 - both / either) if either else 0.0
        return found

    @property
    def empty(self) -> bool:
        """Neither network found anything at all: agreement says nothing."""
        return not self._boxes[:2].any() and not self._areas.any()


def _by_agreement(
    config: TuneConfig, precisions: Sequence[str], on_progress: Callable[[int, int, str], None]
) -> Losses:
    assert config.frames is not None
    bundle = config.bundle
    counts = {name: Counts(bundle) for name in precisions}
    with contextlib.ExitStack() as stack:
        pipelines = {
            name: Pipeline(
                stack.enter_context(open_runtime(config.runtime, bundle, RuntimeOptions(name, config.thread_count)))
            )
            for name in ("fp32", *precisions)
        }
        source = stack.enter_context(open_source(config.frames))
        total = config.limit if source.length is None else min(config.limit, source.length)
        done = 0
        for frame in itertools.islice(source, config.limit):
            on_progress(done, total, "comparing with float32")
            found = {name: pipeline(frame.image) for name, pipeline in pipelines.items()}
            for name, count in counts.items():
                count.add(found["fp32"], found[name])
            done += 1
        problems = [str(problem.what) for problem in source.problems]
    if not done:
        raise HnxError(
            f"No frame of {config.frames} can be read",
            why="; ".join(problems[:3]) or "there is none",
            fix="name an image, a folder, a pattern or a video",
        )
    if all(count.empty for count in counts.values()) and counts:
        raise HnxError(
            f"Agreement cannot be measured on {config.frames}",
            why="float32 finds nothing on its frames, and nothing can be lost",
            fix="name frames of roads, or labelled images with --data",
        )
    notes = [f"{len(problems)} frame(s) cannot be read and are left out"] if problems else []
    if done < 16:
        notes.append(f"{done} frame(s) are few to tell what a precision loses; --frames takes a folder or a video")
    return Losses({name: count.points() for name, count in counts.items()}, done, source.name, tuple(notes))
