"""Whether a project's classes occur in labels and masks, and images can be read, asked before a run spends hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from hybridnets.dataset import SampleReader, Split
from hybridnets.dataset.labels import class_ids, read_label
from hybridnets.dataset.masks import read_mask
from hybridnets.errors import HnxError

__all__ = ["check_labels", "check_masks", "check_readable", "none_readable", "spread"]

_LOOKED_AT = 300  # files of a millisecond each
_DECODED = 50  # masks of a class, of some 5 ms each
_SHOWN = 8  # categories named in a message


def check_labels(split: Split, note: Callable[[str], None]) -> None:
    """Hold the class list of a split's project against a part of its label files, spread over all of them.

    Files that cannot be read are left to whoever trains on them. Files without any box say nothing.

    Args:
        note: told which classes have no box, where others have.

    Raises:
        HnxError: there are boxes, and not one is of a class of the project.
    """
    project = split.project
    names = spread(split.names, _LOOKED_AT)
    found: Counter[str] = Counter()
    for name in names:
        try:
            labels = read_label(split.files(name).label, project.traffic_light_color)
        except HnxError:
            continue
        found.update(box.category for box in labels.boxes)
    wanted = class_ids(project)
    kept: Counter[int] = Counter()
    for category, count in found.items():
        if category in wanted:
            kept[wanted[category]] += count
    if found and not kept:
        raise HnxError(
            f"The classes of the project {project.name} do not fit the labels in {split.labels}",
            why=f"not one of {sum(found.values())} boxes in {len(names)} files is of {_list(wanted)}; they are of "
            f"{_list(category for category, _ in found.most_common())}",
            fix="correct obj_list (and obj_combine) of the project file, or leave detection alone with --freeze-det",
        )
    absent = [name for index, name in enumerate(project.classes) if kept and not kept[index]]
    if absent:
        note(f"no box in {len(names)} label files is of {_list(absent)}: check obj_list of the project file")


def check_masks(split: Split, note: Callable[[str], None]) -> None:
    """Look at some masks of each segmentation class, spread over all of them.

    Files that cannot be read are left to whoever trains on them.

    Args:
        note: told of a class whose masks are all empty, or mark the whole image.
    """
    names = spread(split.names, _DECODED)
    for index, (kind, folder) in enumerate(zip(split.project.seg_list, split.masks, strict=True)):
        read = empty = full = 0
        for name in names:
            try:
                mask = read_mask(split.files(name).masks[index])
            except HnxError:
                continue
            read += 1
            empty += not mask.any()
            full += bool(mask.all())
        if read and empty == read:
            note(f"not one of {read} masks in {folder} marks a pixel of {kind}: check segroot of the project file")
        elif read and full == read:
            note(
                f"each of {read} masks in {folder} marks the whole image as {kind}: 0 is background and every other "
                "value is the class, so convert them, or check segroot of the project file"
            )


def check_readable(split: Split, target: tuple[int, int]) -> None:
    """Read samples until one can be read: a run would find out after its first epoch.

    Args:
        target: (height, width) of the network's input.

    Raises:
        HnxError: not one can be read.
    """
    reader = SampleReader(split, target)
    first: HnxError | None = None
    for name in split.names:
        try:
            reader.read(name)
            return
        except HnxError as error:
            first = first or error
    raise none_readable(split, first)


def none_readable(split: Split, first: HnxError | None = None) -> HnxError:
    """The user's error for a split of which nothing can be read.

    Args:
        first: why the first of its samples cannot.
    """
    return HnxError(
        f"None of the {len(split)} images of {split.split} can be read",
        why="" if first is None else f"{first.what}: {first.why}",
        fix="`hnx data check` lists every broken file",
    )


def spread(names: Sequence[str], count: int) -> Sequence[str]:
    """At most `count` of the names, at equal distances from the first one on."""
    if len(names) <= count:
        return names
    return [names[index * len(names) // count] for index in range(count)]


def _list(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
