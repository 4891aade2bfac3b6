"""One data set out of several, their files linked instead of copied where the file system can."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridnets.dataset import Split, open_split, split_folders
from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.files import atomic_path
from hybridnets.project import Project

__all__ = ["MergeReport", "Part", "merge", "parse_part"]

_MOST_TIMES = 1000


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
        samples: of each split, those of repeated parts counted each time.
        files: that lie in the new data set.
        copied: how many of them could not be linked.
        kept: samples that were there already.
    """

    samples: dict[str, int]
    files: int = 0
    copied: int = 0
    kept: int = 0


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
) -> MergeReport:
    """Link the samples of all parts into a data set in `folder`, which is new or made by an earlier call.

    Sample `a` of a part that counts three times becomes `a`, `a.x2` and `a.x3`, in the training split only: measuring
    one image twice says nothing new. Where two parts have a sample of the same name, the later one's folder is put in
    front of it. The label comes last, so a sample that has one is complete.

    Raises:
        HnxError: a part has no sample, names collide, or the folder cannot be written.
    """
    config = project.dataset
    plan: list[tuple[Split, str, str]] = []
    report = MergeReport({})
    for split_name in dict.fromkeys((config.train_set, config.test_set)):
        taken: dict[str, Path] = {}
        for part in parts:
            if part.folder.resolve() == folder.resolve():
                raise HnxError(
                    f"{folder} would be merged into itself", fix="name another folder", code=ExitCode.USAGE
                )  # fmt: skip
            labels = split_folders(project, part.folder, split_name).labels
            if not any(labels.glob("*.json")):
                continue  # a part may have frames to train on only, or to measure on only
            split = open_split(project, part.folder, split_name)
            times = part.times if split_name == config.train_set else 1
            for name in split.names:
                new = _free_name(name, part.folder, taken)
                plan += [(split, name, new if k == 1 else f"{new}.x{k}") for k in range(1, times + 1)]
        report.samples[split_name] = sum(split.split == split_name for split, _, _ in plan)
    used = {split.labels for split, _, _ in plan}
    for part in parts:
        if not used & {split_folders(project, part.folder, name).labels for name in report.samples}:
            raise HnxError(
                f"There is no sample to merge in {part.folder}",
                why=f"no label lies there for {' or '.join(report.samples)}",
                fix="name folders that `hnx data synth` or `pseudo` made",
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(f"Cannot write to {folder}", error) from error
    for done, (split, name, new) in enumerate(plan, 1):
        _place(project, split, name, new, folder, report)
        on_sample(done, len(plan))
    return report


def _free_name(name: str, folder: Path, taken: dict[str, Path]) -> str:
    for candidate in (name, f"{folder.resolve().name}_{name}"):
        if taken.setdefault(candidate, folder) is folder:
            return candidate
    raise HnxError(
        f"Two samples would be called {folder.resolve().name}_{name}",
        why="two of the folders have the same name and samples of the same name",
        fix="rename one of the folders",
    )


def _place(project: Project, split: Split, name: str, new: str, folder: Path, report: MergeReport) -> None:
    target = split_folders(project, folder, split.split)
    files = split.files(name)
    pairs = [
        (files.image, target.images / f"{new}{files.image.suffix}"),
        *((mask, into / f"{new}.png") for mask, into in zip(files.masks, target.masks, strict=True)),
        (files.label, target.labels / f"{new}.json"),
    ]
    try:
        if pairs[-1][1].exists():
            report.kept += 1
            report.files += len(pairs)
            return
        for source, destination in pairs:
            destination.parent.mkdir(parents=True, exist_ok=True)
            report.copied += not _link(source, destination)
            report.files += 1
    except OSError as error:
        raise from_os_error(f"Cannot put sample {name} into {folder}", error) from error


def _link(source: Path, destination: Path) -> bool:
    """Whether `destination` is now another name of `source`; else it is a copy."""
    destination.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), destination)
    except OSError:
        with atomic_path(destination) as temporary:
            shutil.copyfile(source, temporary)
        return False
    return True
