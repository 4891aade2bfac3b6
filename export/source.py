"""The network to export, with the project that names its classes: from a checkpoint, or untrained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.config import ExportConfig
from hybridnets.anchors import AnchorRule
from hybridnets.config import ModelConfig, check_normalisation
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import DEFAULT_PROJECT, Project, load_project

if TYPE_CHECKING:
    from hybridnets.network.model import HybridNets

__all__ = ["Source", "load_source"]


@dataclass(frozen=True)
class Source:
    """The network to export, and where it came from; `deployed` is the form that is traced."""

    model: HybridNets
    deployed: HybridNets
    project: Project
    origin: dict[str, Any]


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
    project = _carried_project(config.weights, checkpoint.metadata, found) if carried else _named_project(config)
    if config.activation not in (None, found.activation):
        raise HnxError(
            f"{config.weights} was trained with {found.activation}, {config.activation} was asked for",
            why="another activation makes another network of the same weights",
            fix="leave --activation out",
            code=ExitCode.USAGE,
        )
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


def _carried_project(weights: Path, metadata: dict[str, Any], found: ModelConfig) -> Project:
    """The project that stands in the metadata of a checkpoint; anybody may have written them."""
    import dataclasses

    try:
        mean, std, rule = metadata["mean"], metadata["std"], metadata["anchors"]
        check_normalisation(mean, std)
        return dataclasses.replace(
            Project(),
            name="checkpoint",
            classes=_texts(metadata["classes"]),
            combine=(),
            seg_list=_texts(metadata["seg_classes"]),
            seg_multilabel=found.seg_mode == "multilabel",
            mean=tuple(mean),
            std=tuple(std),
            anchors=AnchorRule(
                tuple(float(v) for v in rule["scales"]), tuple((float(w), float(h)) for w, h in rule["ratios"])
            ),
        )
    except (HnxError, KeyError, TypeError, ValueError, OverflowError) as error:
        why = f"the key {error} is missing" if isinstance(error, KeyError) else str(error).replace("\n", ";")
        raise HnxError(
            f"Cannot use the metadata of {weights}",
            why=why,
            fix=f"name the project instead, for example -p {DEFAULT_PROJECT}",
        ) from error


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise ValueError("its class names are not a list of texts")
    return tuple(value)
