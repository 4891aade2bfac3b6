"""What `hnx tune` found out about a bundle: which setting is fastest on which machine, kept in the manifest.

A manifest travels, and anybody may have written it. So a tuning is read with suspicion, says which machine, library and
network it holds for, and is left alone wherever one of them is another.
"""

from __future__ import annotations

import contextlib
import copy
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hybridnets.bundle.manifest import MANIFEST, files_of
from hybridnets.bundle.model import Bundle
from hybridnets.errors import HnxError, from_os_error
from hybridnets.files import read_json, remove_leftovers, write_bytes, write_json

__all__ = [
    "GOALS",
    "MEASURES",
    "Place",
    "TunedRow",
    "Tuning",
    "check_storable",
    "is_tuned_file",
    "read_tuning",
    "store_tuning",
    "tuned_file",
]

# what is made small: the time of one frame, or the time between frames with several under way
GOALS = ("latency", "throughput")
# what a loss was measured with: labels, or the float32 network's own answers
MEASURES = ("labels", "agreement")
_KEY = "tuning"


@dataclass(frozen=True)
class Place:
    """A machine and a library, as far as they decide which setting is fastest.

    Attributes:
        cpu: name of the processor.
        instructions: the instruction sets that decide the speed of a convolution; names of processors in virtual
            machines tell less than these.
        cores: open to the process.
        library: version of the runtime's.
        devices: names of GPUs, for runtimes that use them.
    """

    cpu: str
    instructions: tuple[str, ...]
    cores: int
    library: str
    devices: tuple[str, ...] = ()

    def differences(self, other: Place) -> list[str]:
        """A sentence for each thing in which `other`, where the bundle is now, differs."""
        words = {"cpu": "CPU", "instructions": "instruction sets", "cores": "cores", "library": "library version"}
        return [
            f"{words.get(name, name)}: {_shown(then)} then, {_shown(now)} now"
            for (name, then), now in zip(asdict(self).items(), asdict(other).values(), strict=True)
            if then != now
        ]


def _shown(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value) or "unknown"


@dataclass(frozen=True)
class TunedRow:
    """One setting that was measured.

    Attributes:
        precision, threads, streams: the setting.
        p50_ms: median time of a frame; with several streams, of the frames together divided by their number.
        ratio: lower quartile, median and upper quartile over the rounds of the time as a share of float32's with the
            same number of threads as were allowed.
        lost: task to points lost against float32; None where that was not measured.
        verdict: why it was taken or not, in words.
        rewrites: the exact rewrites in its graph, where it is not the bundle's own: `none`, `all but max-pool`.
    """

    precision: str
    threads: int
    streams: int
    p50_ms: float
    ratio: tuple[float, float, float]
    lost: Mapping[str, float] | None
    verdict: str
    rewrites: str = ""


@dataclass(frozen=True)
class Tuning:
    """The fastest setting inside a budget of accuracy.

    Attributes:
        precision, threads, streams: the setting.
        file, sha256: the network it runs, a file of the bundle or one of `tuned_file`.
        goal: one of `GOALS`.
        measure: one of `MEASURES`.
        max_drop: points that every task was allowed to lose.
        images: how many the losses were measured on; 0 where nothing was worth measuring.
        source: name of the data set or folder.
        place: where it was measured.
        rows: everything that was measured.
        created: UTC time, ISO 8601.
        rewrites: as in `TunedRow`; not empty where `file` is a graph that the search made.
    """

    precision: str
    threads: int
    streams: int
    file: str
    sha256: str
    goal: str
    measure: str
    max_drop: float
    images: int
    source: str
    place: Place
    rows: tuple[TunedRow, ...]
    created: str
    rewrites: str = ""

    @property
    def chosen(self) -> TunedRow:
        """The row of the setting."""
        wanted = (self.precision, self.threads, self.streams, self.rewrites)
        return next(row for row in self.rows if (row.precision, row.threads, row.streams, row.rewrites) == wanted)

    @property
    def network(self) -> dict[str, str]:
        """What a report says of the network that a tuned row ran."""
        return {"file": self.file, "sha256": self.sha256, "rewrites": self.rewrites}

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Tuning:
        """Of a manifest.

        Raises:
            ValueError: anything but what `to_json` writes.
        """
        try:
            found = cls(
                precision=_text(value["precision"]),
                threads=_count(value["threads"]),
                streams=_count(value["streams"]),
                file=_text(value["file"]),
                sha256=_text(value["sha256"]),
                goal=_one_of(value["goal"], GOALS),
                measure=_one_of(value["measure"], MEASURES),
                max_drop=float(value["max_drop"]),
                images=_count(value["images"], least=0),
                source=_text(value["source"]),
                place=_place(value["place"]),
                rows=tuple(_row(row) for row in value["rows"]),
                created=_text(value["created"]),
                rewrites=_text(value.get("rewrites", "")),
            )
            _ = found.chosen
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration, OverflowError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error) or "its own row is missing"
            raise ValueError(reason) from error
        return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise ValueError(f"{str(value)[:80]!r} is no text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{str(value)[:80]!r} is no list")
    return tuple(map(_text, value))


