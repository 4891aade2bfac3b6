"""From the options of `hnx train` to a checked configuration."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hybridnets.errors import HnxError

if TYPE_CHECKING:
    from hybridnets.training.config import TrainConfig

__all__ = ["chosen_fields", "configure", "default_workers"]

_DEBUG_IMAGES = 50
# options with other names in the configuration
_RENAMED = {"num_epochs": "epochs", "warmup": "warmup_steps", "conf_thres": "conf", "iou_thres": "iou"}
# fields that follow from more than the option of the same name
_DECIDED = ("project", "weights", "backbone", "device", "autoanchor", "cal_map")
# options that set a field of another name, for `chosen_fields`
_SET = {**_RENAMED, "no_cal_map": "cal_map", "debug": "limit", "held_out_frames": "held_out_sources"}
_DEFAULTS = (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def configure(options: Mapping[str, Any], note: Callable[[str], None]) -> TrainConfig:
    """The configuration; everything that can be refused is refused before torch is loaded.

    Args:
        note: told what the user should know.

    Raises:
        HnxError: a value or a combination that cannot be (exit code 2), or a project that cannot be read.
    """
    from hybridnets.project import load_project
    from hybridnets.training.config import TrainConfig

    project = load_project(options["project"])
    folder = options["output"] / project.name
    weights, resume = _weights(options["weights"], folder, note)
    workers = options["num_workers"]
    same = {entry.name for entry in dataclasses.fields(TrainConfig)}.difference(_DECIDED)
    values = {name: value for name, value in options.items() if name in same}
    values |= {field: options[name] for name, field in _RENAMED.items()}
    return TrainConfig(
        project,
        folder,
        weights=weights,
        resume=resume,
        backbone=None if options["backbone"] in (None, "None", "none") else options["backbone"],
        workers=default_workers() if workers is None else workers,
        device="cpu" if options["num_gpus"] == 0 else options["device"],
        autoanchor=options["autoanchor"] or project.need_autoanchor,
        cal_map=options["cal_map"] and not options["no_cal_map"],
        limit=_DEBUG_IMAGES if options["debug"] else None,
        **values,
    )


def chosen_fields(context: click.Context) -> frozenset[str]:
    """Names of the fields, of the configuration or its distillation, that somebody chose by an option."""
    from hybridnets.training.config import TrainConfig
    from hybridnets.training.distill.config import DistillConfig

    names = (name for name in context.params if context.get_parameter_source(name) not in _DEFAULTS)
    fields = {entry.name for kind in (TrainConfig, DistillConfig) for entry in dataclasses.fields(kind)}
    return frozenset(_SET.get(name, name) for name in names) & fields


def _weights(given: str | None, folder: Path, note: Callable[[str], None]) -> tuple[Path | None, bool]:
    """(checkpoint to start from, whether to go on with the run of the folder)."""
    from hybridnets.training.resume import find_last
    from hybridnets.weights import resolve_weights

    if given is None or given == "None":
        return None, False
    if given == "last":
        try:
            found = find_last(folder)
        except HnxError:
            if os.environ.get("RANK", "0") == "0":
                raise
            return None, True  # on another machine than rank 0, which sends what it has
        if not found.resumable:
            note(f"{found.path} holds weights only: a new run starts from them")
        return (None, True) if found.resumable else (found.path, False)
    return resolve_weights(given), False


def default_workers() -> int:
    """Processes that read images where nobody says how many: one a core, at most 8."""
    from runtimes.base import available_threads

    return min(8, available_threads())
