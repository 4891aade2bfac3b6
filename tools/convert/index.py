"""Which frames a source holds and where: names to places, so that sources in any order can be joined."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from hybridnets.dataset.layout import check_regular
from hybridnets.errors import HnxError, from_os_error
from hybridnets.files import read_json
from hybridnets.sources import IMAGE_SUFFIXES
from tools.convert.categories import kind_of, label_attributes
from tools.convert.jsonstream import MAX_ELEMENT, Place, elements, read_place
from tools.convert.labels import FrameError, frame_size, labels_of

__all__ = ["FolderIndex", "Index", "InlineBoxes", "JsonIndex", "NamedIndex", "Ref", "other_kind", "stem_of"]

_LENGTH_BITS = 24  # as MAX_ELEMENT; one integer a frame instead of a tuple
_SUFFIXES = (*IMAGE_SUFFIXES, ".json")
_MAX_NAME = 200  # bytes; file systems take 255, and temporary names are longer
_OnRead = Callable[[int], None]


@dataclass(frozen=True)
class InlineBoxes:
    """The boxes of one image: (x, y, width, height, category, crowd) each, in pixels, not yet checked."""

    boxes: tuple[tuple[float, float, float, float, str, bool], ...]
    size: tuple[int, int] | None


Ref = Place | Path | InlineBoxes


class Index(Protocol):
    """What a source holds.

    Attributes:
        description: for the summary, such as `det_20 (2020)`.
        size: (height, width) that all its frames share, where the source says so.
        duplicates: names that came again; the first entry counts.
        unsafe: names that cannot be file names of ours.
        holds: kinds of labels seen: box, area, lane.
    """

    description: str
    size: tuple[int, int] | None
    duplicates: list[str]
    unsafe: list[str]
    holds: set[str]

    def __len__(self) -> int: ...

    def __contains__(self, stem: str, /) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    def ref(self, stem: str) -> Ref:
        """Where a worker finds the frame."""
        ...


def stem_of(name: Any, *, folders: bool = False) -> str | None:
    """The name of an image without its suffix, or None where it cannot become a file name of ours.

    Args:
        name: from a label file, so anything.
        folders: drop leading folders (COCO writes some) instead of refusing the name; `..` is refused in any case.

    >>> stem_of("0000f77c-6257be58.jpg"), stem_of("../../etc/passwd"), stem_of("val/1.jpg", folders=True)
    ('0000f77c-6257be58', None, '1')
    """
    if not isinstance(name, str) or "\\" in name:
        return None
    if folders:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts:
            return None
        name = parts[-1]
    stem, dot, suffix = name.rpartition(".")
    if dot and f".{suffix.lower()}" in _SUFFIXES:
        name = stem
    bad = not name or name.startswith(".") or "/" in name or not name.isprintable() or name != name.strip()
    try:
        return None if bad or len(name.encode()) > _MAX_NAME else name
    except UnicodeEncodeError:  # half of a surrogate pair
        return None


class NamedIndex:
    """Bookkeeping of names that all indices share."""

    def __init__(self) -> None:
        self.description = ""
        self.size: tuple[int, int] | None = None
        self.duplicates: list[str] = []
        self.unsafe: list[str] = []
        self.holds: set[str] = set()
        self._names: set[str] = set()

    def look(self, frame: Any) -> None:
        """Note what kinds of labels a frame has, and names that only one generation has."""
        try:
            labels = labels_of(frame)
        except FrameError:
            return  # left out and listed when its turn comes
        for label in labels:
            kind, name = kind_of(label.get("category"), label_attributes(label))
            self.holds.add(kind)
            if kind == "box":
                self._names.add(name)
            if label.get("rle") is not None:
                self.holds.add("rle")

    def accept(self, name: Any, known: Mapping[str, Any], *, folders: bool = False) -> str | None:
        """The stem of a name, or None (and a note of it) when it came before or cannot be used."""
        stem = stem_of(name, folders=folders)
        if stem is None:
            self.unsafe.append(repr(name)[:_MAX_NAME])
        elif stem in known:
            self.duplicates.append(stem)
            stem = None
        return stem


class JsonIndex(NamedIndex):
    """A JSON of frames: v1, det_20, drivable or lane polygons, RLEs; a list or {"frames": [...]}.

    Raises:
        HnxError: not JSON (with the byte), or JSON of another kind.
    """

    def __init__(self, path: Path, on_read: _OnRead | None = None) -> None:
        super().__init__()
        self.path = path
        self._places: dict[str, int] = {}
        for element in elements(path, on_read):
            if element.key in ("annotations", "images") and element.index is not None:
                raise other_kind(path, "it is COCO JSON", "give it as --boxes coco FILE")
            if element.key == "config":
                self.size = frame_size(element.value)
            if element.key not in ("", "frames") or element.index is None:
                continue
            frame = element.value
            if element.key and isinstance(frame, dict) and "objects" in frame:
                raise other_kind(path, "it holds one image in the old form (v0)", "name the folder of these files")
            name = frame.get("name") if isinstance(frame, dict) else None
            if isinstance(name, str) and not name.isascii():  # it was read one character per byte
                again = read_place(Place(path, element.offset, element.length))
                name = again.get("name") if isinstance(again, dict) else None
            stem = self.accept(name, self._places)
            if stem is not None:
                self._places[stem] = element.offset << _LENGTH_BITS | element.length
                self.look(frame)
        self.description = self._describe()

    def _describe(self) -> str:
        if "rle" in self.holds:
            return "run lengths (2020)"
        if "box" not in self.holds:
            return "polygons (2020)" if self.holds & {"area", "lane"} else "no labels at all"
        # of the two sets of names only one occurs in each generation
        new = len(self._names & {"bicycle", "motorcycle", "pedestrian", "other vehicle", "other person", "trailer"})
        old = len(self._names & {"bike", "motor", "person"})
        if new > old or (new == old and not self.holds & {"area", "lane"} and self.path.name.startswith("det_")):
            return "det_20 (2020)"
        return "single JSON (v1, 2018-08-28)"

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, stem: str, /) -> bool:
        return stem in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def ref(self, stem: str) -> Place:
        """The bytes of the frame."""
        packed = self._places[stem]
        return Place(self.path, packed >> _LENGTH_BITS, packed & ((1 << _LENGTH_BITS) - 1))


class FolderIndex(NamedIndex):
    """One file per image: pictures, masks, JSONs of v0 or YOLO's texts; without subfolders.

    Args:
        path: the folder.
        suffixes: of the files that count.
        ending: the end of the stems that is not part of the image's name, such as `_drivable_id`.

    Raises:
        HnxError: the folder cannot be read.
    """

    def __init__(self, path: Path, suffixes: tuple[str, ...], description: str, ending: str = "") -> None:
        super().__init__()
        self.path, self.description, self._ending = path, description, ending
        self._files: dict[str, str] = {}
        self.with_ending = 0
        try:
            with os.scandir(path) as entries:
                names = sorted(e.name for e in entries if os.path.splitext(e.name)[1].lower() in suffixes)  # noqa: PTH122
        except OSError as error:
            raise from_os_error(f"Cannot read folder {path}", error) from error
        for name in names:
            base = os.path.splitext(name)[0]  # noqa: PTH122 - Path would cost 1 s for 100,000 names
            if ending and base.endswith(ending):
                self.with_ending += 1
                base = base.removesuffix(ending)
            # a name like a.jpg.png keeps its inner dot: only label files name images with a suffix
            stem = self.accept(f"{base}.png", self._files)
            if stem is not None:
                self._files[stem] = name

    def look_inside(self, samples: int = 500) -> None:
        """Note what kinds of labels the JSONs hold, from some spread over all: 70,000 take half a minute."""
        stems = list(self._files)
        for stem in stems[:: max(1, len(stems) // samples)]:
            try:
                check_regular(self.ref(stem))
                self.look(read_json(self.ref(stem), limit=MAX_ELEMENT))
            except HnxError:
                continue  # left out and listed when its turn comes

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, stem: str, /) -> bool:
        return stem in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def ref(self, stem: str) -> Path:
        """The file."""
        return self.path / self._files[stem]


def other_kind(path: Path, why: str, fix: str) -> HnxError:
    """The error for JSON that is valid but holds something else."""
    return HnxError(f"Cannot use {path}", why=why, fix=fix)
