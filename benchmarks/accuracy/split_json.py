"""A split as JSON, so that a row's process reads the same files by the same rules as its parent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hybridnets.anchors import AnchorRule
from hybridnets.dataset import Split
from hybridnets.project import DatasetConfig, Project

__all__ = ["pack_split", "unpack_split"]


def pack_split(split: Split) -> dict[str, Any]:
    """A split without its names: chunks name their own. Its folders become absolute."""
    return {
        "project": asdict(split.project),
        "split": split.split,
        "images": str(split.images.resolve()),
        "labels": str(split.labels.resolve()),
        "masks": [str(path.resolve()) for path in split.masks],
    }


def unpack_split(packed: Mapping[str, Any]) -> Split:
    """What `pack_split` packed, also after a way through JSON, where tuples become lists."""
    project = _tuples(packed["project"])
    project["anchors"] = AnchorRule(**project["anchors"])
    project["dataset"] = DatasetConfig(**project["dataset"])
    folders = [Path(path) for path in packed["masks"]]
    return Split(
        Project(**project), packed["split"], Path(packed["images"]), Path(packed["labels"]), tuple(folders), names=()
    )


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
