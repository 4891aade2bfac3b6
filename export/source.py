"""The network to export, with the project that names its classes: from a checkpoint, or untrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from export.config import ExportConfig
from hybridnets.carried import carried_activation, carried_project
from hybridnets.config import ModelConfig
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import DEFAULT_PROJECT, Project, load_project

if TYPE_CHECKING:
    from hybridnets.network.model import HybridNets

__all__ = ["Source", "check_request", "load_source"]


@dataclass(frozen=True)
class Source:
    """The network to export, and where it came from; `deployed` is the form that is traced."""

    model: HybridNets
    deployed: HybridNets
    project: Project
    origin: dict[str, Any]


def check_request(config: ExportConfig) -> None:
    """Refuse what can be refused before torch is imported and the checkpoint read, which takes many seconds.

    Raises:
        HnxError: the project cannot be read, or the weights were trained with another activation (exit code 2).
    """
    if config.project is not None:
        load_project(config.project)
    found = None if config.weights is None else carried_activation(config.weights)
    if found is not None:
        _check_activation(config, found)


def _check_activation(config: ExportConfig, found: str) -> None:
    if config.activation not in (None, found):
        raise HnxError(
            f"{config.weights} was trained with {found}, {config.activation} was asked for",
            why="another activation makes another network of the same weights",
            fix="leave --activation out",
            code=ExitCode.USAGE,
        )


def load_source(config: ExportConfig) -> Source:
    """The network a configuration names.

    Raises:
        HnxError: the checkpoint or project cannot be read, or they do not fit each other.
    """
    from hybridnets.checkpoint import build_model, infer_config, load_checkpoint

    if config.weights is None:
        return _untrained(config)
    checkpoint = load_checkpoint(config.weights)
    found = infer_config(
        checkpoint.state,
        activation=config.activation or "swish",
        backbone=config.backbone,
        metadata=checkpoint.metadata,
    )
    carried = config.project is None and "classes" in checkpoint.metadata
    project = carried_project(config.weights, checkpoint.metadata, found) if carried else _named_project(config)
    _check_activation(config, found.activation)
    expected = ModelConfig(
        compound_coef=found.compound_coef if config.compound_coef is None else config.compound_coef,
        num_classes=len(project.classes),
        seg_classes=len(project.seg_list),
        seg_mode=project.seg_mode,
        activation=found.activation,
        backbone=found.backbone,
    )
    model = build_model(checkpoint, expected)
    origin = {
        "file": config.weights.name,
        "sha256": checkpoint.sha256,
        "layout": checkpoint.layout,
    }
    return Source(model, model.deployed(), project, {"untrained": False, "source": origin})


def _untrained(config: ExportConfig) -> Source:
    from hybridnets.network.weights import create_model

    project = _named_project(config)
    model = create_model(
        ModelConfig(
            compound_coef=3 if config.compound_coef is None else config.compound_coef,
            num_classes=len(project.classes),
            seg_classes=len(project.seg_list),
            seg_mode=project.seg_mode,
            activation=config.activation or "swish",
            backbone=config.backbone,
        ),
        config.seed,
    ).eval()
    return Source(model, model.deployed(), project, {"untrained": True, "source": {"seed": config.seed}})


def _named_project(config: ExportConfig) -> Project:
    return load_project(config.project or DEFAULT_PROJECT)
