"""Which weights there are: those beside this file, and upstream's.

What is shipped stands in `files/index.json`, which `python -m tools.pack_weights` writes together with the files:
weights that are not there are not listed.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from hybridnets.config import SCALING, Activation, check_size
from hybridnets.errors import ExitCode, HnxError, did_you_mean
from hybridnets.files import read_json

__all__ = ["FILES", "INDEX", "NAME", "SCHEMA_VERSION", "UPSTREAM", "WeightsEntry", "entries", "find", "shipped"]

# read when they are used, so that tests and the packing tool may point to another folder
FILES = Path(__file__).with_name("files")
INDEX = "index.json"
SCHEMA_VERSION = 1

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,79}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class WeightsEntry:
    """One network's weights.

    Attributes:
        name: what `-w` takes.
        compound_coef: 0 to 7.
        size: (width, height) of the pictures they were trained on; they fit every other size, too.
        activation: of the network.
        classes: detection classes, in the order of the outputs.
        seg_classes: foreground segmentation classes.
        licence: name of the licence they are given under.
        summary: one sentence of what they are.
        file: name of the file: in `files/` where they are shipped, in the cache folder where they are downloaded.
        url: where they are downloaded from; None where they are shipped.
        bytes: size of the file; None where nobody has recorded it.
        sha256: hex digest of the file; None where nobody has recorded it: that of the first download is kept then.

    Raises:
        HnxError: a value cannot be.
    """

    name: str
    compound_coef: int
    size: tuple[int, int]
    activation: Activation
    classes: tuple[str, ...]
    seg_classes: tuple[str, ...]
    licence: str
    summary: str
    file: str
    url: str | None = None
    bytes: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise HnxError(f"The weights {self.name!r} are described wrongly", why=problem, code=ExitCode.USAGE)
        check_size(*self.size)

    def _problem(self) -> str:
        if not NAME.fullmatch(self.name):
            return "a name consists of small letters, digits, dots and dashes"
        if not _FILE.fullmatch(self.file):
            return f"{self.file!r} is not the plain name of a file"
        if not 0 <= self.compound_coef < len(SCALING):
            return f"there is no coefficient {self.compound_coef}"
        if self.activation not in get_args(Activation):
            return f"there is no activation {self.activation!r}"
        if not self.classes or not self.seg_classes:
            return "a list of classes is empty"
        if self.url is not None and not self.url.startswith(("https://", "http://")):
            return f"{self.url!r} is not an address on the web"
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            return f"{self.sha256!r} is not a SHA-256"
        if self.url is None and (self.sha256 is None or self.bytes is None):
            return "a shipped file needs its size and its SHA-256"
        return ""

    @property
    def is_shipped(self) -> bool:
        """They came with the installation."""
        return self.url is None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, `from_json` reads them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Any) -> WeightsEntry:
        """An entry of `files/index.json`.

        Raises:
            HnxError: a value is missing, unknown, or cannot be.
        """
        try:
            given = dict(values)
            if unknown := set(given) - {field.name for field in fields(cls)}:
                raise ValueError(f"unknown keys: {', '.join(sorted(map(str, unknown)))}")
            for key in ("classes", "seg_classes"):
                given[key] = tuple(_text(value) for value in given[key])
            for key in ("name", "activation", "licence", "summary", "file"):
                given[key] = _text(given[key])
            width, height = given["size"]
            given["size"] = int(width), int(height)
            given["compound_coef"] = int(given["compound_coef"])
            given["bytes"] = None if given.get("bytes") is None else int(given["bytes"])
            return cls(**given)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            why = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
            raise HnxError("An entry of the list of shipped weights cannot be read", why=why) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


# Release v1.0 of https://github.com/datvuthanh/HybridNets. Its authors published neither size nor digest, and this
# project has had no access to the file: the digest of the first download is kept beside it (`hybridnets.weights.pin`).
UPSTREAM = WeightsEntry(
    name="hybridnets-v1",
    compound_coef=3,
    size=(640, 384),
    activation="swish",
    classes=("car",),
    seg_classes=("road", "lane"),
    licence="MIT",
    summary="what the authors of HybridNets trained on BDD100K and released as version 1.0",
    file="hybridnets.pth",
    url="https://github.com/datvuthanh/HybridNets/releases/download/v1.0/hybridnets.pth",
)


def shipped() -> tuple[WeightsEntry, ...]:
    """What lies in `files/`, in the order of its list; empty where there is no list.

    Raises:
        HnxError: the list is damaged.
    """
    path = FILES / INDEX
    if not path.exists():
        return ()
    try:
        content = read_json(path, limit=1 << 20)
        if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
            raise HnxError("its version is unknown")
        found = tuple(WeightsEntry.from_json(values) for values in content["weights"])
        if len({entry.name for entry in (*found, UPSTREAM)}) <= len(found) or not all(e.is_shipped for e in found):
            raise HnxError("a name stands there twice, or an entry is not shipped")
    except (HnxError, KeyError, TypeError) as error:
        raise HnxError(
            f"Cannot read the list of shipped weights {path}",
            why=str(error).replace("\n", ";"),
            fix="the installation is damaged: install hnx again",
        ) from error
    return found


def entries() -> tuple[WeightsEntry, ...]:
    """All known weights: shipped ones first."""
    return (*shipped(), UPSTREAM)


def find(name: str) -> WeightsEntry:
    """The entry of that name.

    Raises:
        HnxError: there is none; suggests the closest (exit code 2).
    """
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        raise HnxError(
            f"There are no weights called {name!r}",
            why=did_you_mean(name, known),
            fix="hnx weights list shows what there is",
            code=ExitCode.USAGE,
        )
    return known[name]
