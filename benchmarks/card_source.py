"""The source of a model card, a YAML file, checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hybridnets.errors import ExitCode, HnxError, did_you_mean, from_os_error

__all__ = ["CardSource", "Pictures", "WeightsFacts", "read_source"]

_MAX_BYTES = 1 << 20
_KEYS = ("text", "weights", "evaluations", "pictures")


@dataclass(frozen=True)
class WeightsFacts:
    """What only the author knows of some weights.

    Attributes:
        name: of `hnx weights list`.
        hours: how long they were trained, and on what, such as "5 h on one core of a Xeon".
    """

    name: str
    hours: str


@dataclass(frozen=True)
class Pictures:
    """A contact sheet of overlays.

    Attributes:
        bundle: draws them.
        frames: pictures, folders or videos.
        file: name of the JPEG beside the card.
        caption: below it.
        columns: pictures in a row.
        width: of the sheet in pixels.
        most: pictures at most.
        step: every so many-th frame is taken.
        conf: boxes need a score above it.
        runtime: that draws, or auto.
        limit: bytes of the JPEG at most.

    Raises:
        HnxError: a value is out of range (exit code 2).
    """

    bundle: Path
    frames: tuple[Path, ...]
    file: str
    caption: str
    columns: int = 2
    width: int = 1280
    most: int = 12
    step: int = 1
    conf: float = 0.25
    runtime: str = "auto"
    limit: int = 1_000_000

    def __post_init__(self) -> None:
        positive = min(self.columns, self.most, self.step, self.limit) >= 1 and 64 <= self.width <= 8192
        if not positive or not 0 <= self.conf < 1 or not self.frames:
            raise HnxError(f"The pictures {self.file} have a number out of range, or no frames", code=ExitCode.USAGE)
        if Path(self.file).name != self.file or not self.file.endswith(".jpg"):
            raise HnxError(f"{self.file!r} is not the plain name of a .jpg file", code=ExitCode.USAGE)


@dataclass(frozen=True)
class CardSource:
    """A whole source.

    Attributes:
        path: of the YAML file.
        text: Markdown with places.
        weights: in the order of the tables.
        evaluations: key to name of weights to report of `hnx eval --json`.
        pictures: by key.
        folder: that paths of the source start from: the current one.
    """

    path: Path
    text: str
    weights: tuple[WeightsFacts, ...] = ()
    evaluations: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    pictures: Mapping[str, Pictures] = field(default_factory=dict)
    folder: Path = field(default_factory=Path)


def read_source(path: Path) -> CardSource:
    """Read and check a source.

    Raises:
        HnxError: it cannot be read, is no YAML, or has unknown, missing or impossible values (exit code 2).
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise _wrong(path, f"it is longer than {_MAX_BYTES} bytes")
        value = yaml.safe_load(data)
    except OSError as error:
        raise from_os_error(f"Cannot read {path}", error) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(path, f"it is no YAML: {error}".replace("\n", " ")) from error
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise _wrong(path, "it has no text")
    try:
        _only(value, _KEYS)
        return CardSource(
            path,
            value["text"],
            tuple(_facts(one) for one in value.get("weights") or ()),
            {
                str(key): {str(name): Path(_text(file)) for name, file in reports.items()}
                for key, reports in (value.get("evaluations") or {}).items()
                if _not_empty(reports)
            },
            {str(key): _pictures(one) for key, one in (value.get("pictures") or {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise _wrong(path, why) from error


def _wrong(path: Path, why: str) -> HnxError:
    return HnxError(f"{path} is no source of a model card", why=why, fix="see docs/weights.md", code=ExitCode.USAGE)


def _only(value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in value:
        if key not in known:
            raise ValueError(f"the key {key!r} is unknown, {did_you_mean(str(key), known)}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no text")
    return value


def _not_empty(reports: Any) -> bool:
    if not reports:
        raise ValueError("an evaluation names no report")
    return True


def _facts(value: Any) -> WeightsFacts:
    _only(value, ("name", "hours"))
    return WeightsFacts(_text(value["name"]), _text(value["hours"]))


def _pictures(value: Any) -> Pictures:
    numbers = ("columns", "width", "most", "step", "limit")
    _only(value, ("bundle", "frames", "file", "caption", "conf", "runtime", *numbers))
    given: dict[str, Any] = {key: int(value[key]) for key in numbers if key in value}
    if "conf" in value:
        given["conf"] = float(value["conf"])
    if "runtime" in value:
        given["runtime"] = _text(value["runtime"])
    frames = value["frames"] if isinstance(value["frames"], list) else [value["frames"]]
    return Pictures(
        bundle=Path(_text(value["bundle"])),
        frames=tuple(Path(_text(frame)) for frame in frames),
        file=_text(value["file"]),
        caption=_text(value["caption"]),
        **given,
    )
