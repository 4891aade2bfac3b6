"""Whether the classes of a project occur in the labels, asked before a run spends hours on nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from hybridnets.dataset import Split
from hybridnets.dataset.labels import class_ids, read_label
from hybridnets.errors import HnxError

__all__ = ["check_labels"]

_LOOKED_AT = 300  # files of a millisecond each
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
    stride = max(1, len(split.names) // _LOOKED_AT)
    names = split.names[::stride][:_LOOKED_AT]
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


def _list(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
