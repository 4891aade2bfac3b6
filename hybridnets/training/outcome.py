"""What a run led to: its result, report.json and the picture of its curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hybridnets.errors import HnxError
from hybridnets.training.report import draw_curves, write_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from hybridnets.training.config import TrainConfig
    from hybridnets.training.distributed import World
    from hybridnets.training.history import RunState
    from hybridnets.training.validation import Validation

__all__ = ["TrainResult", "check_usable", "result_of", "write_outcome"]


@dataclass(frozen=True)
class TrainResult:
    """What a run led to.

    Attributes:
        config: with which it ended; of a run that went on, with the options it had before.
        steps: optimizer steps of the whole run, of earlier processes too.
        best: file of the best network; None without a validation.
        fitness: of it.
        best_step, best_epoch: at which it was measured.
        by_loss: the fitness is minus the validation loss.
        validation: the last one.
        stopped_early: ended by `es_patience`.
        skipped: steps left out because of numbers that are not finite.
        last_loss: of the last steps, of an earlier process where this one did none.
    """

    config: TrainConfig
    steps: int
    best: Path | None
    fitness: float | None
    validation: Validation | None
    stopped_early: bool
    skipped: int
    last_loss: float | None
    best_step: int | None = None
    by_loss: bool = False
    best_epoch: int | None = None

    @property
    def folder(self) -> Path:
        """Where all files lie."""
        return self.config.folder


def result_of(config: TrainConfig, state: RunState, validation: Validation | None) -> TrainResult:
    """The result of a run that has ended."""
    folder, history = config.folder, state.history
    best = history.usable_best
    return TrainResult(
        config,
        state.step,
        None if best is None else folder / best["file"],
        None if best is None else float(best["fitness"]),
        validation,
        history.stopped_early,
        history.skipped,
        history.last_loss,
        None if best is None else int(best["step"]),
        not config.cal_map,
        None if best is None else int(best["epoch"]),
    )


def check_usable(config: TrainConfig, state: RunState) -> None:
    """Refuse to call a run done that was validated and has led to nothing.

    Raises:
        HnxError: no validation of it had a number for its loss.
    """
    history = state.history
    if history.validated_epoch < 0 or history.usable_best is not None:
        return
    raise HnxError(
        f"The run of {config.folder} has led to no usable network",
        why="no validation had a number for its loss, so no network was kept; "
        f"{history.skipped} of {state.step} steps were left out",
        fix="start anew (--overwrite) with a lower --lr, and without --amp; `hnx data check` looks at the data",
    )


def write_outcome(
    config: TrainConfig,
    world: World,
    state: RunState,
    *,
    seconds: float,
    note: Callable[[str], None],
) -> None:
    """Write report.json, and the curves where matplotlib is installed.

    Raises:
        HnxError: the report cannot be written.
    """
    folder, history = config.folder, state.history
    curves = "curves.png"
    try:
        draw_curves(folder / "log.csv", folder / "validation.csv", folder / curves)
    except HnxError as error:
        curves = ""
        note(f"{error.what}: {error.why}. {error.fix}")
    write_report(
        folder / "report.json",
        {
            "schema_version": 1,
            "config": config.to_json(),
            "steps": state.step,
            "steps_per_epoch": state.steps_per_epoch,
            "processes": world.size,
            "device": str(world.device),
            "torch": torch.__version__,
            "seconds": seconds,
            "stopped_early": history.stopped_early,
            "skipped_steps": history.skipped,
            "broken_samples": sorted(history.broken),
            "best": history.best,
            "averaged_weights": config.ema,
            "last": history.last_metrics,
            "last_loss": history.last_loss,
            "curves": curves or None,
        },
    )
