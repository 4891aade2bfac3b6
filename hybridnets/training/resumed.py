"""The options of a run that goes on: those it had, but for what somebody chose anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from hybridnets.config import check_normalisation
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import Project
from hybridnets.training import resume
from hybridnets.training.config import TrainConfig
from hybridnets.training.distill.config import DistillConfig

__all__ = ["options_of_run"]

# of this call or this machine, not of the run
_OWN = frozenset({"project", "folder", "weights", "encoder", "resume", "overwrite", "device", "workers", "distill"})
# nothing but a new run looks at them
_SETTLED = frozenset({"autoanchor", "upstream_init"})
_SETTLED_STUDENT = _SETTLED | {"precise_bn"}
# another network or optimizer has no use for the state, and another measure cannot tell which network is the best
_FIXED = (
    *("compound_coef", "backbone", "activation", "size", "optim"),
    *("cal_map", "fitness", "freeze_det", "freeze_seg"),
)
# fields whose default does not show what they hold
_KINDS: dict[str, type] = {"backbone": str, "warmup_steps": int, "limit": int}
_OPTIONS = {"epochs": "num-epochs", "warmup_steps": "warmup", "conf": "conf-thres", "iou": "iou-thres"} | {
    "held_out_sources": "held-out-frames"
}


def options_of_run(
    config: TrainConfig, content: Mapping[str, Any], given: Collection[str] | None, note: Callable[[str], None]
) -> TrainConfig:
    """The configuration with which a run goes on.

    Args:
        config: what was asked for.
        content: of the run's `last.pth`.
        given: names of the fields that somebody chose; all others are taken from the run. None: all were chosen.
        note: told of what was chosen and differs from what the run had.

    Raises:
        HnxError: the checkpoint is damaged, or what was chosen makes another network, optimizer or measure of the best
            network, or the classes are others (exit code 2).
    """
    path = config.folder / resume.LAST
    try:
        had = _stored(content)
        project = _normalisation(config.project, content)
        renamed = _other_classes(project, content)
    except (AttributeError, KeyError, TypeError, ValueError, HnxError) as error:
        raise resume.damaged(path, error) from error
    now = {name: getattr(config, name) for name in had} | ({"size": config.input_size} if "size" in had else {})
    settled = _SETTLED if config.distill is None else _SETTLED_STUDENT
    chosen = (set(had) if given is None else set(had).intersection(given)) - settled
    differing = [name for name in had if name in chosen and now[name] != had[name]]
    wrong = [(_option(name), _text(now[name]), _text(had[name])) for name in _FIXED if name in differing]
    mode = content.get("seg_mode", config.project.seg_mode)
    if mode != config.project.seg_mode:
        wrong.append(("segmentation mode", config.project.seg_mode, str(mode)))
    wrong += renamed
    if wrong:
        raise HnxError(
            f"The run of {config.folder} cannot go on with " + ", ".join(f"{name} {new}" for name, new, _ in wrong),
            why="it began with " + ", ".join(f"{name} {old}" for name, _, old in wrong),
            fix="leave the options out that a run has already, name its project file (-p), or start another one in "
            "another folder: -o",
            code=ExitCode.USAGE,
        )
    for name in differing:
        note(_going_on(name, now[name], had[name]))
    _tell_settled(config, content, given, settled, note)
    try:
        left = {name: value for name, value in had.items() if name not in chosen}
        if config.distill is not None:
            left["distill"] = _frames_of_run(config.distill, content, given, note)
        return dataclasses.replace(config, project=project, **left)
    except (KeyError, TypeError, ValueError) as error:
        raise resume.damaged(path, error) from error


def _other_classes(project: Project, content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is called otherwise than in the run: an output stands for a name by its place in the list."""
    found = content.get("config", {}).get("project", {})
    lists = (("obj_list", "classes", project.classes), ("seg_list", "seg_list", project.seg_list))
    return [
        (option, _names(own), _names(found[key]))
        for option, key, own in lists
        if key in found and [*found[key]] != [*own]
    ]


def _names(names: Any) -> str:
    return "[" + ", ".join(map(str, names)) + "]"


def _tell_settled(
    config: TrainConfig,
    content: Mapping[str, Any],
    given: Collection[str] | None,
    settled: Collection[str],
    note: Callable[[str], None],
) -> None:
    """Name the options that somebody chose and that a run looks at before its first step only."""
    stored = content.get("config", {})
    for name, value in ((name, getattr(config, name)) for name in sorted({*settled, "encoder"})):
        # without a choice a value stands for itself, and its absence for nothing
        chosen = name in given if given is not None else bool(value)
        had = stored.get(name)
        if chosen and value != had and str(value) != str(had):
            note(f"{_option(name)} {_text(value)} has no effect: only a new run looks at it")


def _frames_of_run(
    asked: DistillConfig, content: Mapping[str, Any], given: Collection[str] | None, note: Callable[[str], None]
) -> DistillConfig:
    """Which frames are held out, and what maps weigh, as the run had it; the frames themselves are always named."""
    found = content["config"]["distill"]
    had: dict[str, Any] = {
        "held_out_sources": tuple(str(value) for value in found["held_out_sources"]),
        **{name: int(found[name]) for name in ("held_out", "every")},
        "feature_weight": float(found["feature_weight"]),
    }
    chosen = set(had) if given is None else set(had).intersection(given)
    for name in had:
        if name in chosen and getattr(asked, name) != had[name]:
            note(_going_on(name, getattr(asked, name), had[name]))
    return dataclasses.replace(asked, **{name: value for name, value in had.items() if name not in chosen})


def _stored(content: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the run's own configuration, in the order of the class; anybody may have written them."""
    found = content.get("config", {})
    if not isinstance(found, Mapping):
        raise TypeError("its config is no dictionary")
    names = [entry.name for entry in dataclasses.fields(TrainConfig) if entry.name not in _OWN]
    return {name: _decoded(name, found) for name in names if name in found}


def _normalisation(project: Project, content: Mapping[str, Any]) -> Project:
    """The project with the mean and the deviation that the run has, which may be those of the weights it began with."""
    found = content.get("config", {}).get("project", {})
    if "mean" not in found or "std" not in found:
        return project
    mean, std = ([float(value) for value in found[name]] for name in ("mean", "std"))
    check_normalisation(mean, std)
    return dataclasses.replace(project, mean=tuple(mean), std=tuple(std))


def _decoded(name: str, found: Mapping[str, Any]) -> Any:
    """A field from its JSON value."""
    value = found[name]
    if name == "data":
        return None if value is None else Path(value)
    if name == "size":  # the project's, where none was named
        width, height = found["project"]["image_size"] if value is None else value
        return int(width), int(height)
    default = getattr(TrainConfig, name)
    if default is None:
        fits = value is None or (isinstance(value, _KINDS[name]) and not isinstance(value, bool))
    elif isinstance(default, float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = type(value) is type(default)
    if not fits:
        raise ValueError(f"{name} is {value!r}")
    return value


def _going_on(name: str, new: Any, old: Any) -> str:
    return f"going on with {_option(name)} {_text(new)}; until now it was {_text(old)}"


def _option(name: str) -> str:
    return "--" + _OPTIONS.get(name, name.replace("_", "-"))


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ("x" if all(isinstance(part, int) for part in value) else " ").join(map(str, value)) or "none"
    return "none" if value is None else str(value)
