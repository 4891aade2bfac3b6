"""An evaluation as commands run it: with a progress bar, remarks and pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.accuracy.config import EvalConfig
    from benchmarks.accuracy.summary import EvalResult

__all__ = ["draw", "evaluate"]


def evaluate(config: EvalConfig) -> EvalResult:
    """Run an evaluation; progress and remarks go to standard error.

    Raises:
        HnxError: see `benchmarks.accuracy.engine.run_eval`.
    """
    from benchmarks.accuracy.engine import EvalProgress, run_eval
    from hnx.console import note, progress

    with progress() as bar:
        task = bar.add_task("evaluating", total=None, extra="")
        at = ""

        def show(state: EvalProgress) -> None:
            nonlocal at
            bar.update(task, completed=state.done, total=state.total, extra=f"{state.row} {state.text}".strip())
            # a log wants to know what it waits for, not every image
            if bar.disable and state.row != at:
                print(f"evaluating {state.row}" if state.row else "computing intervals", file=sys.stderr, flush=True)
            at = state.row

        try:
            return run_eval(config, show, note)
        except KeyboardInterrupt:
            note(f"what was scored is kept in {config.store}: run the same command again to go on")
            raise


def draw(config: EvalConfig, result: EvalResult, folder: Path, count: int) -> None:
    """Draw pictures and curves of an evaluation, `count` frames of each kind.

    Raises:
        HnxError: see `benchmarks.accuracy.pictures.write_pictures`.
    """
    from benchmarks.accuracy.curves import write_curves
    from benchmarks.accuracy.pictures import PictureRow, write_pictures
    from benchmarks.accuracy.predictions import predictor
    from benchmarks.accuracy.protocols import Heads
    from hnx.console import note, progress
    from hybridnets.dataset import SampleReader

    heads = Heads.for_bundle(config.bundle)
    live = [row for row in result.rows if row.live]
    notes: list[str] = []

    def curves(inside: Path) -> tuple[Path, ...]:
        accumulators = {row.name: row.accumulator for row in live}
        files = write_curves(inside, accumulators, heads.classes, conf=config.effective.conf)
        notes.extend(filter(None, [files.note]))
        return files.pictures

    with progress() as bar:
        task = bar.add_task("drawing", total=None, extra="frames")
        summary = write_pictures(
            folder,
            [PictureRow(row.name, row.accumulator, predictor(config, row.runtime, row.precision)) for row in live],
            SampleReader(config.split, config.bundle.target, frame_target=True),
            classes=heads.classes,
            seg_classes=heads.seg_classes,
            baseline=result.report.baseline,
            count=count,
            curves=curves if heads.classes else None,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for text in notes:
        note(text)
    note(f"{summary.sheets} pictures: {summary.index}")
