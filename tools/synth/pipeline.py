"""Generate a data set, or go on where an earlier run stopped."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.files import read_json, remove_leftovers, write_json, written_under
from hybridnets.version import __version__
from tools.locks import FolderLock
from tools.synth.config import FOLDERS, MANIFEST, SPLITS, SynthConfig, folder_identity
from tools.synth.writing import Job, write_all

__all__ = ["SynthProgress", "SynthReport", "generate"]


@dataclass(frozen=True)
class SynthProgress:
    """Scenes that are complete (of them `kept` from an earlier run), of `total`."""

    done: int
    total: int
    kept: int


@dataclass(frozen=True)
class SynthReport:
    """What lies in the folder now.

    Attributes:
        written, kept: scenes of this run, and of earlier ones.
        objects: labelled objects of both splits by category.
    """

    folder: Path
    written: int
    kept: int
    objects: dict[str, int]


def generate(config: SynthConfig, on_progress: Callable[[SynthProgress], None] | None = None) -> SynthReport:
    """Write the data set of `config`; scenes that are complete already are kept, unless it says to overwrite.

    Every file is whole or absent, also after a kill; the manifest says `complete` only when all are there.

    Raises:
        HnxError: the folder holds something else, cannot be written, or a worker died.
    """
    lock = _prepare(config)
    try:
        return _generate(config, on_progress)
    finally:
        lock.close()


def _generate(config: SynthConfig, on_progress: Callable[[SynthProgress], None] | None) -> SynthReport:
    jobs = [Job(split, index) for split, count in config.counts.items() for index in range(count)]
    present = _present(config)
    missing = [job for job in jobs if job.name not in present[job.split]]
    kept = len(jobs) - len(missing)
    done = kept
    _tell(on_progress, done, len(jobs), kept)
    with contextlib.closing(write_all(config, missing)) as written:
        for _ in written:
            done += 1
            _tell(on_progress, done, len(jobs), kept)
    objects = _count_objects(config)
    _write_manifest(config, complete=True, objects=objects)
    total: Counter[str] = Counter()
    for counted in objects.values():
        total.update(counted)
    return SynthReport(config.folder, len(missing), kept, dict(sorted(total.items())))


def _tell(on_progress: Callable[[SynthProgress], None] | None, done: int, total: int, kept: int) -> None:
    if on_progress is not None:
        on_progress(SynthProgress(done, total, kept))


def _prepare(config: SynthConfig) -> FolderLock:
    """Refuse folders with other contents; make the folders and a manifest. Several runs may write the same scenes."""
    folder = config.folder
    try:
        if folder.exists() and not folder.is_dir():
            raise HnxError(f"Cannot write to {folder}", why="it is a file, not a folder", fix="name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
    except OSError as error:
        raise from_os_error(f"Cannot write to {folder}", error) from error
    try:
        alone = lock.alone
        if not alone:
            lock.share()
        _settle(config, alone)
        lock.share()
        # letting others in is not one step: one with --overwrite may have come first
        if folder_identity(read_json(folder / MANIFEST)) != config.identity:
            raise _in_use(folder)
    except BaseException:
        lock.close()
        raise
    return lock


def _in_use(folder: Path) -> HnxError:
    return HnxError(
        f"Another run writes to {folder}",
        why="it makes other scenes",
        fix="wait for it, or choose another folder",
    )


def _settle(config: SynthConfig, alone: bool) -> None:
    folder = config.folder
    manifest = folder / MANIFEST
    identity = None
    if manifest.exists():
        content = read_json(manifest)
        identity = folder_identity(content)
        if identity is not None:
            _check_manifest(config, identity, content, alone)
    if identity is None:
        found = [name for name in (MANIFEST, *FOLDERS) if _holds_something(folder / name)]
        if found:
            raise HnxError(
                f"{folder} holds other data",
                why=f"{', '.join(found)} there was not written by `hnx data synth`; nothing was touched",
                fix="choose another folder, or move the data away",
                code=ExitCode.USAGE,
            )
    try:
        for name in FOLDERS:
            for split in SPLITS:
                (folder / name / split).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(f"Cannot make the folders of {folder}", error) from error
    _write_manifest(config, complete=False)


def _check_manifest(config: SynthConfig, identity: dict[str, Any], content: dict[str, Any], alone: bool) -> None:
    counts = content.get("scenes")
    before = counts if isinstance(counts, dict) else {}
    smaller = [split for split in SPLITS if config.counts[split] < _number(before.get(split))]
    changed = [key for key, value in config.identity.items() if identity.get(key) != value]
    if not changed and not smaller and not config.overwrite:
        return
    if config.overwrite:
        if not alone:
            raise _in_use(config.folder)
        _remove(config.folder)
        return
    wanted = {**config.identity, **config.counts}
    lying = {**identity, **{split: _number(before.get(split)) for split in SPLITS}}
    words = ", ".join(f"{key} {lying[key]} instead of {wanted[key]}" for key in (*changed, *smaller))
    raise HnxError(
        f"{config.folder} holds another generated data set",
        why=f"it has {words}",
        fix="choose another folder, give the same options to go on with it, or replace it with --overwrite",
        code=ExitCode.USAGE,
    )


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _holds_something(path: Path) -> bool:
    if path.is_dir():
        return any(entry.is_file() for entry in path.rglob("*"))
    return path.exists()


def _remove(folder: Path) -> None:
    """Remove a generated data set, its manifest last: a run that is killed here finds it again."""
    try:
        for name in FOLDERS:
            if (folder / name).exists():
                shutil.rmtree(folder / name)
        (folder / MANIFEST).unlink()
    except OSError as error:
        raise from_os_error(f"Cannot remove the old data set in {folder}", error) from error


def _present(config: SynthConfig) -> dict[str, set[str]]:
    """Names of complete scenes of each split."""
    found: dict[str, set[str]] = {}
    for split in SPLITS:
        sets = []
        for name, suffix in FOLDERS.items():
            folder = config.folder / name / split
            names = set()
            try:
                for entry in folder.iterdir():
                    if entry.suffix == suffix and not entry.name.startswith(".") and _is_whole(entry):
                        names.add(entry.stem)
                    elif target := written_under(entry.name):
                        remove_leftovers(folder / target)
            except OSError as error:
                raise from_os_error(f"Cannot list {folder}", error) from error
            sets.append(names)
        found[split] = set.intersection(*sets)
    return found


def _is_whole(path: Path) -> bool:
    """Our own files are whole or absent; an empty one is what a full disk or a lost connection left of a copy."""
    return path.is_file() and path.stat().st_size > 0


def _count_objects(config: SynthConfig) -> dict[str, dict[str, int]]:
    counted: dict[str, dict[str, int]] = {}
    for split, count in config.counts.items():
        total: Counter[str] = Counter()
        for index in range(count):
            path = config.path("det_annot", split, Job(split, index).name)
            fix = "delete it and run the same command again"
            label = read_json(path, fix=fix)
            try:
                total.update(str(found["category"]) for found in label["frames"][0]["objects"])
            except (KeyError, IndexError, TypeError) as error:
                raise HnxError(
                    f"{path} is not as it was written",
                    why="it does not hold frames[0].objects with categories",
                    fix=fix,
                ) from error
        counted[split] = dict(sorted(total.items()))
    return counted


def _write_manifest(config: SynthConfig, *, complete: bool, objects: dict[str, dict[str, int]] | None = None) -> None:
    content = {
        **config.identity,
        "scenes": config.counts,
        "complete": complete,
        "objects": objects or {},
        "lane_labels": "one line of lane_width_px along each painted line and kerb, hidden parts left out",
        "road_labels": "visible surface of all lanes of our direction, 255",
        "licence": "made by a program from random numbers; no rights are claimed (CC0-1.0)",
        "made_with": {"hnx": __version__, "opencv": cv2.__version__, "numpy": np.__version__},
    }
    write_json(config.folder / MANIFEST, content)
