"""A check from beginning to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hybridnets.dataset.layout import SplitFolders, find_image, split_folders
from hybridnets.dataset.workers import default_workers, ordered_map
from hybridnets.project import Project
from tools.check.findings import Finding
from tools.check.listing import list_split
from tools.check.report import CheckReport, SplitReport
from tools.check.sample import Inspector

__all__ = ["check_dataset"]

# what BDD100K called things in 2018 and calls them since 2020
_RENAMED = {"person": "pedestrian", "bike": "bicycle", "motor": "motorcycle"}
_RENAMED |= {new: old for old, new in _RENAMED.items()}


def check_dataset(
    project: Project,
    data: Path | None = None,
    split: str | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> CheckReport:
    """Read every file of a data set and say what is missing or broken.

    Args:
        project: classes, mask folders and the size that labels refer to.
        data: the data set's folder; None for the project's own roots.
        split: one split; None for the project's train_set and test_set, of which one may be absent.
        workers: processes; 0 reads here, None takes one for each core.
        on_progress: called with split, number of samples done, and their total.

    Raises:
        HnxError: `data` is no folder, `split` is no name, or a worker process died.
    """
    places = _places(project, data, split)
    report = CheckReport(str(data) if data is not None else "the project's own folders", project.name)
    seen: set[str] = set()
    for place, absent in places:
        part = SplitReport(place.split, project.classes, project.seg_list)
        report.splits.append(part)
        if absent:
            part.findings.append(Finding("split-missing", str(place.labels.parent), f"there is no {place.split}"))
            continue
        listing = list_split(place, project.seg_list)
        part.findings += listing.findings
        part.samples, part.unlabelled = len(listing.names), listing.unlabelled
        for name in seen.intersection(listing.names):
            image = str(find_image(place.images, name))
            part.findings.append(Finding("split-overlap", image, f"{name} is in the other split, too"))
        seen.update(listing.names)
        # small results: more of them may wait for their turn than samples with their images
        count = default_workers() if workers is None else workers
        results = ordered_map(Inspector(place, project), listing.names, workers=count, prefetch=max(1, 8 * count))
        for done, facts in enumerate(results, start=1):
            part.add(facts)
            if on_progress is not None:
                on_progress(place.split, done, part.samples)
        _close(part, place)
    return report


def _places(project: Project, data: Path | None, split: str | None) -> list[tuple[SplitFolders, bool]]:
    """The splits to check, and whether nothing at all is there: no folder, or only empty ones."""
    if split is not None:
        return [(split_folders(project, data, split), False)]
    names = dict.fromkeys((project.dataset.train_set, project.dataset.test_set))
    places = [split_folders(project, data, name) for name in names]
    there = [any(map(_holds_something, (p.images, p.labels, *p.masks))) for p in places]
    if not any(there):
        return [(places[-1], False)]
    return [(place, not exists) for place, exists in zip(places, there, strict=True)]


def _holds_something(folder: Path) -> bool:
    """Not the empty folders that `hnx data synth --val 0` leaves; a folder one may not look into counts."""
    try:
        return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError:
        return True


def _close(part: SplitReport, place: SplitFolders) -> None:
    """What only the whole split can tell."""
    files = (place.images, place.labels, *place.masks)
    bad = {
        # a damaged x.png and a missing x.json are one broken sample
        Path(finding.file).stem
        for finding in part.findings
        if finding.severity == "error" and finding.kind != "mask-name" and Path(finding.file) not in files
    }
    missing_folder = any(Path(finding.file) in files for finding in part.findings if finding.severity == "error")
    part.broken = part.samples if missing_folder else len(bad)
    for index, name in enumerate(part.seg_classes):
        if part.masks[index] and part.masks_empty[index] == part.masks[index]:
            what = f"none of {part.masks[index]} masks has a pixel of {name}"
            part.findings.append(Finding("mask-empty", str(place.masks[index]), what))
    for name in part.classes if part.samples > part.boxes_unlabelled and place.labels.is_dir() else ():
        if not part.boxes[name]:
            other = _RENAMED.get(name, "")
            hint = f"; {part.ignored[other]} are called {other!r}" if part.ignored[other] else ""
            part.findings.append(Finding("class-empty", str(place.labels), f"there is no usable box of {name!r}{hint}"))
    if len(part.image_sizes) > 1:
        sizes = ", ".join(f"{count} of {w}x{h}" for (w, h), count in part.image_sizes.most_common(4))
        part.findings.append(Finding("image-sizes", str(place.images), sizes))
