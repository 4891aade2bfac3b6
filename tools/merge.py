"""One data set out of several, their files linked instead of copied where the file system can."""

from __future__ import annotations

import filecmp
import itertools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridnets.dataset import Split, open_split, split_folders
from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.files import atomic_path, read_json, remove_leftovers, write_json, written_under
from hybridnets.project import Project
from tools.locks import FolderLock

__all__ = ["MANIFEST", "MergeReport", "Part", "merge", "parse_part"]

MANIFEST = "merge.json"
_KIND, _VERSION = "hnx data merge", 1
_MOST_TIMES = 1000
_MOST_BYTES = 1 << 30  # some 100 bytes a sample


@dataclass(frozen=True)
class Part:
    """A data set, and how often each of its training samples counts.

    Raises:
        HnxError: not 1 to 1000 times (exit code 2).
    """

    folder: Path
    times: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.times <= _MOST_TIMES:
            raise HnxError(
                f"{self.folder} cannot be taken {self.times} times", why=f"1 to {_MOST_TIMES} is possible", fix="",
                code=ExitCode.USAGE,
            )  # fmt: skip


@dataclass
class MergeReport:
    """What was made.

    Attributes:
        samples: that lie in each split now, those of repeated parts counted each time.
        files: that lie in the new data set.
        copied: how many of them were copied now, because they could not be linked.
        kept: samples that were there already.
        removed: files of an earlier merge that are no part of this one.
    """

    samples: dict[str, int]
    files: int = 0
    copied: int = 0
    kept: int = 0
    removed: int = 0


@dataclass(frozen=True)
class _Sample:
    """One sample of the new data set: where it comes from, and its name there."""

    split: Split
    name: str
    new: str


@dataclass(frozen=True)
class _Manifest:
    """What an earlier call wrote down: its parts, and the names of its samples by split."""

    parts: list[dict[str, Any]]
    names: Mapping[str, frozenset[str]]


def parse_part(text: str) -> Part:
    """`DIR`, or `DIR*8` to take its training samples eight times."""
    folder, star, times = text.rpartition("*")
    if star and times.isdigit() and not Path(text).exists():
        return Part(Path(folder), int(times))
    return Part(Path(text))


