"""The loop: steps, validation, checkpoints, and going on where an earlier process ended."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hybridnets.anchors import AnchorRule
from hybridnets.dataset import Split, open_split
from hybridnets.errors import HnxError
from hybridnets.training import resume
from hybridnets.training.autoanchor import AnchorFit, fit_anchors, label_sizes
from hybridnets.training.config import TrainConfig
from hybridnets.training.data import Batch, BatchPlan, training_batches
from hybridnets.training.distributed import World, average_buffers, joined
from hybridnets.training.events import Listener, Silent, StepEvent, ValidationEvent
from hybridnets.training.log import CsvLog, TensorBoard, open_tensorboard
from hybridnets.training.memory import keep_freed_memory
from hybridnets.training.meter import Meter
from hybridnets.training.parts import Parts, build_parts
from hybridnets.training.report import draw_curves, write_report
from hybridnets.training.stopping import StopRequest, listening
from hybridnets.training.validation import Scorer, Validation, fitness_of

__all__ = ["ScorerFactory", "TrainResult", "train"]

ScorerFactory = Callable[[TrainConfig], Scorer]

_TRAIN_COLUMNS = (
    *("step", "epoch", "lr", "loss", "cls", "reg", "seg", "seg_tversky", "seg_focal"),
    *("norm", "images_per_s", "waiting"),
)
_MOST_SKIPPED = 100  # steps in a row without a finite gradient: the run is lost
_MOST_BROKEN_NAMED = 10


@dataclass(frozen=True)
class TrainResult:
    """What a run led to.

    Attributes:
        folder: with all files.
        steps: optimizer steps of the whole run, of earlier processes too.
        best: file of the best network; None without a validation.
        fitness: of it.
        validation: the last one.
        stopped_early: ended by `es_patience`.
        skipped: steps left out because of numbers that are not finite.
        last_loss: of the last step.
    """

    folder: Path
    steps: int
    best: Path | None
    fitness: float | None
    validation: Validation | None
    stopped_early: bool
    skipped: int
    last_loss: float | None


@dataclass
class History:
    """What a resumed run must know of its past, as plain values."""

    best: list[dict[str, Any]] = field(default_factory=list)  # file, fitness, epoch, step; best first
    validated_epoch: int = -1
    improved_epoch: int = -1
    es_best: float = -math.inf  # fitness that early stopping compares with
    skipped: int = 0
    skipped_in_row: int = 0
    broken: list[str] = field(default_factory=list)
    epoch_loss: float = 0.0
    epoch_steps: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    last_metrics: dict[str, Any] = field(default_factory=dict)


def train(
    config: TrainConfig, *, make_scorer: ScorerFactory | None = None, listener: Listener | None = None
) -> TrainResult:
    """Train a network, or go on with a run.

    Under `torchrun` every process calls this; rank 0 writes and talks.

    Args:
        make_scorer: makes what validation scores images with; None validates by the loss.

    Raises:
        HnxError: bad data, folder or checkpoint, a full disk, or numbers that are not finite with `on_nan` stop.
        KeyboardInterrupt: Ctrl-C or SIGTERM; `last.pth` holds everything up to the last step.
    """
    heard: Listener = listener or Silent()
    with joined(config.device) as world, contextlib.ExitStack() as stack:
        project = config.project.dataset
        if world.device.type == "cpu":
            keep_freed_memory()
        train_split = open_split(config.project, config.data, project.train_set)
        val_split = open_split(config.project, config.data, project.test_set)
        if config.limit is not None:
            train_split, val_split = (replace(s, names=s.names[: config.limit]) for s in (train_split, val_split))
        _on_main(world, lambda: stack.enter_context(resume.folder_lock(config.folder)))
        content = world.broadcast(_on_main(world, lambda: _starting_point(config)))
        config = _with_anchors(config, world, train_split, content, heard.note)
        request = stack.enter_context(
            listening(lambda: heard.note("stopping after this step; once more to stop at once"))
        )
        plan = _plan(config, world, len(train_split))
        scorer = make_scorer(config) if make_scorer is not None and config.cal_map else None
        note = heard.note if world.is_main else Silent().note
        parts = build_parts(config, world, (train_split, val_split), (plan.steps, plan.steps_per_epoch), scorer, note)
        return _Run(config, world, parts, heard, request, content, train_split).run()


def _on_main(world: World, action: Callable[[], Any]) -> Any:
    """Do something in rank 0 only; its error reaches all processes, so that none waits for ever."""
    value, error = None, None
    if world.is_main:
        try:
            value = action()
        except HnxError as caught:
            error = caught
    error = world.broadcast(error)
    if error is not None:
        raise error
    return value


def _starting_point(config: TrainConfig) -> dict[str, Any] | None:
    """The content of `last.pth` when the run is to go on; None for a new one."""
    folder = config.folder
    if config.resume:
        return resume.read_last(folder / resume.LAST)
    if (folder / resume.LAST).exists() and not config.overwrite:
        raise HnxError(
            f"{folder} holds a run already",
            why=f"its {resume.LAST} would be replaced",
            fix="go on with it (-w last), choose another folder (-o), or give --overwrite",
        )
    return None


def _with_anchors(
    config: TrainConfig,
    world: World,
    split: Split,
    content: Mapping[str, Any] | None,
    note: Callable[[str], None],
) -> TrainConfig:
    """The configuration with fitted anchors where they are asked for; a resumed run keeps those it began with."""
    if content is not None:
        found = content["anchors"]
        rule = AnchorRule(
            tuple(float(v) for v in found["scales"]),
            tuple((float(w), float(h)) for w, h in found["ratios"]),
            float(found["anchor_scale"]),
        )
    elif config.autoanchor:

        def fitted() -> AnchorFit:
            sizes = label_sizes(split, config.target, seed=config.seed)
            return fit_anchors(sizes, config.project.anchors, seed=config.seed)

        fit: AnchorFit = world.broadcast(_on_main(world, fitted))
        rule = fit.rule
        if world.is_main:
            note(
                f"anchors fitted to {fit.boxes} boxes: an anchor for {fit.after.recall:.1%} of them "
                f"({fit.before.recall:.1%} before); scales {rule.scales}, ratios {rule.ratios}: write them to the "
                "project file to use weights without the metadata of best.safetensors"
            )
    else:
        return config
    return replace(config, project=replace(config.project, anchors=rule))


def _plan(config: TrainConfig, world: World, count: int, start: int = 0) -> BatchPlan:
    return BatchPlan(
        count,
        config.batch_size,
        accumulate=config.accumulate,
        rank=world.rank,
        processes=world.size,
        epochs=config.epochs,
        start=start,
        seed=config.seed,
    )


class _Run:
    """One process's share of a run."""

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        parts: Parts,
        listener: Listener,
        request: StopRequest,
        content: Mapping[str, Any] | None,
        split: Split,
    ) -> None:
        self.config, self.world, self.parts, self.listener, self.request = config, world, parts, listener, request
        self.history = History()
        self.step = 0
        self.last_validation: Validation | None = None
        self.last_loss: float | None = None
        self.digest = world.broadcast(split.digest() if world.is_main else "")
        plan = _plan(config, world, len(split))
        self.steps_per_epoch, self.steps = plan.steps_per_epoch, plan.steps
        if content is not None:
            self._restore(content)
        self.started = time.monotonic() - self.history.seconds
        self._open_logs(resumed=content is not None)

    # --- start and state -----------------------------------------------------------------------------------

    def _restore(self, content: Mapping[str, Any]) -> None:
        found = dict(content["history"])
        known = {name: found[name] for name in History.__dataclass_fields__ if name in found}
        self.history = History(**known)
        self.step = int(content["step"])
        before = int(content["steps_per_epoch"])
        if before != self.steps_per_epoch:
            # another batch size, number of processes or data set: the position within the epoch still holds
            epoch, place = divmod(self.step, before)
            self.step = epoch * self.steps_per_epoch + place * self.steps_per_epoch // before
            self._note(f"an epoch now has {self.steps_per_epoch} steps instead of {before}: going on at {self.step}")
        if content["digest"] != self.digest:
            self._note("the training data or the classes have changed since this run began")
        self.parts.load_state(content)

    def _identity(self) -> dict[str, Any]:
        """What tells readers of a checkpoint which network it is, where its tensors do not."""
        model = self.config.model_config
        known = {"compound_coef": model.compound_coef, "seg_mode": model.seg_mode, "activation": model.activation}
        return known if model.backbone is None else {**known, "backbone": model.backbone}

    def _content(self) -> dict[str, Any]:
        """Everything that `_restore` needs, on the CPU."""
        config = self.config
        best = self.history.best[0]["fitness"] if self.history.best else 0.0
        self.history.seconds = time.monotonic() - self.started
        return {
            "format": resume.FORMAT,
            "epoch": self.step // self.steps_per_epoch,
            "step": self.step,
            "best_fitness": best,
            **self._identity(),
            "anchors": config.project.anchors.to_json(),
            "steps_per_epoch": self.steps_per_epoch,
            "digest": self.digest,
            "history": vars(self.history),
            "config": config.to_json(),
            **self.parts.state(),
        }

    def _save(self) -> None:
        average_buffers(self.world, self.parts.networks())
        _on_main(self.world, self._write_last)

    def _write_last(self) -> None:
        path = self.config.folder / resume.LAST
        try:
            resume.write_checkpoint(path, self._content())
        except HnxError as error:
            if not path.exists():
                raise
            kept = f"the {resume.LAST} of before is whole: make room and go on with -w last"
            raise HnxError(error.what, why=error.why, fix=kept, code=error.code) from error

    def _open_logs(self, *, resumed: bool) -> None:
        self.train_log: CsvLog | None = None
        self.val_log: CsvLog | None = None
        self.board = TensorBoard(None)
        if not self.world.is_main:
            return
        folder, after = self.config.folder, self.step if resumed else None
        scored = [] if self.parts.validator.scorer is None else ["fitness", "mAP50", "mAP50-95", "mIoU"]
        seg = [f"IoU {name}" for name in self.config.project.seg_list] if scored else []
        self.train_log = CsvLog(folder / "log.csv", _TRAIN_COLUMNS, after)
        self.val_log = CsvLog(
            folder / "validation.csv", ["step", "epoch", "loss", "cls", "reg", "seg", *scored, *seg, "seconds"], after
        )
        try:
            self.board = open_tensorboard(folder / "tensorboard", self.step + 1)
        except HnxError as error:
            self._note(f"{error.what}: {error.why}. {error.fix}")

    def _note(self, text: str) -> None:
        if self.world.is_main:
            self.listener.note(text)

    # --- the loop ------------------------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """All steps that are left."""
        if self.world.is_main:
            self.listener.started(self.step, self.steps, self.config.folder)
        try:
            self._catch_up()
            if not self.history.stopped_early:
                self._steps()
            if self.history.validated_epoch < self.config.epochs - 1 and not self.history.stopped_early:
                self._validate(self.config.epochs - 1)
                self._save()
            return self._finish()
        finally:
            self.board.close()

    def _catch_up(self) -> None:
        """A process may have ended between the last step of an epoch and its validation."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        if self.step and place == 0 and self._is_due(epoch - 1) and self.history.validated_epoch < epoch - 1:
            self._validate(epoch - 1)
            self._save()

    def _steps(self) -> None:
        config, parts = self.config, self.parts
        plan = _plan(config, self.world, len(parts.dataset), self.step)
        meter = Meter(config.batch_size * config.accumulate * self.world.size)
        loader = training_batches(parts.dataset, plan, workers=config.workers, pin=self.world.device.type == "cuda")
        for batches in self._timed(loader, meter):
            lr = parts.schedule.apply(parts.optimizer, self.step)
            self._tell_broken(batches)
            result, stop = parts.step.run(batches, self.step, stop=self.request.asked)
            self.step += 1
            if result.skipped:
                self._left_out(result.suspects)
            else:
                self.history.skipped_in_row = 0
                parts.update_average()
                meter.add(result)
            ends = self.step % self.steps_per_epoch == 0
            saves = ends or stop or self.step % config.save_interval == 0
            # before every save, too: the mean loss of an epoch is part of the state
            if saves or self.step % config.log_interval == 0:
                self._tell_progress(meter, lr)
            if ends:
                self._end_epoch(self.step // self.steps_per_epoch - 1, stop=stop)
                meter.restart()
            elif saves:
                self._save()
            if stop:
                self._note(f"stopped at step {self.step}; go on with -w last")
                raise KeyboardInterrupt
            if self.history.stopped_early:
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
                self._save()
                self._note(f"stopped at step {self.step}; go on with -w last")
                raise KeyboardInterrupt from None
            raise

    def _tell_broken(self, batches: tuple[Batch, ...]) -> None:
        for batch in batches:
            for name, error in batch.broken:
                if name in self.history.broken:
                    continue
                self.history.broken.append(name)
                count = len(self.history.broken)
                if count <= _MOST_BROKEN_NAMED:
                    self._note(f"sample {name} is left out: {error.what}: {error.why}")
                if count == _MOST_BROKEN_NAMED:
                    self._note("further broken samples are counted only; `hnx data check` lists them all")

    def _left_out(self, suspects: tuple[str, ...]) -> None:
        names = [name for part in self.world.gather(suspects) for name in part]
        self.history.skipped += 1
        self.history.skipped_in_row += 1
        text = f"step {self.step}: loss or gradient is not finite with {', '.join(names)}"
        if self.config.on_nan == "stop" or self.history.skipped_in_row >= _MOST_SKIPPED:
            self._save()
            raise HnxError(
                text,
                why="asked to stop at the first one (--on-nan stop)"
                if self.config.on_nan == "stop"
                else f"{self.history.skipped_in_row} steps in a row were left out",
                fix="check these samples (`hnx data check`); else a lower --lr, or --amp off",
            )
        self._note(f"{text}; left out")

    def _tell_progress(self, meter: Meter, lr: float) -> None:
        terms = meter.read(self.world)
        if terms:
            self.last_loss = terms["loss"]
            self.history.epoch_loss += terms["loss"] * meter.steps
            self.history.epoch_steps += meter.steps
        norm, speed, waiting = meter.norm(), meter.images_per_s(), meter.waiting()
        meter.clear()
        if not self.world.is_main:
            return
        epoch = (self.step - 1) // self.steps_per_epoch
        row = {
            "step": self.step,
            "epoch": epoch,
            "lr": lr,
            "norm": norm,
            "images_per_s": speed,
            "waiting": waiting,
            **terms,
        }
        assert self.train_log is not None
        self.train_log.add(row)
        self.board.scalars("train", self.step, {k: v for k, v in row.items() if k not in ("step", "epoch")})
        self.listener.stepped(
            StepEvent(
                epoch,
                self.config.epochs,
                self.step,
                self.steps,
                terms,
                lr,
                norm,
                speed,
                waiting,
                self.history.skipped,
            )
        )

    # --- ends of epochs ------------------------------------------------------------------------------------

    def _is_due(self, epoch: int) -> bool:
        every = self.config.val_interval
        return epoch == self.config.epochs - 1 or (every > 0 and (epoch + 1) % every == 0)

    def _end_epoch(self, epoch: int, *, stop: bool = False) -> None:
        history = self.history
        if history.epoch_steps:
            self.parts.schedule.end_epoch(history.epoch_loss / history.epoch_steps)
            history.epoch_loss, history.epoch_steps = 0.0, 0
        # before the validation, too: whatever happens in it, the epoch is not lost
        self._save()
        if not stop and self._is_due(epoch):
            self._validate(epoch)
            self._save()

    def _validate(self, epoch: int) -> None:
        config, history = self.config, self.history
        network = self.parts.measured()
        average_buffers(self.world, self.parts.networks())
        started = time.monotonic()
        validation = self.parts.validator.run(network, self._on_image)
        self.parts.network.train()
        validation = Validation(
            validation.scores, validation.losses, validation.images, validation.broken, time.monotonic() - started
        )
        self.last_validation = validation
        kind = config.fitness
        fitness = fitness_of(validation, kind, detection=not config.freeze_det, segmentation=not config.freeze_seg)
        history.validated_epoch = epoch
        if fitness > history.es_best + (config.es_min_delta if math.isfinite(history.es_best) else 0.0):
            history.es_best, history.improved_epoch = fitness, epoch
        best = not history.best or fitness > history.best[0]["fitness"]
        name = resume.best_name(config.compound_coef, epoch, self.step)
        self._keep_best(name, fitness, epoch)
        self._record_validation(epoch, validation, fitness, best)
        if config.es_patience and epoch - history.improved_epoch >= config.es_patience:
            history.stopped_early = True
            self._note(f"stopped early: no better network for {config.es_patience} epochs")

    def _on_image(self, done: int, total: int) -> None:
        if self.world.is_main:
            self.listener.validating(done, total)
        if self.request.asked and self.world.size == 1:
            raise KeyboardInterrupt  # the state was saved before; the validation is done again on resume

    def _keep_best(self, name: str, fitness: float, epoch: int) -> None:
        history, config = self.history, self.config
        ranking = [*history.best, {"file": name, "fitness": fitness, "epoch": epoch, "step": self.step}]
        # of equal ones the older stays: upstream saves when fitness improves
        ranking.sort(key=lambda row: -row["fitness"])
        kept = ranking[: config.keep_best]
        if any(row["file"] == name for row in kept):
            first = kept[0]["file"] == name
            _on_main(self.world, lambda: self._write_best(name, fitness, first))
        dropped = {row["file"] for row in ranking} - {row["file"] for row in kept}
        history.best = kept
        if self.world.is_main:
            resume.remove_files(config.folder, dropped)

    def _write_best(self, name: str, fitness: float, first: bool) -> None:
        resume.write_checkpoint(
            self.config.folder / name,
            {
                "epoch": self.step // self.steps_per_epoch - 1,
                "step": self.step,
                "best_fitness": fitness,
                **self._identity(),
                "model": self.parts.measured_state(),
            },
        )
        if first:
            self.parts.write_safetensors(self.config.folder / "best.safetensors")

    def _record_validation(self, epoch: int, validation: Validation, fitness: float, best: bool) -> None:
        if not self.world.is_main:
            return
        row: dict[str, Any] = {"step": self.step, "epoch": epoch, **validation.losses, "seconds": validation.seconds}
        if validation.scores is not None:
            metrics = validation.scores.metrics
            row |= {"fitness": fitness, **{k: metrics.get(k) for k in ("mAP50", "mAP50-95", "mIoU")}}
            row |= {f"IoU {name}": value for name, value in validation.scores.segmentation.items()}
        assert self.val_log is not None
        self.val_log.add(row)
        numbers = {k: v for k, v in row.items() if k not in ("step", "epoch") and isinstance(v, float)}
        self.board.scalars("val", self.step, numbers)
        self.history.last_metrics = {
            "losses": dict(validation.losses),
            "fitness": fitness,
            "scores": None if validation.scores is None else dict(validation.scores.metrics),
        }
        if validation.broken:
            self._note(f"{len(validation.broken)} validation images cannot be read: {', '.join(validation.broken[:5])}")
        self.listener.validated(ValidationEvent(epoch, self.step, validation, fitness, self.config.ema, best))

    def _finish(self) -> TrainResult:
        history, folder = self.history, self.config.folder
        best = history.best[0] if history.best else None
        if self.world.is_main:
            curves = "curves.png"
            try:
                draw_curves(folder / "log.csv", folder / "validation.csv", folder / curves)
            except HnxError as error:
                curves = ""
                self._note(f"{error.what}: {error.why}. {error.fix}")
            write_report(
                folder / "report.json",
                {
                    "schema_version": 1,
                    "config": self.config.to_json(),
                    "steps": self.step,
                    "steps_per_epoch": self.steps_per_epoch,
                    "processes": self.world.size,
                    "device": str(self.world.device),
                    "torch": torch.__version__,
                    "seconds": time.monotonic() - self.started,
                    "stopped_early": history.stopped_early,
                    "skipped_steps": history.skipped,
                    "broken_samples": sorted(history.broken),
                    "best": history.best,
                    "averaged_weights": self.config.ema,
                    "last": history.last_metrics,
                    "last_loss": self.last_loss,
                    "curves": curves or None,
                },
            )
        return TrainResult(
            folder,
            self.step,
            None if best is None else folder / best["file"],
            None if best is None else float(best["fitness"]),
            self.last_validation,
            history.stopped_early,
            history.skipped,
            self.last_loss,
        )
