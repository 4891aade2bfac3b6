"""What an evaluation has already scored, one folder for each row, so that it can go on after any end.

A chunk is a pair of files: `<id>.npz` holds the records of some images, `<id>.json`, written after it, makes it valid
and says which images it covers, broken ones too. The id is a hash of the names, so two runs that write the same chunk
write the same files, and shards never meet. Everything that decides a number is in the key, and the key is in the
folder's name: what was scored under other conditions is not even looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.accuracy.protocols import Protocol
from benchmarks.accuracy.records import ImageRecord, read_records, write_records
from hybridnets.bundle import MANIFEST, Bundle
from hybridnets.errors import HnxError, from_os_error
from hybridnets.files import read_json, sha256_file, write_bytes, write_json
from hybridnets.version import __version__
from runtimes.cpu import cpu_model
from runtimes.registry import entry

__all__ = ["Chunk", "RowStore", "bundle_files", "library_version", "load_chunks", "row_key", "write_chunk"]

STORE_VERSION = 1
ROOT = Path(__file__).resolve().parents[2]
# whose source decides what is stored; what is computed from the records afterwards is not
DECISIVE = (
    *(f"hybridnets/{name}.py" for name in ("anchors", "enlarge", "fused", "postprocess", "preprocess")),
    *(f"hybridnets/{name}.py" for name in ("sources", "suppression")),
    *(f"hybridnets/dataset/{name}.py" for name in ("labels", "masks", "reader")),
    "runtimes/*.py",
    *(f"benchmarks/accuracy/{name}.py" for name in ("coco", "feed", "matching", "protocols", "records", "scoring")),
    *(f"benchmarks/accuracy/{name}.py" for name in ("segmentation", "worker")),
)


@dataclass(frozen=True)
class Chunk:
    """Some images of one row, scored.

    Attributes:
        records: of the images that could be read.
        broken: name of each that could not, to the reason.
        nonfinite: names of images for which the network gave infinite values or NaN.
        dropped: name to a sentence for each of its label boxes that cannot be a truth and was left out.
    """

    records: Sequence[ImageRecord]
    broken: Mapping[str, str] = field(default_factory=dict)
    nonfinite: Sequence[str] = ()
    dropped: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of all of its images, sorted."""
        return sorted([*(record.name for record in self.records), *self.broken])


# -- the key -------------------------------------------------------------------------------------------------


def row_key(
    bundle: Bundle, data: str, protocol: Protocol, runtime: str, precision: str, threads: int
) -> dict[str, Any]:
    """Everything that decides the records of a row.

    Threads and processor are part of it: both change the order of sums, and with it the last bits.

    Args:
        data: digest of the split.
    """
    return {
        "store_version": STORE_VERSION,
        "hnx": __version__,
        "source": _source_digest(),
        "bundle": bundle_files(bundle),
        "classes": [*bundle.classes, "|", *bundle.seg_classes, bundle.seg_mode],
        "preprocess": [*bundle.target, *bundle.mean, *bundle.std],
        "data": data,
        "protocol": [protocol.name, protocol.conf, protocol.iou, protocol.at],
        "row": [runtime, precision],
        "library": library_version(runtime),
        "threads": threads,
        "cpu": cpu_model(),
    }


def bundle_files(bundle: Bundle) -> dict[str, str]:
    """File of the bundle to SHA-256: as recorded (and checked when it was opened), else computed."""
    recorded = bundle.manifest.get("files", {})
    if recorded:
        return {name: str(values["sha256"]) for name, values in sorted(recorded.items()) if name != MANIFEST}
    names = {variant.file for variant in bundle.variants}
    names |= {f"{name}.data" for name in names} | {name for name in (bundle.anchors_file, bundle.weights) if name}
    return {name: sha256_file(bundle.file(name)) for name in sorted(names) if bundle.file(name).is_file()}


def library_version(runtime: str) -> str:
    """Of the installed library, without importing it; empty when it is missing."""
    for package in entry(runtime).packages:
        with contextlib.suppress(PackageNotFoundError):
            return f"{package} {version(package)}"
    return ""


@lru_cache(maxsize=1)
def _source_digest() -> str:
    """Of the code that makes records: 1 MB, 5 ms. A clone that was updated scores anew."""
    digest = hashlib.sha256()
    for pattern in DECISIVE:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


# -- the folder ----------------------------------------------------------------------------------------------