def merge(
    project: Project,
    parts: Sequence[Part],
    folder: Path,
    on_sample: Callable[[int, int], None] = lambda done, total: None,
    *,
    overwrite: bool = False,
) -> MergeReport:
    """Link the samples of all parts into a data set in `folder`, which is new or made by an earlier call.

    Sample `a` of a part that counts three times becomes `a`, `a.x2` and `a.x3`, in the training split only: measuring
    one image twice says nothing new. A folder that is named twice is one part that counts as often as both. Where two
    parts have a sample of the same name, the later one's folder is put in front of it. The label comes last, so a
    sample that has one is complete.

    The manifest says which parts and samples are meant, so the same call goes on where it was stopped, and follows
    parts that changed. Other parts may add samples.

    Args:
        overwrite: remove samples of an earlier call with other parts, instead of refusing.

    Raises:
        HnxError: a part has no sample, names collide, or the folder cannot be written; it holds samples of other parts
            or files that no merge made (exit code 2).
    """
    parts = _folded(parts, folder)
    plan = _plan(project, parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
    except OSError as error:
        raise from_os_error(f"Cannot write to {folder}", error) from error
    try:
        if not lock.alone:
            raise HnxError(f"Another run writes to {folder}", fix="wait for it, or name another folder")
        return _merge(project, parts, plan, folder, on_sample, overwrite)
    finally:
        lock.close()


def _folded(parts: Sequence[Part], folder: Path) -> list[Part]:
    """Each folder once, however often and by whatever name it was given."""
    found: dict[Path, Part] = {}
    for part in parts:
        place = part.folder.resolve()
        if place == folder.resolve():
            raise HnxError(f"{folder} would be merged into itself", fix="name another folder", code=ExitCode.USAGE)
        before = found.get(place)
        found[place] = part if before is None else Part(before.folder, before.times + part.times)
    return list(found.values())


def _splits(project: Project) -> tuple[str, ...]:
    return tuple(dict.fromkeys((project.dataset.train_set, project.dataset.test_set)))


def _plan(project: Project, parts: Sequence[Part]) -> list[_Sample]:
    plan: list[_Sample] = []
    used: set[Path] = set()
    for split_name in _splits(project):
        taken: set[str] = set()
        first: list[tuple[_Sample, int]] = []
        for part in parts:
            labels = split_folders(project, part.folder, split_name).labels
            if not any(labels.glob("*.json")):
                continue  # a part may have frames to train on only, or to measure on only
            split = open_split(project, part.folder, split_name)
            used.add(part.folder)
            times = part.times if split_name == project.dataset.train_set else 1
            names = [_free_name(name, part.folder, taken) for name in split.names]
            taken.update(names)
            first += [
                (_Sample(split, name, new), times) for name, new in zip(split.names, names, strict=True)
            ]  # fmt: skip
        plan += [sample for sample, _ in first]
        for sample, times in first:  # after all others: a part that is a merge itself has samples called a.x2
            plan += [_Sample(sample.split, sample.name, new) for new in _more_names(sample.new, times, taken)]
    for part in parts:
        if part.folder not in used:
            raise HnxError(
                f"There is no sample to merge in {part.folder}",
                why=f"no label lies there for {' or '.join(_splits(project))}",
                fix="name folders that `hnx data synth` or `pseudo` made",
            )
    return plan


def _free_name(name: str, folder: Path, taken: set[str]) -> str:
    for candidate in (name, f"{folder.resolve().name}_{name}"):
        if candidate not in taken:
            return candidate
    raise HnxError(
        f"Two samples would be called {folder.resolve().name}_{name}",
        why="two of the folders have the same name and samples of the same name",
        fix="rename one of the folders",
    )


def _more_names(name: str, times: int, taken: set[str]) -> list[str]:
    """Names of the second and further copies of a sample; they are taken from now on."""
    free = (new for k in itertools.count(2) if (new := f"{name}.x{k}") not in taken)
    found = list(itertools.islice(free, times - 1))
    taken.update(found)
    return found


def _merge(
    project: Project,
    parts: Sequence[Part],
    plan: Sequence[_Sample],
    folder: Path,
    on_sample: Callable[[int, int], None],
    overwrite: bool,
) -> MergeReport:
    files = [_pairs(project, sample, folder) for sample in plan]
    names = {split: frozenset(s.new for s in plan if s.split.split == split) for split in _splits(project)}
    before = _read_manifest(folder)
    told = [{"folder": str(part.folder.resolve()), "times": part.times} for part in parts]
    try:
        good, stale = _lying(project, folder, {new: old for pairs in files for old, new in pairs})
        _check_stale(folder, stale, before, told, overwrite)
        # before anything changes: a run that is killed finds the files of both plans to be its own
        mine = names if before is None else {key: names[key] | before.names.get(key, frozenset()) for key in names}
        _write_manifest(folder, told, mine)
        report = MergeReport({}, removed=len(stale))
        for _, path in stale:
            path.unlink()
    except OSError as error:
        raise from_os_error(f"Cannot write to {folder}", error) from error
    for done, (sample, pairs) in enumerate(zip(plan, files, strict=True), 1):
        _place(sample.name, pairs, good, folder, report)
        on_sample(done, len(files))
    _write_manifest(folder, told, names)
    report.samples = {split: len(_files_in(split_folders(project, folder, split).labels)) for split in names}
    return report


def _pairs(project: Project, sample: _Sample, folder: Path) -> list[tuple[Path, Path]]:
    """Source and destination of each file of a sample, its label last."""
    target = split_folders(project, folder, sample.split.split)
    files = sample.split.files(sample.name)
    return [
        (files.image, target.images / f"{sample.new}{files.image.suffix}"),
        *((mask, into / f"{sample.new}.png") for mask, into in zip(files.masks, target.masks, strict=True)),
        (files.label, target.labels / f"{sample.new}.json"),
    ]


def _lying(project: Project, folder: Path, sources: Mapping[Path, Path]) -> tuple[set[Path], list[tuple[str, Path]]]:
    """Files in the folder that are as planned, and those that are not with their split."""
    good: set[Path] = set()
    stale: list[tuple[str, Path]] = []
    for split in _splits(project):
        target = split_folders(project, folder, split)
        for place in (target.labels, target.images, *target.masks):  # a label goes before what it vouches for
            for path in _files_in(place):
                source = sources.get(path)
                if source is not None and _same(source, path):
                    good.add(path)
                else:
                    stale.append((split, path))
    return good, stale


def _files_in(place: Path) -> list[Path]:
    """Files of one folder, without hidden ones; what killed writers left is removed."""
    found = []
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if target := written_under(path.name):
            remove_leftovers(place / target)
        elif not path.name.startswith("."):
            found.append(path)
    return found


def _same(source: Path, path: Path) -> bool:
    """Whether a file is its source by another name, or a copy of it."""
    return path.is_file() and source.is_file() and (path.samefile(source) or filecmp.cmp(source, path))


def _check_stale(
    folder: Path,
    stale: Sequence[tuple[str, Path]],
    before: _Manifest | None,
    parts: list[dict[str, Any]],
    overwrite: bool,
) -> None:
    """Refuse what lies in the folder and is not as planned, unless an earlier call made it and it may go."""
    for split, path in stale:
        if before is None or path.stem not in before.names.get(split, ()) or not path.is_file():
            raise HnxError(
                f"{folder} holds other data",
                why=f"{path} was not written by `hnx data merge` of these parts; nothing was touched",
                fix="name another folder, or move the data away",
                code=ExitCode.USAGE,
            )
    if before is None or not stale or overwrite or before.parts == parts:
        return
    raise HnxError(
        f"{folder} holds another merged data set",
        why=f"it was made of {_words(before.parts)}; {len(stale)} of its files are no part of {_words(parts)}, such as "
        f"{stale[0][1].name}",
        fix="name another folder, give the same parts to go on with it, or replace it with --overwrite",
        code=ExitCode.USAGE,
    )


def _words(parts: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(f"{part['folder']}" + (f"*{part['times']}" if part["times"] != 1 else "") for part in parts)


def _read_manifest(folder: Path) -> _Manifest | None:
    path = folder / MANIFEST
    if not path.exists():
        return None
    fix = "name another folder, or remove this one"
    value = read_json(path, limit=_MOST_BYTES, fix=fix)
    try:
        if value["kind"] != _KIND or value["version"] != _VERSION:
            raise ValueError("it is of another kind or version")
        parts = [{"folder": str(part["folder"]), "times": int(part["times"])} for part in value["parts"]]
        return _Manifest(parts, {split: frozenset(map(str, names)) for split, names in value["samples"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HnxError(
            f"{path} does not say what `hnx data merge` made",
            why=f"{type(error).__name__}: {error}",
            fix=fix,
        ) from error


def _write_manifest(folder: Path, parts: list[dict[str, Any]], names: Mapping[str, frozenset[str]]) -> None:
    samples = {split: sorted(found) for split, found in names.items()}
    write_json(folder / MANIFEST, {"kind": _KIND, "version": _VERSION, "parts": parts, "samples": samples})


def _place(name: str, pairs: Sequence[tuple[Path, Path]], good: set[Path], folder: Path, report: MergeReport) -> None:
    report.files += len(pairs)
    if all(destination in good for _, destination in pairs):
        report.kept += 1
        return
    try:
        pairs[-1][1].unlink(missing_ok=True)
        for source, destination in pairs:
            destination.parent.mkdir(parents=True, exist_ok=True)
            report.copied += not _link(source, destination)
    except OSError as error:
        raise from_os_error(f"Cannot put sample {name} into {folder}", error) from error


def _link(source: Path, destination: Path) -> bool:
    """Whether `destination` is now another name of `source`; else it is a copy."""
    destination.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), destination)
    except OSError:
        with atomic_path(destination) as temporary:
            # with its time: a copy of the same size and time is not read again to see whether it is one
            shutil.copy2(source, temporary)
        return False
    return True