def _count(value: Any, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{str(value)[:80]!r} is no whole number from {least} on")
    return value


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{str(value)[:80]!r} is none of {', '.join(known)}")
    return str(value)


def _place(value: Any) -> Place:
    return Place(
        _text(value["cpu"]),
        _texts(value["instructions"]),
        _count(value["cores"]),
        _text(value["library"]),
        _texts(value["devices"]),
    )


def _row(value: Any) -> TunedRow:
    low, middle, high = (float(number) for number in value["ratio"])
    lost = value["lost"]
    return TunedRow(
        _text(value["precision"]),
        _count(value["threads"]),
        _count(value["streams"]),
        float(value["p50_ms"]),
        (low, middle, high),
        None if lost is None else {_text(task): float(points) for task, points in lost.items()},
        _text(value["verdict"]),
        _text(value.get("rewrites", "")),
    )


def read_tuning(bundle: Bundle, runtime: str) -> Tuning | None:
    """What is stored for a runtime; None where nothing is.

    Raises:
        ValueError: what is stored is not what `hnx tune` writes.
    """
    stored = bundle.manifest.get(_KEY)
    if stored is None:
        return None
    if not isinstance(stored, dict):
        raise ValueError("it is no list of runtimes")
    return Tuning.from_json(stored[runtime]) if runtime in stored else None


def check_storable(bundle: Bundle) -> None:
    """Refuse a bundle that no tuning can be kept in; asked before minutes are spent on measuring.

    Raises:
        HnxError: it is a bare ONNX file, or its folder cannot be written.
    """
    if not (bundle.path / MANIFEST).is_file():
        raise HnxError(
            f"{bundle.path} has no manifest to keep a setting in",
            why="it is a bare ONNX file",
            fix="export a bundle with `hnx export`, or only measure: --dry-run",
        )
    try:
        with tempfile.TemporaryFile(dir=bundle.path):
            pass
    except OSError as error:
        told = from_os_error(f"Cannot write to bundle {bundle.path}", error)
        fix = f"{told.fix}; or only measure: --dry-run"
        raise HnxError(told.what, why=told.why, fix=fix) from error


def tuned_file(bundle: Bundle, sha256: str) -> str:
    """Name, in the bundle's folder, of a graph that a search made. The tuning has its hash; the manifest's list of
    files has not: it is no part of what was exported, and the bundle is whole without it."""
    height, width = bundle.target
    return f"hybridnets_{height}x{width}-tuned-{sha256[:8]}.onnx"


def is_tuned_file(name: str) -> bool:
    """Whether a name is one of `tuned_file`: anybody may have written the manifest that it comes from."""
    return re.fullmatch(r"hybridnets_\d{1,6}x\d{1,6}-tuned-[0-9a-f]{8}\.onnx", name) is not None


def store_tuning(bundle: Bundle, runtime: str, tuning: Tuning | None, graph: Path | None = None) -> bool:
    """Put a tuning into the manifest in the place of an earlier one, or remove it; whole or not at all.

    A graph that only the earlier one used goes with it.

    Args:
        tuning: None removes what is stored, whatever it is.
        graph: the network that the tuning names, where a search made it: it is copied into the bundle.

    Returns:
        Whether anything changed.

    Raises:
        HnxError: see `check_storable`; or another command wrote the bundle meanwhile.
    """
    check_storable(bundle)
    where = bundle.path / MANIFEST
    manifest: dict[str, Any] = copy.deepcopy(read_json(where))
    if files_of(manifest) != files_of(bundle.manifest):
        raise HnxError(
            f"Bundle {bundle.path} has changed since it was opened",
            why="another command wrote it",
            fix="start again",
        )
    stored = manifest.get(_KEY)
    entries = dict(stored) if isinstance(stored, dict) else {}
    if tuning is not None:
        entries[runtime] = tuning.to_json()
    elif runtime not in entries and isinstance(stored, dict | None):
        return False
    else:
        entries.pop(runtime, None)
    manifest[_KEY] = entries
    if not entries:
        del manifest[_KEY]
    remove_leftovers(where)
    if tuning is not None and graph is not None:
        _copy(graph, bundle.path / tuning.file)
    try:
        write_json(where, manifest)
    finally:  # of the manifest that is there now
        _sweep(bundle.path)
    return True


def _copy(source: Path, target: Path) -> None:
    try:
        content = source.read_bytes()
    except OSError as error:
        raise from_os_error(f"Cannot read {source}", error) from error
    write_bytes(target, content)


def _sweep(folder: Path) -> None:
    """Remove graphs that no tuning names any more, those of runs that were killed, too."""
    with contextlib.suppress(OSError, HnxError):  # they are in nobody's way
        manifest = read_json(folder / MANIFEST)
        stored = manifest.get(_KEY)
        entries = stored.values() if isinstance(stored, dict) else ()
        used = {str(entry.get("file")) for entry in entries if isinstance(entry, dict)} | files_of(manifest).keys()
        for path in sorted(folder.iterdir()):
            if is_tuned_file(path.name) and path.name not in used:
                path.unlink()
