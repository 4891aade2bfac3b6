"""Which frames are done, one line each while they are written: what a killed conversion goes on from."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.files import atomic_path, written_under
from tools.convert.frame import FOLDERS, Outcome, output_files
from tools.convert.index import stem_of
from tools.convert.report import COUNTS
from tools.locks import FolderLock

__all__ = ["JOURNAL", "MANIFEST", "Journal"]

JOURNAL, MANIFEST = "conversion.jsonl", "conversion.json"


class Journal:
    """The file conversion.jsonl of a target; open for one process at a time.

    Each split has a line with its key (hash of options and sources) and one line a frame: {"split", "name", "counts"}.

    Attributes:
        done: split -> frames of an earlier run whose files are all there.
        totals: split -> sums of the counts of all its frames.
        frames: split -> number of its frames.

    Args:
        target: folder of the data set; made if absent.
        wanted: split -> its key and the names of its frames. Files of other frames of an earlier run are removed.
        overwrite: remove frames of other keys, instead of refusing.

    Raises:
        HnxError: the target holds a data set of another kind or key, is in use, or cannot be written.
    """

    def __init__(self, target: Path, wanted: Mapping[str, tuple[str, Collection[str]]], *, overwrite: bool) -> None:
        self._target, self._path = target, target / JOURNAL
        self.done: dict[str, set[str]] = {}
        self.totals: dict[str, Counter[str]] = {}
        self.frames: dict[str, int] = {}
        self._lock: FolderLock | None = None
        self._stream: IO[str] | None = None
        try:
            if not self._path.exists():
                self._refuse_strangers(wanted)
            for split in wanted:
                for folder in FOLDERS:
                    (target / folder / split).mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(target)
            if not self._lock.alone:
                raise HnxError(f"Another conversion writes to {target}", fix="wait for it, or name another folder")
            keys, lines = self._load()
            for split, (key, names) in wanted.items():
                self._settle(split, key, set(names), keys, lines, overwrite)
            self._write(keys, lines)
            (target / MANIFEST).unlink(missing_ok=True)  # it would speak of an earlier state
            self._stream = self._path.open("a", encoding="utf-8")
        except OSError as error:
            self.close()
            raise from_os_error(f"Cannot write to {target}", error) from error
        except BaseException:
            self.close()
            raise

    def _refuse_strangers(self, splits: Iterable[str]) -> None:
        for split in splits:
            for folder in FOLDERS:
                place = self._target / folder / split
                if place.is_dir() and any(place.iterdir()):
                    raise HnxError(
                        f"{place} already holds files that this command did not make",
                        why=f"{self._target} has no {JOURNAL}",
                        fix="name another folder, or move them away",
                        code=ExitCode.USAGE,
                    )

    def _load(self) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """Keys and frames (counts as JSON text) of earlier runs; a later line of a frame replaces an earlier one."""
        keys: dict[str, str] = {}
        lines: dict[str, dict[str, str]] = {}
        if not self._path.exists():
            return keys, lines
        with self._path.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                entry = _parse(line)
                split = entry.get("split")
                if not isinstance(split, str):
                    continue  # the half line of a process that was killed
                if isinstance(entry.get("key"), str):
                    keys[split] = entry["key"]
                    lines.setdefault(split, {})
                elif split in lines and _is_name(entry.get("name")) and isinstance(entry.get("counts"), dict):
                    lines[split][entry["name"]] = json.dumps(entry["counts"])
        return keys, lines

    def _settle(
        self,
        split: str,
        key: str,
        names: set[str],
        keys: dict[str, str],
        lines: dict[str, dict[str, str]],
        overwrite: bool,
    ) -> None:
        """Keep what this conversion would write again; remove the rest of what earlier ones wrote."""
        old = lines.setdefault(split, {})
        same = keys.get(split) == key
        if old and not same and not overwrite:
            raise HnxError(
                f"{self._target} holds a {split} split made with other options or from other files",
                why="two kinds of labels would be mixed",
                fix="name another folder, or replace it with --overwrite",
                code=ExitCode.USAGE,
            )
        keys[split] = key
        kept = {}
        for name, counts in old.items():
            files = output_files(self._target, split, name)
            if not same or name not in names:
                for path in files:
                    path.unlink(missing_ok=True)
            elif all(map(os.path.exists, files)):
                kept[name] = counts
        lines[split] = kept
        self.done[split] = set(kept)
        self.frames[split] = len(kept)
        self.totals[split] = total = Counter[str]()
        for counts in kept.values():
            _add(total, json.loads(counts))
        self._remove_leftovers(split)

    def _remove_leftovers(self, split: str) -> None:
        """Temporary files of a killed run: the lock says that their writers are gone."""
        for folder in (self._target, *(self._target / folder / split for folder in FOLDERS)):
            with os.scandir(folder) as entries:
                for path in [entry.path for entry in entries if written_under(entry.name)]:
                    with contextlib.suppress(OSError):
                        Path(path).unlink()

    def _write(self, keys: Mapping[str, str], lines: Mapping[str, Mapping[str, str]]) -> None:
        """The journal without half lines and frames that are gone."""
        with atomic_path(self._path) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for split, key in keys.items():
                stream.write(json.dumps({"split": split, "key": key}) + "\n")
                stream.writelines(_line(split, name, counts) for name, counts in lines[split].items())

    def add(self, split: str, outcomes: Iterable[Outcome]) -> None:
        """Note frames as written.

        Raises:
            HnxError: the disk is full.
        """
        if self._stream is None:
            raise ValueError("the journal is closed")
        try:
            for outcome in outcomes:
                self._stream.write(_line(split, outcome.name, json.dumps(dict(outcome.counts))))
                _add(self.totals[split], outcome.counts)
                self.frames[split] += 1
            self._stream.flush()
        except OSError as error:
            raise from_os_error(f"Cannot write {self._path}", error) from error

    def close(self) -> None:
        """Let go of the target."""
        with contextlib.suppress(OSError):
            if self._stream is not None:
                self._stream.close()
        if self._lock is not None:
            self._lock.close()
        self._stream = self._lock = None


def _parse(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _is_name(value: Any) -> bool:
    """A name that `stem_of` may have given: the files of others are removed by it."""
    return isinstance(value, str) and stem_of(f"{value}.png") == value


def _add(total: Counter[str], counts: Mapping[str, Any]) -> None:
    for key, count in counts.items():
        if key in COUNTS and isinstance(count, int):
            total[key] += count


def _line(split: str, name: str, counts: str) -> str:
    return f'{{"split": {json.dumps(split)}, "name": {json.dumps(name)}, "counts": {counts}}}\n'
