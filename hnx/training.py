"""What `hnx train` adds to the library: a progress bar, and validation by the measures of `hnx eval`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import Progress, TaskID

    from benchmarks.accuracy.records import ImageRecord
    from hybridnets.dataset import Sample
    from hybridnets.training.config import TrainConfig
    from hybridnets.training.events import StepEvent, ValidationEvent
    from hybridnets.training.validation import Scores

__all__ = ["Display", "EvalScorer", "make_scorer"]

_LINE_S = 10.0  # seconds between progress lines where there is no terminal


class Display:
    """Tells what a run does: a bar with loss terms and images/s on a terminal, now and then a line elsewhere."""

    def __init__(self, config: TrainConfig) -> None:
        from hnx.console import progress

        self._config = config
        self._progress: Progress = progress()
        self._task: TaskID | None = None
        self._told = 0.0

    def __enter__(self) -> Display:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def started(self, step: int, steps: int, folder: Path) -> None:
        """The run starts, or goes on, at this step."""
        self._task = self._progress.add_task("training", total=steps, completed=step, extra="")
        self._say(f"{'going on at' if step else 'training from'} step {step} of {steps} in {folder}")

    def note(self, text: str) -> None:
        """Something the user should know."""
        self._say(f"note: {text}")

    def stepped(self, event: StepEvent) -> None:
        """Steps were done."""
        parts = " ".join(f"{name} {event.terms[name]:.3g}" for name in ("loss", "cls", "reg", "seg") if event.terms)
        text = f"{parts}  {event.images_per_s:.3g} images/s"
        if event.waiting > 0.1:
            text += f" ({event.waiting:.0%} of it waiting for data)"
        if self._task is not None:
            self._progress.update(
                self._task, completed=event.step, description=f"epoch {event.epoch + 1}/{event.epochs}", extra=text
            )
        now = time.monotonic()
        if self._progress.disable and (now - self._told > _LINE_S or event.step == event.steps):
            self._told = now
            self._say(f"epoch {event.epoch + 1}/{event.epochs}, step {event.step}/{event.steps}: {text}")

    def validating(self, done: int, total: int) -> None:
        """Images of this process measured so far."""
        if self._task is not None:
            self._progress.update(self._task, extra=f"validating {done}/{total}")

    def validated(self, event: ValidationEvent) -> None:
        """A validation ended."""
        scores = event.validation.scores
        if scores is None:
            text = f"loss {event.validation.losses['loss']:.4g}"
        else:
            metrics = scores.metrics
            text = f"mAP50 {_number(metrics.get('mAP50'))}, mAP50-95 {_number(metrics.get('mAP50-95'))}"
            text += "".join(f", {name} IoU {_number(value)}" for name, value in scores.segmentation.items())
            text += f", fitness {event.fitness:.4f}"
        weights = "averaged weights" if event.averaged else "weights"
        best = ", best so far" if event.best else ""
        self._say(f"epoch {event.epoch + 1}: {weights} on {event.validation.images} images: {text}{best}")

    def _say(self, text: str) -> None:
        from hybridnets.errors import printable

        if self._progress.disable:
            print(printable(text), file=sys.stderr, flush=True)
        else:
            self._progress.console.print(printable(text), markup=False, highlight=False)


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"


class EvalScorer:
    """Scores images as `hnx eval` does, by the protocol `paper` with the thresholds of the run."""

    def __init__(self, config: TrainConfig) -> None:
        from benchmarks.accuracy.protocols import PROTOCOLS, Heads
        from benchmarks.accuracy.scoring import ImageScorer
        from hybridnets.anchors import make_anchors

        project = config.project
        protocol = replace(PROTOCOLS["paper"], conf=config.conf, iou=config.iou)
        self.frame_target = protocol.at == "frame"
        self._heads = Heads(project.classes, project.seg_list, project.seg_mode)
        anchors = make_anchors(*config.input_size, project.anchors)
        self._scorer = ImageScorer(protocol, self._heads, config.target, anchors)

    def score(self, sample: Sample, outputs: Mapping[str, NDArray[np.float32]]) -> ImageRecord:
        """The record of one image."""
        return self._scorer.score(sample, outputs)

    def summarise(self, records: Sequence[ImageRecord]) -> Scores:
        """Detection and segmentation figures of all images."""
        from benchmarks.accuracy.metrics import Accumulator
        from hybridnets.training.validation import Scores

        accumulator = Accumulator(self._heads)
        for record in records:
            accumulator.add(record)
        metrics = accumulator.metrics(coco=False)
        known = metrics.map50 is not None and metrics.map50_95 is not None
        detection = 0.1 * (metrics.map50 or 0.0) + 0.9 * (metrics.map50_95 or 0.0) if known else None
        return Scores(detection, {name: part.iou for name, part in metrics.seg.items()}, metrics.to_json())


def make_scorer(config: TrainConfig) -> EvalScorer:
    """The scorer of a run."""
    return EvalScorer(config)
