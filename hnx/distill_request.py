"""From the options of `hnx distill` to a checked configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from hybridnets.checkpoint import Checkpoint
    from hybridnets.config import ModelConfig
    from hybridnets.project import Project
    from hybridnets.training.config import TrainConfig

__all__ = ["configure"]

_RENAMED = {"num_epochs": "epochs", "warmup": "warmup_steps"}
# fields that follow from more than the option of the same name
_DECIDED = ("project", "weights", "size", "data", "resume", "device")


def configure(frames: tuple[str, ...], options: Mapping[str, Any], note: Callable[[str], None]) -> TrainConfig:
    """The configuration, with the teacher's checkpoint read and held against it.

    Args:
        frames: what the user named to learn from.
        note: told what the user should know.

    Raises:
        HnxError: a value or a combination that cannot be (exit code 2), no teacher, or one that cannot be read.
    """
    from hnx.defaults import choose_weights
    from hnx.train_request import default_workers
    from hybridnets.training.config import TrainConfig
    from hybridnets.training.distill.config import DistillConfig

    if options["max_drop"] is not None and options["data"] is None:
        raise HnxError(
            "--max-drop without labels",
            why="what a task loses is measured on a labelled data set",
            fix="name one with --data",
            code=ExitCode.USAGE,
        )
    chosen = choose_weights(options["weights"], size=options["size"], project=options["project"])
    if chosen.path is None:
        raise HnxError(
            "There is no teacher",
            why="no trained weights were named or found",
            fix="name some: -w FILE",
            code=ExitCode.USAGE,
        )
    distill = DistillConfig(
        chosen.path,
        frames,
        tuple(options["held_out_frames"]),
        options["held_out"],
        options["every"],
        options["feature_weight"],
    )
    if chosen.remark:
        note(chosen.remark)
    found, project = _teacher(chosen.path, options["project"])
    if found.activation == options["activation"]:
        raise HnxError(
            f"The teacher has {found.activation} already",
            why="a student with the same activation would be the teacher itself",
            fix="choose another: --activation",
            code=ExitCode.USAGE,
        )
    same = {entry.name for entry in dataclasses.fields(TrainConfig)}.difference(_DECIDED)
    values = {name: value for name, value in options.items() if name in same}
    values |= {field: options[name] for name, field in _RENAMED.items()}
    workers = options["num_workers"]
    return TrainConfig(
        project,
        options["output"] / f"{chosen.path.stem}-{options['activation']}",
        weights=None if options["resume"] else chosen.path,
        resume=options["resume"],
        compound_coef=found.compound_coef,
        backbone=found.backbone,
        size=options["size"] or chosen.size,
        workers=default_workers() if workers is None else workers,
        device=options["device"],
        distill=distill,
        **values,
    )


def _teacher(path: Path, project: str | None) -> tuple[ModelConfig, Project]:
    """The teacher's network, and its project: the one that is named, else the one it carries."""
    from hybridnets.carried import carried_project
    from hybridnets.checkpoint import infer_config, load_checkpoint
    from hybridnets.project import load_project

    checkpoint: Checkpoint = load_checkpoint(path)
    found = infer_config(checkpoint.state, metadata=checkpoint.metadata)
    if project is None and "classes" in checkpoint.metadata:
        chosen = carried_project(path, checkpoint.metadata, found)
        default = load_project()
        if (default.classes, default.seg_list) == (chosen.classes, chosen.seg_list):
            # a checkpoint does not say which categories of labels its classes stand for
            chosen = dataclasses.replace(chosen, combine=default.combine, dataset=default.dataset)
    else:
        chosen = load_project(project) if project is not None else load_project()
    if (found.num_classes, found.seg_classes, found.seg_mode) != (
        len(chosen.classes),
        len(chosen.seg_list),
        chosen.seg_mode,
    ):
        raise HnxError(
            f"The project {chosen.name} does not fit the teacher {path}",
            why=f"it has {len(chosen.classes)} detection and {len(chosen.seg_list)} segmentation classes "
            f"({chosen.seg_mode}), the teacher {found.num_classes} and {found.seg_classes} ({found.seg_mode})",
            fix="name the project it was trained with: -p",
            code=ExitCode.USAGE,
        )
    return found, chosen
