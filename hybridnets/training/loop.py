"""The loop of a run in one process: steps, ends of epochs, validations, and the moments at which it is written."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

from hybridnets.errors import HnxError
from hybridnets.training import resume
from hybridnets.training.begin import batch_plan
from hybridnets.training.checkpoints import Checkpoints
from hybridnets.training.config import TrainConfig
from hybridnets.training.data import Batch, training_batches
from hybridnets.training.distributed import World, average_buffers
from hybridnets.training.events import StepEvent, ValidationEvent
from hybridnets.training.history import RunState
from hybridnets.training.journal import Journal
from hybridnets.training.meter import Meter
from hybridnets.training.parts import Parts
from hybridnets.training.ranking import improves, ranked
from hybridnets.training.stopping import StopRequest
from hybridnets.training.validation import Validation, fitness_of

__all__ = ["Loop"]

_MOST_SKIPPED = 100  # steps in a row without a finite gradient: the run is lost


class Loop:
    """One process's share of a run.

    Attributes:
        last_validation: of this process; None before the first.
    """

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        parts: Parts,
        state: RunState,
        checkpoints: Checkpoints,
        journal: Journal,
        request: StopRequest,
    ) -> None:
        self.config, self.world, self.parts, self.state = config, world, parts, state
        self.checkpoints, self.journal, self.request = checkpoints, journal, request
        self.last_validation: Validation | None = None

    def run(self) -> None:
        """All steps that are left, and every validation that is due."""
        history = self.state.history
        if history.stopped_early:
            self._reconsider()
        self._catch_up()
        if not history.stopped_early:
            self._steps()
        if history.validated_epoch < self.config.epochs - 1 and not history.stopped_early:
            self._validate(self.config.epochs - 1)

    def _reconsider(self) -> None:
        """Whether a run that was stopped early may go on: it may with more patience."""
        history, patience = self.state.history, self.config.es_patience
        waited = history.validated_epoch - history.improved_epoch
        if patience == 0 or waited < patience:
            history.stopped_early = False
            return
        self.journal.note(
            f"this run was stopped early: no better network for {waited} epochs; to go on, give an --es-patience above "
            "that, or 0"
        )

    def _catch_up(self) -> None:
        """A process may have ended between the last step of an epoch and its validation."""
        state, epoch = self.state, self.state.last_epoch
        if state.step and state.ends_epoch and self._is_due(epoch) and state.history.validated_epoch < epoch:
            self._validate(epoch)

    def _steps(self) -> None:
        config, parts, state = self.config, self.parts, self.state
        plan = batch_plan(config, self.world, len(parts.dataset), state.step)
        meter = Meter(config.batch_size * config.accumulate * self.world.size)
        loader = training_batches(parts.dataset, plan, workers=config.workers, pin=self.world.device.type == "cuda")
        for batches in self._timed(loader, meter):
            lr = parts.schedule.apply(parts.optimizer, state.step)
            self.journal.broken_samples(batches)
            result, stop = parts.step.run(batches, state.step, stop=self.request.asked)
            state.step += 1
            if result.late is not None:
                self._left_out(result.late, state.step - 1)
            if result.skipped:
                self._left_out(result.suspects, state.step)
            else:
                if result.late is None:
                    state.history.skipped_in_row = 0
                parts.update_average()
                meter.add(result)
            ends = state.ends_epoch
            saves = ends or stop or state.step % config.save_interval == 0
            # before every save, too: the mean loss of an epoch is part of the state
            if saves or state.step % config.log_interval == 0:
                self._tell_progress(meter, lr)
            if ends:
                self._end_epoch(stop=stop)
                meter.restart()
            elif saves:
                self.checkpoints.save()
            if stop:
                self._say_stopped()
                raise KeyboardInterrupt
            if state.history.stopped_early:
                return

    def _timed(self, loader: Iterator[tuple[Batch, ...]], meter: Meter) -> Iterator[tuple[Batch, ...]]:
        """The loader's items, with the time they were waited for."""
        try:
            while True:
                before = time.perf_counter()
                batches = next(loader, None)
                if batches is None:
                    return
                meter.wait(time.perf_counter() - before)
                yield batches
        except HnxError:
            if self.request.asked:  # the signal reached the reading processes too
                self.checkpoints.save()
                self._say_stopped()
                raise KeyboardInterrupt from None
            raise

    def _say_stopped(self) -> None:
        self.journal.note(f"stopped at step {self.state.step}; go on with {self.config.resume_option}")

    def _left_out(self, suspects: tuple[str, ...], step: int) -> None:
        history = self.state.history
        names = [name for part in self.world.gather(suspects) for name in part]
        history.skipped += 1
        history.skipped_in_row += 1
        text = f"step {step}: loss or gradient is not finite with {', '.join(names)}"
        asked = self.config.on_nan == "stop"
        if asked or history.skipped_in_row >= _MOST_SKIPPED:
            self.journal.tell_broken()
            self.checkpoints.save()
            row = f"{history.skipped_in_row} steps in a row were left out"
            raise HnxError(
                text,
                why="asked to stop at the first one (--on-nan stop)" if asked else row,
                fix="check these samples (`hnx data check`); else a lower --lr, or --amp off",
            )
        self.journal.note(f"{text}; left out")

    def _tell_progress(self, meter: Meter, lr: float) -> None:
        state, history = self.state, self.state.history
        self.journal.tell_broken()
        terms = meter.read(self.world)
        if terms:
            history.last_loss = terms["loss"]
            history.epoch_loss += terms["loss"] * meter.steps
            history.epoch_steps += meter.steps
        norm, speed, waiting = meter.norm(), meter.images_per_s(), meter.waiting()
        meter.clear()
        self.journal.stepped(
            StepEvent(
                state.last_epoch,
                self.config.epochs,
                state.step,
                state.steps,
                terms,
                lr,
                norm,
                speed,
                waiting,
                history.skipped,
            )
        )

    # --- ends of epochs ------------------------------------------------------------------------------------

    def _is_due(self, epoch: int) -> bool:
        every = self.config.val_interval
        return epoch == self.config.epochs - 1 or (every > 0 and (epoch + 1) % every == 0)

    def _end_epoch(self, *, stop: bool) -> None:
        epoch, history = self.state.last_epoch, self.state.history
        if history.epoch_steps:
            self.parts.schedule.end_epoch(history.epoch_loss / history.epoch_steps)
            history.epoch_loss, history.epoch_steps = 0.0, 0
        # before the validation, too: whatever happens in it, the epoch is not lost
        self.checkpoints.save()
        if not stop and self._is_due(epoch):
            self._validate(epoch)

    def _validate(self, epoch: int) -> None:
        """Measure the network, and write what that leads to."""
        config, history = self.config, self.state.history
        network = self.parts.measured()
        average_buffers(self.world, self.parts.networks())
        started = time.monotonic()
        if config.distill is None:  # a student's statistics were set before its first step
            self.parts.recalibrator.run(network)
        validation = self.parts.validator.run(network, self._on_image)
        self.parts.network.train()
        validation = replace(validation, seconds=time.monotonic() - started)
        self.last_validation = validation
        fitness = self._fitness(validation)
        history.validated_epoch = epoch
        if improves(history, fitness, config.es_min_delta):
            history.es_best, history.improved_epoch = fitness, epoch
        best = math.isfinite(fitness) and (not history.best or fitness > history.best[0]["fitness"])
        dropped = self._keep_best(fitness, epoch)
        history.last_metrics = {
            "losses": dict(validation.losses),
            "fitness": fitness,
            "scores": None if validation.scores is None else dict(validation.scores.metrics),
        }
        self.journal.validated(ValidationEvent(epoch, self.state.step, validation, fitness, config.ema, best))
        if config.es_patience and epoch - history.improved_epoch >= config.es_patience:
            history.stopped_early = True
            self.journal.note(f"stopped early: no better network for {config.es_patience} epochs")
        self.checkpoints.save()
        if self.world.is_main:
            # only now: until then last.pth names them among the best
            resume.remove_files(config.folder, dropped)

    def _fitness(self, validation: Validation) -> float:
        """Fitness of a validation; a network whose loss is not a number is worse than every other.

        Its scores say nothing of that: a destroyed network finds no box, and has a fitness of 0 like one that has just
        begun.
        """
        config = self.config
        fitness = fitness_of(
            validation, config.fitness, detection=not config.freeze_det, segmentation=not config.freeze_seg
        )
        if math.isfinite(fitness) and math.isfinite(validation.losses["loss"]):
            return fitness
        self.journal.note("the validation's loss is not a number: this network is taken for the worst")
        return -math.inf

    def _on_image(self, done: int, total: int) -> None:
        self.journal.validating(done, total)
        if self.request.asked and self.world.size == 1:
            self._say_stopped()  # the state was saved before; the validation is done again on resume
            raise KeyboardInterrupt

    def _keep_best(self, fitness: float, epoch: int) -> set[str]:
        """Write the network if it is among the best; files that are among them no more."""
        config, history = self.config, self.state.history
        if not math.isfinite(fitness):
            return set()
        name = resume.best_name(config.compound_coef, epoch, self.state.step)
        new = {"file": name, "fitness": fitness, "epoch": epoch, "step": self.state.step}
        kept, dropped = ranked(history.best, new, config.keep_best)
        if new in kept:
            self.checkpoints.save_best(name, fitness, first=kept[0] is new)
        history.best = kept
        return dropped
