"""Measured ranges in a file that says exactly what they belong to, and is refused for anything else."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.ranges import Range, RangeConfig
from hybridnets.cache import cache_folder
from hybridnets.errors import HnxError
from hybridnets.files import read_json, write_json
from hybridnets.version import __version__

if TYPE_CHECKING:
    import onnx

    from calibration.frames import FrameSet
    from hybridnets.bundle import Bundle

__all__ = [
    "VERSION",
    "CalibrationKey",
    "calibration_key",
    "default_place",
    "model_digest",
    "read_ranges",
    "write_ranges",
]

# of how ranges are measured: another one makes every older file stale
VERSION = 2
# modules: several distributions provide the first and the last one, on some boards none does
_TOOLS = ("onnxruntime", "numpy", "cv2")
_MOST_BYTES = 256 << 20
_ANEW = "measure anew with --fresh, or delete it"


@dataclass(frozen=True)
class CalibrationKey:
    """Everything that decides the ranges, each in words a user can compare.

    Attributes:
        model: SHA-256 of the graph with its weights, names of producers and documentation left out.
        frames: SHA-256 over the contents of the frames, and their number.
        method: how thresholds are found.
        preprocess: size, mean, std and padding of the input.
        tools: versions of what computed it.
    """

    model: str
    frames: str
    method: str
    preprocess: str
    tools: str

    def to_json(self) -> dict[str, str]:
        """JSON form."""
        return dict(self.__dict__)

    @classmethod
    def from_json(cls, value: Any) -> CalibrationKey:
        """What `to_json` gave.

        Raises:
            ValueError: a part is missing or is no text.
        """
        if not isinstance(value, dict) or set(value) != set(cls.__dataclass_fields__):
            raise ValueError("its key is not complete")
        if not all(isinstance(part, str) for part in value.values()):
            raise ValueError("a part of its key is no text")
        return cls(**value)

    def digest(self) -> str:
        """Hex SHA-256 of all parts."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def differences(self, other: CalibrationKey) -> list[str]:
        """A phrase for each part in which another key differs: `method: max there, mse asked for`."""
        mine, theirs = self.to_json(), other.to_json()
        return [
            f"{name}: {_short(theirs[name])} there, {_short(mine[name])} asked for"
            for name in mine
            if mine[name] != theirs[name]
        ]


def _short(text: str) -> str:
    """Digests by their first digits, words whole: what differs may stand at their end."""
    return text if len(text) <= 48 or " " in text else text[:12] + "..."


def calibration_key(model: onnx.ModelProto, frames: FrameSet, config: RangeConfig, bundle: Bundle) -> CalibrationKey:
    """The key of what `measure_ranges` would find."""
    from hybridnets.preprocess import PAD_VALUE

    height, width = bundle.target
    return CalibrationKey(
        model=model_digest(model),
        frames=f"{frames.digest()[:32]} ({len(frames)} frames)",
        method=config.describe(),
        preprocess=f"{width}x{height} mean {list(bundle.mean)} std {list(bundle.std)} pad {PAD_VALUE} "
        f"input {bundle.input.dtype}",
        tools=", ".join([f"hnx {__version__}", f"ranges {VERSION}", *(f"{name} {_version(name)}" for name in _TOOLS)]),
    )


def _version(name: str) -> str:
    """What a module that can be imported says of itself."""
    try:
        return str(getattr(importlib.import_module(name), "__version__", "unknown"))
    except ImportError:
        return "none"


def model_digest(model: onnx.ModelProto) -> str:
    """Hex SHA-256 of the graph and its weights: equal for files that differ in metadata only."""
    import onnx

    copy = onnx.ModelProto()
    copy.graph.CopyFrom(model.graph)
    copy.graph.doc_string = ""
    copy.opset_import.extend(model.opset_import)
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def default_place(key: CalibrationKey) -> Path:
    """A file in the user's cache whose name is the key's: another key is another file.

    Raises:
        HnxError: this user has no cache folder.
    """
    return cache_folder() / "calibration" / f"{key.digest()[:32]}.json"


def write_ranges(path: Path, key: CalibrationKey, ranges: Mapping[str, Range]) -> None:
    """Write whole or not at all.

    Raises:
        HnxError: the folder cannot be written.
    """
    write_json(
        path,
        {
            "kind": "hnx calibration",
            "version": VERSION,
            "key": key.to_json(),
            "ranges": {
                name: {
                    "low": r.low,
                    "high": r.high,
                    "threshold": r.threshold,
                    "means": list(r.means),
                    "reaches": list(r.reaches),
                }
                for name, r in ranges.items()
            },
        },
    )


def read_ranges(path: Path, key: CalibrationKey, tensors: Collection[str] = ()) -> dict[str, Range]:
    """The ranges of a file, if they belong to this key.

    Args:
        tensors: that must have one.

    Raises:
        HnxError: the file is damaged, or was measured for something else: says what differs.
    """
    value = read_json(path, limit=_MOST_BYTES, fix=_ANEW)
    try:
        if not isinstance(value, dict) or value.get("kind") != "hnx calibration":
            raise ValueError("it is no calibration of hnx")
        found = CalibrationKey.from_json(value.get("key"))
        entries = value["ranges"]
        ranges = {name: _range(entry) for name, entry in entries.items()}
        absent = [name for name in tensors if name not in ranges] if found == key else []
        if absent:
            raise ValueError(f"it has no range of {len(absent)} tensor(s) of the network, such as {absent[0]}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise HnxError(f"Cannot use calibration cache {path}", why=str(error), fix=_ANEW) from error
    if different := key.differences(found):
        raise HnxError(
            f"Calibration cache {path} is stale",
            why="it was measured for something else: " + "; ".join(different),
            fix="name another file, or measure anew with --fresh",
        )
    return ranges


def _range(entry: Any) -> Range:
    low, high, threshold = (float(entry[name]) for name in ("low", "high", "threshold"))
    means, reaches = (tuple(float(value) for value in entry[name]) for name in ("means", "reaches"))
    if not all(map(math.isfinite, (low, high, threshold, *means, *reaches))) or low > high:
        raise ValueError("a range is no range")
    if min((threshold, *reaches)) < 0:
        raise ValueError("a range is no range")
    return Range(low, high, threshold, means, reaches)
