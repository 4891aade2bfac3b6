"""What a new run takes from the checkpoint it starts from: the network and the normalisation it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from hybridnets.carried import carried_project
from hybridnets.checkpoint import Checkpoint, infer_config, load_checkpoint
from hybridnets.config import ModelConfig
from hybridnets.errors import HnxError
from hybridnets.training.config import TrainConfig

__all__ = ["options_of_weights"]

_PROJECT = {"anchors", "mean", "std", "classes", "seg_classes"}  # the keys that `hnx train` writes of a project


def options_of_weights(config: TrainConfig, given: Collection[str] | None, note: Callable[[str], None]) -> TrainConfig:
    """The configuration of a run that starts from `config.weights`.

    Anchors, mean and standard deviation are the checkpoint's too where it carries them, but for anchors that are to
    be fitted.

    Args:
        given: names of the fields that somebody chose, which stay. None: all, and those of the project, too.
        note: told what was taken, and where the run goes on otherwise than the checkpoint was trained.

    Raises:
        HnxError: the checkpoint cannot be read, or is of no network.
    """
    path = config.weights
    assert path is not None
    checkpoint = load_checkpoint(path)
    free = {"compound_coef", "backbone", "activation"}.difference(given) if given is not None else set()
    backbone = None if "backbone" in free else config.backbone
    found = infer_config(checkpoint.state, metadata=checkpoint.metadata, backbone=backbone)
    taken: list[str] = []
    values: dict[str, Any] = {}
    for name, word in (("compound_coef", "coefficient"), ("backbone", "backbone"), ("activation", "activation")):
        value = getattr(found, name)
        if name in free and value != getattr(config, name) and (name != "activation" or name in checkpoint.metadata):
            values[name] = value
            taken.append(f"{word} {value}")
    _contradictions(config, checkpoint, found, values, note)
    if checkpoint.metadata.keys() >= _PROJECT:
        carried = _carried(config, checkpoint, found)
        differing = [name for name in ("anchors", "mean", "std") if carried[name] != getattr(config.project, name)]
        if config.autoanchor and "anchors" in differing:
            differing.remove("anchors")
        if given is None and differing:
            note(f"{path.name} was trained with another {', '.join(differing)} than the project has, which hold")
        elif differing:
            values["project"] = replace(config.project, **{name: carried[name] for name in differing})
            taken += [f"{name} {_text(carried[name])}" for name in differing]
    if taken:
        note(f"taken from {path.name}: {', '.join(taken)}")
    return replace(config, **values)


def _contradictions(
    config: TrainConfig,
    checkpoint: Checkpoint,
    found: ModelConfig,
    values: dict[str, Any],
    note: Callable[[str], None],
) -> None:
    """Tell what the tensors do not show; a coefficient or backbone that does not fit is refused with them."""
    assert config.weights is not None
    new = {"activation": config.activation, "seg_mode": config.project.seg_mode}
    for name, word in (("activation", "activation"), ("seg_mode", "segmentation mode")):
        old = getattr(found, name)
        comparable = name == "activation" or found.seg_channels == config.model_config.seg_channels
        if name in checkpoint.metadata and name not in values and old != new[name] and comparable:
            note(f"{config.weights.name} was trained with {word} {old} and goes on with {new[name]}")


def _carried(config: TrainConfig, checkpoint: Checkpoint, found: ModelConfig) -> dict[str, Any]:
    """Anchors, mean and std of the metadata, which anybody may have written."""
    assert config.weights is not None
    try:
        project = carried_project(config.weights, checkpoint.metadata, found)
    except HnxError as error:
        raise HnxError(error.what, why=error.why, fix="take the original file", code=error.code) from error
    return {name: getattr(project, name) for name in ("anchors", "mean", "std")}


def _text(value: Any) -> str:
    return (
        ", ".join(map(str, value)) if isinstance(value, tuple) else f"of scales {value.scales}, ratios {value.ratios}"
    )
