"""From frames and a teacher to the files of a data set."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.dataset import SplitFolders, split_folders
from hybridnets.dataset.labels import UNLABELLED
from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.files import write_bytes, write_json
from hybridnets.sources import Frame, Source, open_source
from tools.pseudo.config import PseudoConfig
from tools.pseudo.teacher import PseudoLabels, Teacher

__all__ = ["PseudoProgress", "PseudoReport", "label_frames"]

_JPEG_QUALITY = 95
_COPIED = (".jpg", ".jpeg", ".png")  # what a data set can hold as it is


@dataclass(frozen=True)
class PseudoProgress:
    """Frames done so far, and how many there are where that is known."""

    done: int
    total: int | None


@dataclass
class PseudoReport:
    """What was written.

    Attributes:
        folder, split: where.
        written, kept: frames labelled now, and frames that were there.
        shares: mean share of pixels of each class over the frames written.
        empty: frames in which a class was not found at all.
        problems: frames that could not be read.
        boxes: number of boxes written; None from a teacher without.
    """

    folder: Path
    split: str
    written: int = 0
    kept: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)
    problems: list[HnxError] = field(default_factory=list)
    boxes: int | None = None


def label_frames(
    config: PseudoConfig, teacher: Teacher, on_progress: Callable[[PseudoProgress], None] | None = None
) -> PseudoReport:
    """Label all frames and write them as samples of a data set; what is there already is kept.

    A picture file is copied byte by byte, a frame of a video becomes a JPEG of quality 95. The label file comes last:
    a sample that has one is complete. Its key `unlabelled` says that boxes are missing, unless the teacher has some.

    Raises:
        HnxError: the teacher lacks a class of the project, no frame can be read, or the folder cannot be written.
    """
    project = config.project
    missing = [name for name in project.seg_list if name not in teacher.classes]
    if missing:
        raise HnxError(
            f"The teacher knows nothing of {', '.join(missing)}",
            why=f"project {project.name} has the segmentation classes {', '.join(project.seg_list)}; the teacher has "
            f"{', '.join(teacher.classes)}",
            fix="name a project with its classes, or say what its outputs mean with --outputs",
            code=ExitCode.USAGE,
        )
    folders = _folders(config)
    report = PseudoReport(config.folder, config.split)
    sums = dict.fromkeys(project.seg_list, 0.0)
    report.empty = dict.fromkeys(project.seg_list, 0)
    taken: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(open_source(text)) for text in config.sources]
        total = _total(sources, config)
        done = 0
        for source in sources:
            for frame in _frames(source, config):
                name = _name(source, frame, taken)
                if (folders.labels / f"{name}.json").exists() and not config.overwrite:
                    report.kept += 1
                else:
                    labels = teacher.label(frame.image)
                    _write(folders, name, source, frame, labels, config)
                    report.written += 1
                    if labels.boxes is not None:
                        report.boxes = (report.boxes or 0) + len(labels.boxes)
                    for label in project.seg_list:
                        share = float(labels.masks[label].mean())
                        sums[label] += share
                        report.empty[label] += share == 0
                done += 1
                if on_progress is not None:
                    on_progress(PseudoProgress(done, total))
            report.problems += source.problems
    if not done:
        raise HnxError(
            "No frame could be labelled",
            why=report.problems[0].what if report.problems else "the sources hold none",
            fix="name pictures, a folder or a video",
        )
    report.shares = {label: value / max(1, report.written) for label, value in sums.items()}
    return report


def _folders(config: PseudoConfig) -> SplitFolders:
    try:
        if config.folder.exists() and not config.folder.is_dir():
            raise HnxError(f"Cannot write to {config.folder}", why="it is a file", fix="name a folder")
        config.folder.mkdir(parents=True, exist_ok=True)
        folders = split_folders(config.project, config.folder, config.split)
        for folder in (folders.images, folders.labels, *folders.masks):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(f"Cannot write to {config.folder}", error) from error
    return folders


def _frames(source: Source, config: PseudoConfig) -> Iterator[Frame]:
    step = config.every if source.is_video else 1
    return itertools.islice((frame for frame in source if frame.index % step == 0), config.limit)


def _total(sources: list[Source], config: PseudoConfig) -> int | None:
    total = 0
    for source in sources:
        if source.length is None:
            return None
        count = -(-source.length // config.every) if source.is_video else source.length
        total += count if config.limit is None else min(count, config.limit)
    return total


def _name(source: Source, frame: Frame, taken: dict[str, str]) -> str:
    """A file name that means the same frame in every run; equal names of two files get the second's folder in front.

    Raises:
        HnxError: two frames cannot be told apart.
    """
    path = Path(frame.name)
    name = f"{Path(source.name).stem}_{frame.index:06d}" if source.is_video else path.stem
    key = f"{frame.name} {frame.index if source.is_video else ''}"
    if taken.setdefault(name, key) != key:
        name = f"{path.resolve().parent.name}_{name}"
        if taken.setdefault(name, key) != key:
            raise HnxError(
                f"Two frames are called {name}",
                why="a data set tells its samples apart by their names",
                fix="give the files different names, or label them into different data sets",
            )
    return name


def _write(
    folders: SplitFolders, name: str, source: Source, frame: Frame, labels: PseudoLabels, config: PseudoConfig
) -> None:
    try:
        suffix, data = _picture(source, frame)
        for other in _COPIED:
            if other != suffix:  # an older sample of this name must not be found before the new one
                (folders.images / f"{name}{other}").unlink(missing_ok=True)
        write_bytes(folders.images / f"{name}{suffix}", data)
        for folder, label in zip(folders.masks, config.project.seg_list, strict=True):
            write_bytes(folder / f"{name}.png", _png(labels.masks[label]))
        write_json(folders.labels / f"{name}.json", _label(name, frame.image.shape[:2], labels, config))
    except OSError as error:
        raise from_os_error(f"Cannot write sample {name} to {config.folder}", error) from error


def _picture(source: Source, frame: Frame) -> tuple[str, bytes]:
    path = Path(frame.name)
    if not source.is_video and path.suffix.lower() in _COPIED:
        return path.suffix.lower(), path.read_bytes()
    ok, data = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not ok:
        raise HnxError(f"Cannot encode frame {frame.index} of {frame.name}")
    return ".jpg", data.tobytes()


def _png(mask: NDArray[np.uint8]) -> bytes:
    ok, data = cv2.imencode(".png", mask * 255)
    if not ok:
        raise HnxError("Cannot encode a mask")
    return data.tobytes()


def _label(name: str, size: tuple[int, int], labels: PseudoLabels, config: PseudoConfig) -> dict[str, Any]:
    """In the form of 2018, which upstream reads; boxes in pixels of the project's `org_img_size`."""
    objects = []
    height, width = config.project.dataset.org_img_size
    x, y = width / size[1], height / size[0]
    for index, (x1, y1, x2, y2, category) in enumerate(labels.boxes or ()):
        box = {"x1": x1 * x, "y1": y1 * y, "x2": x2 * x, "y2": y2 * y}
        objects.append({"id": index, "category": category, "box2d": box})
    content: dict[str, Any] = {"name": name, "frames": [{"timestamp": 0, "objects": objects}]}
    if labels.boxes is None:
        content[UNLABELLED] = ["boxes"]
    return content
