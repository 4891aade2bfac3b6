"""Train a network: everything a run needs is put together here, and its loop started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Any

from hybridnets.training import resume
from hybridnets.training.begin import (
    batch_plan,
    check_batch,
    check_data,
    check_start,
    open_splits,
    starting_point,
    with_anchors,
)
from hybridnets.training.checkpoints import Checkpoints
from hybridnets.training.config import TrainConfig
from hybridnets.training.distill.begin import adapt
from hybridnets.training.distributed import World, joined
from hybridnets.training.events import Listener, Silent
from hybridnets.training.history import RunState
from hybridnets.training.inherited import options_of_weights
from hybridnets.training.journal import Journal
from hybridnets.training.loop import Loop
from hybridnets.training.main_process import on_main
from hybridnets.training.memory import keep_freed_memory
from hybridnets.training.outcome import TrainResult, check_usable, result_of, write_outcome
from hybridnets.training.parts import build_parts
from hybridnets.training.resumed import options_of_run
from hybridnets.training.stopping import listening
from hybridnets.training.validation import Scorer

__all__ = ["ScorerFactory", "TrainResult", "train"]

ScorerFactory = Callable[[TrainConfig], Scorer]


def train(
    config: TrainConfig,
    *,
    make_scorer: ScorerFactory | None = None,
    listener: Listener | None = None,
    given: Collection[str] | None = None,
) -> TrainResult:
    """Train a network, or go on with a run.

    Under `torchrun` every process calls this; rank 0 writes and talks.

    Args:
        make_scorer: makes what validation scores images with; None validates by the loss.
        given: names of the fields of `config` that somebody chose; a run that goes on takes the others from its
            `last.pth`, one that starts from weights some of them from there. None: all were chosen.

    Raises:
        HnxError: bad data, folder or checkpoint, a full disk, numbers that are not finite with `on_nan` stop, or a run
            whose every validation loss was not a number.
        KeyboardInterrupt: Ctrl-C or SIGTERM; `last.pth` holds everything up to the last step.
    """
    heard: Listener = listener or Silent()
    with joined(config.device) as world, contextlib.ExitStack() as stack:
        if world.device.type == "cpu":
            keep_freed_memory()
        note = heard.note if world.is_main else Silent().note

        def claim() -> dict[str, Any] | None:
            on_main(world, lambda: stack.enter_context(resume.folder_lock(config.folder)))
            return world.broadcast(on_main(world, lambda: starting_point(config)))

        # a student's videos are unpacked into the folder; other data that cannot be trained on leave no folder behind
        early = config.resume or config.distill is not None
        content = claim() if early else None
        check_start(config, content)
        if content is not None:
            config = options_of_run(config, content, given, note)
        elif config.weights is not None and config.distill is None:
            config = options_of_weights(config, given, note)
        check_batch(config, world)
        if config.distill is not None:
            on_main(world, lambda: open_splits(config))  # unpacks videos, once
        splits = open_splits(config)
        if config.distill is None:
            on_main(world, lambda: check_data(config, splits, heard.note))
        if not early:
            claim()
        config = with_anchors(config, world, splits[0], content, heard.note)
        request = stack.enter_context(
            listening(lambda: heard.note("stopping after this step; once more to stop at once"))
        )
        plan = batch_plan(config, world, len(splits[0]))
        scorer = make_scorer(config) if make_scorer is not None and config.cal_map else None
        parts = build_parts(config, world, splits, (plan.steps, plan.steps_per_epoch), scorer, note)
        state = RunState(plan.steps_per_epoch, plan.steps)
        digest = world.broadcast(splits[0].digest() if world.is_main else "")
        checkpoints = Checkpoints(config, world, parts, state, digest)
        if config.overwrite and content is None:
            _clear(config, world)
        if content is not None:
            checkpoints.restore(content, note)
        elif config.distill is not None:
            adapt(config, world, parts, heard)
        journal = Journal(config, world, heard, state, scored=scorer is not None, resumed=content is not None)
        stack.callback(journal.close)
        if state.logged[1] != state.step:
            # steps are counted anew: what is written from here on must not be held against those of before
            checkpoints.save()
        journal.started()
        loop = Loop(config, world, parts, state, checkpoints, journal, request)
        loop.run()
        if world.is_main:
            write_outcome(config, world, state, seconds=checkpoints.seconds, note=note)
        check_usable(config, state)
        return result_of(config, state, loop.last_validation)


def _clear(config: TrainConfig, world: World) -> None:
    """Remove the run that `config.overwrite` replaces: its networks and reports are none of this one's."""
    world.gather(None)  # another process may still read its weights from there
    # nobody loses what a run was told to start from; a teacher is read once more at the end
    keep = (config.weights, None if config.distill is None else config.distill.teacher)
    on_main(world, lambda: resume.remove_results(config.folder, keep))
