"""What a run tells while it goes: rows of both tables, TensorBoard, and whoever listens. Rank 0 only."""

from __future__ import annotations

import sys
from typing import Any

from hybridnets.errors import HnxError, from_os_error
from hybridnets.training import resume
from hybridnets.training.config import TrainConfig
from hybridnets.training.data import Batch
from hybridnets.training.distributed import World
from hybridnets.training.events import Listener, StepEvent, ValidationEvent
from hybridnets.training.history import RunState
from hybridnets.training.log import CsvLog, TensorBoard, open_tensorboard
from hybridnets.training.validation import Validation

__all__ = ["Journal"]

# columns of log.csv
_TERMS = ("loss", "cls", "reg", "seg", "seg_tversky", "seg_focal")
_DISTILL_TERMS = ("loss", "cls", "reg", "seg", "features")
_STATE = ("norm", "images_per_s", "waiting")
_MOST_BROKEN_NAMED = 10


class Journal:
    """Logs of a run, opened where an earlier process of it ended; in other ranks it says and writes nothing.

    Args:
        scored: validations have scores beside their losses.
        resumed: keep the rows of earlier processes that the state knows of.

    Raises:
        HnxError: a table cannot be written.
    """

    def __init__(
        self, config: TrainConfig, world: World, listener: Listener, state: RunState, *, scored: bool, resumed: bool
    ) -> None:
        self._config, self._world, self._listener, self._state = config, world, listener, state
        self._unread: list[tuple[str, str]] = []
        self._train: CsvLog | None = None
        self._val: CsvLog | None = None
        self._board = TensorBoard(None)
        if not world.is_main:
            return
        folder = config.folder
        scores = ["fitness", "mAP50", "mAP50-95", "mIoU", *(f"IoU {name}" for name in config.project.seg_list)]
        terms = _TERMS if config.distill is None else _DISTILL_TERMS
        self._train = CsvLog(
            folder / "log.csv", ("step", "epoch", "lr", *terms, *_STATE), state.logged if resumed else None
        )
        columns = ["step", "epoch", "loss", "cls", "reg", "seg", *(scores if scored else ()), "seconds"]
        # cut off behind a validation's row and before the checkpoint that knows of it: it is measured again
        measured = (state.history.validated_epoch, sys.maxsize) if resumed else None
        self._val = CsvLog(folder / "validation.csv", columns, measured)
        try:
            self._board = open_tensorboard(folder / "tensorboard", self._purge_step(state.logged[1]))
        except HnxError as error:
            self.note(f"{error.what}: {error.why}. {error.fix}")

    def _purge_step(self, logged: int) -> int | None:
        """From which step on TensorBoard hides what a process wrote that ended behind its last checkpoint.

        None where steps of earlier epochs have larger numbers, as epochs had more of them: they would be hidden.
        """
        assert self._train is not None
        return logged + 1 if all(int(row["step"]) <= logged for row in self._train.rows) else None

    def note(self, text: str) -> None:
        """Something the user should know."""
        if self._world.is_main:
            self._listener.note(text)

    def started(self) -> None:
        """The first step of this process comes."""
        if self._world.is_main:
            self._listener.started(self._state.step, self._state.steps, self._config.folder)

    def stepped(self, event: StepEvent) -> None:
        """Steps were done."""
        if self._train is None:
            return
        row = {
            "step": event.step,
            "epoch": event.epoch,
            "lr": event.lr,
            "norm": event.norm,
            "images_per_s": event.images_per_s,
            "waiting": event.waiting,
            **event.terms,
        }
        self._write(self._train, row)
        self._draw("train", event.step, row)
        self._listener.stepped(event)

    def validating(self, done: int, total: int) -> None:
        """Images of this process measured so far."""
        if self._world.is_main:
            self._listener.validating(done, total)

    def validated(self, event: ValidationEvent) -> None:
        """A validation ended."""
        if self._val is None:
            return
        row = _row(event)
        self._write(self._val, row)
        self._draw("val", event.step, {name: value for name, value in row.items() if isinstance(value, float)})
        broken = event.validation.broken
        if broken:
            self.note(f"{len(broken)} validation images cannot be read: {', '.join(broken[:5])}")
        self._listener.validated(event)

    def broken_samples(self, batches: tuple[Batch, ...]) -> None:
        """Keep what a step of this process could not read for `tell_broken`."""
        self._unread += [(name, f"{error.what}: {error.why}") for batch in batches for name, error in batch.broken]
        if self._world.size == 1:
            self.tell_broken()  # at once: nobody need be waited for

    def tell_broken(self) -> None:
        """Name what any process could not read, each sample once and the first ten of a run; all call this."""
        unread, self._unread = self._unread, []
        known = self._state.history.broken
        for name, why in (pair for part in self._world.gather(unread) for pair in part):
            if name in known:
                continue
            known.append(name)
            if len(known) <= _MOST_BROKEN_NAMED:
                self.note(f"sample {name} is left out: {why}")
            if len(known) == _MOST_BROKEN_NAMED:
                self.note("further broken samples are counted only; `hnx data check` lists them all")

    def close(self) -> None:
        """Write out what is left."""
        board, self._board = self._board, TensorBoard(None)
        try:
            board.close()
        except OSError as error:
            self._lost(error)

    def _write(self, log: CsvLog, row: dict[str, Any]) -> None:
        try:
            log.add(row)
        except HnxError as error:
            # the first to find a full disk: what was learnt until the last save is safe
            if not (self._config.folder / resume.LAST).exists():
                raise
            then = f"{error.fix}; then go on with {self._config.resume_option}"
            raise HnxError(error.what, why=error.why, fix=then) from error

    def _draw(self, phase: str, step: int, row: dict[str, Any]) -> None:
        try:
            self._board.scalars(phase, step, {k: v for k, v in row.items() if k not in ("step", "epoch")})
        except OSError as error:
            # its writer fails in a thread of its own and says so at the next row; log.csv holds the same
            self._board = TensorBoard(None)
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        told = from_os_error("TensorBoard logs end here", error)
        self.note(f"{told.what}: {told.why}. {told.fix}")


def _row(event: ValidationEvent) -> dict[str, Any]:
    found: Validation = event.validation
    row: dict[str, Any] = {"step": event.step, "epoch": event.epoch, **found.losses, "seconds": found.seconds}
    if found.scores is not None:
        metrics = found.scores.metrics
        row |= {"fitness": event.fitness, **{k: metrics.get(k) for k in ("mAP50", "mAP50-95", "mIoU")}}
        row |= {f"IoU {name}": value for name, value in found.scores.segmentation.items()}
    return row