def write_chunk(folder: Path, chunk: Chunk) -> str:
    """Write a chunk; it counts only when this has returned. Its id.

    Raises:
        HnxError: the folder cannot be written, or the disk is full.
    """
    names = chunk.names
    name = hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    write_records(folder / f"{name}.npz", chunk.records)
    values = {
        "names": names,
        "broken": dict(chunk.broken),
        "nonfinite": list(chunk.nonfinite),
        "dropped": {key: list(value) for key, value in chunk.dropped.items()},
        "sha256": sha256_file(folder / f"{name}.npz"),
    }
    # names of files may hold bytes that are no UTF-8: the escapes of JSON keep them
    write_bytes(folder / f"{name}.json", json.dumps(values).encode())
    return name


def read_chunk(folder: Path, name: str) -> Chunk:
    """A chunk by its id.

    Raises:
        HnxError: incomplete or damaged.
    """
    values = read_json(folder / f"{name}.json")
    archive = folder / f"{name}.npz"
    try:
        names, broken = list(map(str, values["names"])), {str(k): str(v) for k, v in values["broken"].items()}
        nonfinite = list(map(str, values["nonfinite"]))
        dropped = {str(k): list(map(str, v)) for k, v in values["dropped"].items()}
        good = values["sha256"] == sha256_file(archive)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder / f"{name}.json") from error
    if not good:
        raise _damaged(archive)
    chunk = Chunk(read_records(archive), broken, nonfinite, dropped)
    if chunk.names != names:
        raise _damaged(archive)
    return chunk


def load_chunks(folder: Path, wanted: Iterable[str] | None) -> tuple[list[Chunk], int]:
    """What a folder knows of some images, each once, and the number of damaged chunks, which are left out.

    Args:
        wanted: names of the images; None takes all.
    """
    left = None if wanted is None else set(wanted)
    chunks: list[Chunk] = []
    seen: set[str] = set()
    damaged = 0
    for path in sorted(folder.glob("?" * 16 + ".json")):
        try:
            chunk = read_chunk(folder, path.stem)
        except HnxError:
            damaged += 1
            continue
        chosen = {name for name in chunk.names if name not in seen and (left is None or name in left)}
        if chosen:
            seen |= chosen
            chunks.append(_only(chunk, chosen))
    return chunks, damaged


def _damaged(path: Path) -> HnxError:
    return HnxError(f"{path} is damaged", why="it is not what was written", fix="evaluate its images again")


class RowStore:
    """The chunks of one row.

    Args:
        root: folder of all stores.
        title: start of the folder's name, for people.
        key: see `row_key`.
    """

    def __init__(self, root: Path, title: str, key: Mapping[str, Any]) -> None:
        text = json.dumps(key, sort_keys=True)
        self.key = dict(key)
        self.id = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self.folder = root / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', title)[:80]}-{self.id}"

    def clear(self) -> None:
        """Forget everything.

        Raises:
            HnxError: what lies there cannot be removed.
        """
        try:
            if self.folder.exists():
                shutil.rmtree(self.folder)
        except OSError as error:
            raise from_os_error(f"Cannot empty the store {self.folder}", error) from error

    def load(self, wanted: Iterable[str]) -> tuple[list[Chunk], int]:
        """See `load_chunks`."""
        return load_chunks(self.folder, wanted)

    def read(self, name: str) -> Chunk:
        """A chunk that was just written, by its id."""
        return read_chunk(self.folder, name)

    def begin(self, execution: Mapping[str, Any]) -> None:
        """Make the folder, and keep what runs for a run that finds everything scored.

        Raises:
            HnxError: it cannot be written.
        """
        write_json(self.folder / "key.json", self.key)
        write_json(self.folder / "execution.json", dict(execution))

    def execution(self) -> dict[str, Any] | None:
        """What ran when the chunks were written; None when that is not known."""
        try:
            value = read_json(self.folder / "execution.json")
        except HnxError:
            return None
        return value if isinstance(value, dict) and isinstance(value.get("precision"), str) else None


def _only(chunk: Chunk, names: set[str]) -> Chunk:
    return Chunk(
        [record for record in chunk.records if record.name in names],
        {name: reason for name, reason in chunk.broken.items() if name in names},
        [name for name in chunk.nonfinite if name in names],
        {name: sentences for name, sentences in chunk.dropped.items() if name in names},
    )
