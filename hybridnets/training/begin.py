"""What is settled before a run's first step: its data, where it begins, its anchors, its order of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hybridnets.anchors import AnchorRule
from hybridnets.config import STRIDES
from hybridnets.dataset import Split, open_split
from hybridnets.errors import ExitCode, HnxError
from hybridnets.training import resume
from hybridnets.training.autoanchor import AnchorFit, fit_anchors, label_sizes
from hybridnets.training.config import TrainConfig
from hybridnets.training.data import BatchPlan
from hybridnets.training.distill.frames import frame_splits
from hybridnets.training.distributed import World
from hybridnets.training.label_check import check_labels, check_masks, check_readable
from hybridnets.training.main_process import on_main

__all__ = ["batch_plan", "check_batch", "check_data", "check_start", "open_splits", "starting_point", "with_anchors"]


def check_batch(config: TrainConfig, world: World) -> None:
    """Refuse a batch whose coarsest level is a single pixel: a batch norm cannot learn from one number.

    Raises:
        HnxError: it is one (exit code 2).
    """
    width, height = config.input_size
    coarsest = max(STRIDES)
    shared = config.sync_bn and world.size > 1
    if config.batch_size * (width // coarsest) * (height // coarsest) == 1 and not shared:
        raise HnxError(
            f"A batch of one image of {width}x{height}",
            why=f"the coarsest of the five levels has one pixel of {coarsest}x{coarsest}, too little for a batch norm",
            fix="give a larger -b or --size",
            code=ExitCode.USAGE,
        )


def open_splits(config: TrainConfig) -> tuple[Split, Split]:
    """The data for training and for validation, or a teacher's frames.

    Raises:
        HnxError: there is none, or it is not in upstream's layout.
    """
    if config.distill is not None:
        learnt, measured = frame_splits(config.distill, config.project, config.folder)
        if config.limit is None:
            return learnt, measured
        return learnt.first(config.limit), measured.first(config.limit)
    dataset = config.project.dataset
    train = open_split(config.project, config.data, dataset.train_set)
    val = open_split(config.project, config.data, dataset.test_set)
    if config.limit is not None:
        train, val = (replace(split, names=split.names[: config.limit]) for split in (train, val))
    return train, val


def check_data(config: TrainConfig, splits: tuple[Split, Split], note: Callable[[str], None]) -> None:
    """Look at labelled data before a run spends hours on them.

    Args:
        note: told what is strange about them.

    Raises:
        HnxError: nothing can be learnt from them, or nothing measured on them.
    """
    learnt, measured = splits
    if not config.freeze_det:
        check_labels(learnt, note)
    if not config.freeze_seg:
        check_masks(learnt, note)
    check_readable(measured, config.target)


def starting_point(config: TrainConfig) -> dict[str, Any] | None:
    """The content of `last.pth` when the run is to go on; None for a new one.

    Raises:
        HnxError: it cannot be read, or a new run would replace one.
    """
    folder = config.folder
    if config.resume:
        if not (folder / resume.LAST).exists():
            raise resume.nothing_to_resume(folder, f"no {resume.LAST} lies there", config.resume_option)
        return resume.read_last(folder / resume.LAST)
    if (folder / resume.LAST).exists() and not config.overwrite:
        raise HnxError(
            f"{folder} holds a run already",
            why=f"its {resume.LAST} would be replaced",
            fix=f"go on with it ({config.resume_option}), choose another folder (-o), or give --overwrite",
        )
    return None


def check_start(config: TrainConfig, content: Mapping[str, Any] | None) -> None:
    """Refuse to go on in this process where rank 0 begins a new run: their networks would not be the same.

    Raises:
        HnxError: it does.
    """
    if config.resume and content is None:
        raise HnxError(
            f"There is nothing to resume in {config.folder} of this machine",
            why="rank 0, on another machine, starts from weights that this one lacks",
            fix="copy the folder here, or give the same file to all: -w FILE",
        )


def with_anchors(
    config: TrainConfig,
    world: World,
    split: Split,
    content: Mapping[str, Any] | None,
    note: Callable[[str], None],
) -> TrainConfig:
    """The configuration with fitted anchors where they are asked for; a resumed run keeps those it began with.

    Raises:
        HnxError: there are too few boxes to fit anchors to, or the checkpoint's anchors are damaged.
    """
    if content is not None:
        rule = _anchors_of(config, content)
    elif config.autoanchor:
        fit = world.broadcast(on_main(world, lambda: _fitted(config, split)))
        assert fit is not None
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


def _fitted(config: TrainConfig, split: Split) -> AnchorFit:
    sizes = label_sizes(split, config.target, seed=config.seed)
    return fit_anchors(sizes, config.project.anchors, seed=config.seed)


def _anchors_of(config: TrainConfig, content: Mapping[str, Any]) -> AnchorRule:
    found = content["anchors"]
    try:
        return AnchorRule(
            tuple(float(v) for v in found["scales"]),
            tuple((float(w), float(h)) for w, h in found["ratios"]),
            float(found["anchor_scale"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise resume.damaged(config.folder / resume.LAST, error) from error


def batch_plan(config: TrainConfig, world: World, count: int, start: int = 0) -> BatchPlan:
    """Which of `count` samples this process sees in which step, from step `start` on."""
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
