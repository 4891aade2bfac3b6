"""What a checkpoint carries in its metadata: its project, and the size it was trained at."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridnets.anchors import AnchorRule
from hybridnets.config import ModelConfig, check_normalisation, check_size
from hybridnets.errors import HnxError
from hybridnets.project import DEFAULT_PROJECT, Project

__all__ = ["carried_activation", "carried_project", "carried_size"]

_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
_MOST_HEADER = 1 << 24  # bytes; that of coefficient 7 with all names has a hundredth of it


def carried_project(weights: Path, metadata: Mapping[str, Any], found: ModelConfig) -> Project:
    """The project that stands in the metadata of a checkpoint; anybody may have written them.

    Args:
        weights: the file, for messages.
        found: of its network.

    Raises:
        HnxError: a key is missing or no such thing.
    """
    try:
        mean, std, rule = metadata["mean"], metadata["std"], metadata["anchors"]
        check_normalisation(mean, std)
        return replace(
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


def carried_activation(weights: Path) -> str | None:
    """The activation that the header of a safetensors file names, read without torch.

    Returns:
        None for any other file, and where the header says nothing: whoever reads the tensors tells more.
    """
    try:
        found = _header_value(weights, "activation")
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def carried_size(weights: Path) -> tuple[int, int] | None:
    """(width, height) that a checkpoint says it was trained at: in the header of a safetensors file, which is read
    without torch, else in what lies beside the tensors of a torch file.

    Returns:
        None for a file that cannot be read, or one that says nothing that a network can take: whoever reads its
        tensors tells what is wrong with it.
    """
    try:
        try:
            width, height = _header_value(weights, "size")
        except _OtherFileError:
            return _torch_size(weights)
        if type(width) is not int or type(height) is not int:
            return None
        check_size(width, height)
    except (OSError, HnxError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return width, height


class _OtherFileError(ValueError):
    """It does not begin as a safetensors file does."""


def _header_value(weights: Path, name: str) -> Any:
    """What the header of a safetensors file says under a name, read without torch.

    Raises:
        OSError, KeyError, TypeError, ValueError, RecursionError: it cannot be read, or says nothing of the kind.
    """
    with weights.open("rb") as stream:
        head = stream.read(9)
        if head[8:] != b"{":
            raise _OtherFileError
        length = int.from_bytes(head[:8], "little")
        if length > _MOST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        return json.loads(json.loads(head[8:] + stream.read(length - 1))["__metadata__"][name])


def _torch_size(weights: Path) -> tuple[int, int] | None:
    """Of a checkpoint that `hnx train` wrote in upstream's form; torch reads it, tensors and nothing else.

    Raises:
        HnxError: it is no checkpoint, or its size is none.
    """
    if importlib.util.find_spec("torch") is None:
        return None
    from hybridnets.checkpoint import load_checkpoint

    match = _SIZE.fullmatch(str(load_checkpoint(weights).metadata.get("size")))
    if match is None:
        return None
    width, height = int(match[1]), int(match[2])
    check_size(width, height)
    return width, height
