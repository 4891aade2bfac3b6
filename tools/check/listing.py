"""Which files are there: the folders of a split held against each other."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from hybridnets.dataset.layout import IMAGE_SUFFIXES, SplitFolders
from tools.check.findings import Finding

__all__ = ["Listing", "list_split"]

# file names of BDD100K's own mask packages
_FOREIGN_MASK = re.compile(r"(.+)_(drivable_id|drivable_color|train_id|train_color)")


@dataclass
class Listing:
    """What is there.

    Attributes:
        names: of all samples, complete or not: what has a label, or everything where there are no labels at all.
        unlabelled: number of other names; nobody reads their files.
        findings: what is missing or in the way.
    """

    names: list[str] = field(default_factory=list)
    unlabelled: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass
class _Folder:
    path: Path
    role: str  # image, label or mask
    title: str
    suffixes: tuple[str, ...]
    files: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by stem
    others: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def list_split(folders: SplitFolders, classes: tuple[str, ...]) -> Listing:
    """Hold the folders of a split against each other; no file is opened.

    A folder that is missing or empty is one finding, not one for each of its files.
    """
    listing = Listing()
    wanted = [
        _Folder(folders.images, "image", "image", IMAGE_SUFFIXES),
        _Folder(folders.labels, "label", "label", (".json",)),
        *(_Folder(p, "mask", f"{name} mask", (".png",)) for name, p in zip(classes, folders.masks, strict=True)),
    ]
    usable = [folder for folder in wanted if _fill(folder, listing.findings)]
    labelled = next((folder.files for folder in usable if folder.role == "label"), None)
    for name in sorted({name for folder in usable for name in folder.files}):
        have = [folder.title for folder in usable if name in folder.files]
        if labelled is not None and name not in labelled:
            listing.findings += [_missing(folder, name, have) for folder in usable if folder.role == "label"]
            listing.unlabelled += 1
            continue
        listing.names.append(name)
        for folder in usable:
            found = folder.files.get(name)
            if found is None:
                listing.findings.append(_missing(folder, name, have))
            elif len(found) > 1:
                best = min(found, key=lambda file: folder.suffixes.index(Path(file).suffix))
                what = f"{', '.join(sorted(found))} have the same name; {best} is read"
                listing.findings.append(Finding("duplicate", str(folder.path / best), what))
    for folder in wanted:
        listing.findings += _strays(folder)
    return listing


def _fill(folder: _Folder, findings: list[Finding]) -> bool:
    """Read the folder; False when there is nothing to hold against the others."""
    try:
        with os.scandir(folder.path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122  70 000 of them
                foreign = _FOREIGN_MASK.fullmatch(stem) if folder.role == "mask" else None
                if foreign:
                    folder.others[foreign[1]].append(entry.name)
                # a link counts wherever it leads (asking a circular one is an error): reading it says what is wrong
                elif suffix in folder.suffixes and (entry.is_symlink() or entry.is_file()):
                    folder.files[stem].append(entry.name)
                else:
                    folder.others[stem].append(entry.name)
    except FileNotFoundError:
        findings.append(Finding("folder-missing", str(folder.path), f"the {folder.title}s are expected there"))
        return False
    except NotADirectoryError:
        findings.append(Finding("folder-missing", str(folder.path), "it is a file, a folder was expected"))
        return False
    except OSError as error:
        findings.append(Finding("folder-unreadable", str(folder.path), error.strerror or str(error)))
        return False
    if not folder.files:
        findings.append(Finding("folder-empty", str(folder.path), f"there is no {folder.suffixes[0]} file in it"))
        return False
    return True


def _strays(folder: _Folder) -> list[Finding]:
    """Files that nobody reads; those that stand where a mask is missing for their names are an error."""
    findings = []
    for name, found in sorted(folder.others.items()):
        for file in sorted(found):
            kind, what = "stray", f"only <name>{' or '.join(folder.suffixes)} files are read there"
            if name not in folder.files and _FOREIGN_MASK.match(file):
                kind, what = "mask-name", f"{name}.png is read; this is a name of BDD100K's own packages"
            findings.append(Finding(kind, str(folder.path / file), what))
    return findings


def _missing(folder: _Folder, name: str, have: list[str]) -> Finding:
    path = folder.path / f"{name}{folder.suffixes[0]}"
    what = f"no {folder.title}, but {' and '.join(have)}"
    if others := folder.others.get(name):
        what += f"; {', '.join(sorted(others))} is there, which nobody reads"
    return Finding(f"{folder.role}-missing", str(path), what)
