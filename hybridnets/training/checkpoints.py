"""What a run's checkpoints hold: written from its pieces, and taken over by the process that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from hybridnets.errors import ExitCode, HnxError
from hybridnets.training import resume
from hybridnets.training.config import TrainConfig
from hybridnets.training.distributed import World, average_buffers
from hybridnets.training.history import History, RunState
from hybridnets.training.main_process import on_main
from hybridnets.training.parts import Parts

__all__ = ["Checkpoints"]


class Checkpoints:
    """Writes `last.pth` and the best networks of a run.

    Args:
        state: where the run stands, which `restore` sets.
        digest: of the training data and classes.
    """

    def __init__(self, config: TrainConfig, world: World, parts: Parts, state: RunState, digest: str) -> None:
        self._config, self._world, self._parts, self._state, self._digest = config, world, parts, state, digest
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """The run has taken, earlier processes too."""
        return time.monotonic() - self._started

    def restore(self, content: Mapping[str, Any], note: Callable[[str], None]) -> None:
        """Take over everything of a `last.pth`.

        Args:
            note: told what has changed since it was written.

        Raises:
            HnxError: it is damaged, belongs to another network or optimizer, or has more epochs already than it is to
                have (exit code 2).
        """
        state = self._state
        try:
            state.history = History.from_plain(content["history"])
            step, before = int(content["step"]), int(content["steps_per_epoch"])
            self._started = time.monotonic() - float(state.history.seconds)
            epoch, place = divmod(step, before)
            state.logged = (step - 1) // before, step
        except (TypeError, ValueError, ArithmeticError) as error:
            raise resume.damaged(self._config.folder / resume.LAST, error) from error
        if epoch + (place > 0) > self._config.epochs:
            raise _beyond(self._config, epoch + (place > 0))
        if before != state.steps_per_epoch:
            # another batch size, number of processes or data set: the position within the epoch still holds
            step = epoch * state.steps_per_epoch + place * state.steps_per_epoch // before
            note(f"an epoch now has {state.steps_per_epoch} steps instead of {before}: going on at {step}")
        if content["digest"] != self._digest:
            note("the training data or the classes have changed since this run began")
        state.step = step
        self._parts.load_state(content)

    def save(self) -> None:
        """Write `last.pth`. All processes call this.

        Raises:
            HnxError: it cannot be written; the one before is whole.
        """
        average_buffers(self._world, self._parts.networks())
        on_main(self._world, self._write_last)

    def save_best(self, name: str, fitness: float, first: bool) -> None:
        """Write a network that is among the best.

        Args:
            first: it is the best one, which goes into `best.safetensors`, too.
        """
        folder, state = self._config.folder, self._state
        content = {
            "epoch": state.step // state.steps_per_epoch - 1,
            "step": state.step,
            "best_fitness": fitness,
            **self._identity(),
            "model": self._parts.measured_state(),
        }

        def write() -> None:
            resume.write_checkpoint(folder / name, content)
            if first:
                self._parts.write_safetensors(folder / "best.safetensors")

        on_main(self._world, write)

    def _write_last(self) -> None:
        path = self._config.folder / resume.LAST
        try:
            resume.write_checkpoint(path, self._content())
        except HnxError as error:
            if not path.exists():
                raise
            kept = f"the {resume.LAST} of before is whole: make room and go on with {self._config.resume_option}"
            raise HnxError(error.what, why=error.why, fix=kept, code=error.code) from error

    def _content(self) -> dict[str, Any]:
        """Everything that `restore` needs, on the CPU."""
        config, state = self._config, self._state
        state.history.seconds = self.seconds
        return {
            "format": resume.FORMAT,
            "epoch": state.step // state.steps_per_epoch,
            "step": state.step,
            "best_fitness": state.history.best[0]["fitness"] if state.history.best else 0.0,
            **self._identity(),
            "anchors": config.project.anchors.to_json(),
            "steps_per_epoch": state.steps_per_epoch,
            "digest": self._digest,
            "history": vars(state.history),
            "config": config.to_json(),
            **self._parts.state(),
        }

    def _identity(self) -> dict[str, Any]:
        """What tells readers of a checkpoint which network it is, and for which input, where its tensors do not."""
        model = self._config.model_config
        width, height = self._config.input_size
        known = {
            "compound_coef": model.compound_coef,
            "seg_mode": model.seg_mode,
            "activation": model.activation,
            "size": f"{width}x{height}",
        }
        return known if model.backbone is None else {**known, "backbone": model.backbone}


def _beyond(config: TrainConfig, epochs: int) -> HnxError:
    """The user's error for a run that has begun more epochs than were asked for."""
    return HnxError(
        f"The run of {config.folder} has {epochs} epochs already",
        why=f"it was to go on until it has {config.epochs} (--num-epochs)",
        fix=f"give --num-epochs {epochs} or more, or leave it out",
        code=ExitCode.USAGE,
    )
