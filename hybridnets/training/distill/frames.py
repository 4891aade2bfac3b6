"""Frames without labels, in the form in which training reads samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.dataset import Sample, SampleReader, Split
from hybridnets.dataset.layout import IMAGE_SUFFIXES as DATASET_SUFFIXES
from hybridnets.dataset.layout import SampleFiles
from hybridnets.errors import HnxError, from_os_error
from hybridnets.files import atomic_path, sha256_file
from hybridnets.preprocess import Letterbox
from hybridnets.project import Project
from hybridnets.sources import open_source, read_image
from hybridnets.training.distill.config import DistillConfig

__all__ = ["UNPACKED", "FrameLabels", "FrameReader", "FrameSplit", "find_frames", "frame_splits"]

UNPACKED = "frames"  # folder of a run in which frames of videos lie
_IMAGES = "imgs"  # of a data set in upstream's layout
# a picture of a video is stored so that its chroma is kept: 95 is what datasets use, and 0.3 MB at 1280x720
_QUALITY = 95
_TAIL = 0.1  # share of a video, its end, from which held-out frames are taken


class FrameLabels(NamedTuple):
    """What a teacher says about a frame.

    Attributes:
        boxes: float64 (n, 5): x1, y1, x2, y2, class in input pixels.
        target: uint8 segmentation target at input size, as `hybridnets.dataset.Sample` has it.
    """

    boxes: NDArray[np.float64]
    target: NDArray[np.uint8]


@dataclass(frozen=True)
class FrameSplit(Split):
    """Frames by name, wherever they lie.

    Attributes:
        paths: name to picture.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, project: Project, split: str, paths: Mapping[str, Path]) -> FrameSplit:
        """A split of these pictures, in the order of their names."""
        return cls(project, split, Path(), Path(), (), tuple(sorted(paths)), dict(paths))

    def first(self, count: int) -> FrameSplit:
        """The first so many of them."""
        return replace(self, names=self.names[:count])

    def files(self, name: str) -> SampleFiles:
        """The picture; there is no label and no mask."""
        return SampleFiles(self.paths[name], Path(), ())

    def digest(self) -> str:
        """SHA-256 of the names and of the files' sizes: what a resumed run is held against."""
        digest = hashlib.sha256()
        for name in self.names:
            path = self.paths[name]
            digest.update(f"{name}\0{path.stat().st_size if path.is_file() else -1}\n".encode())
        return digest.hexdigest()


class FrameReader(SampleReader):
    """Reads frames as samples without labels, or with those that a teacher gave.

    Args:
        split: the frames.
        target: (height, width) of the network's input, multiples of 128.
        labels: by name; without, boxes count as not labelled and every pixel as background.
    """

    def __init__(
        self, split: FrameSplit, target: tuple[int, int], labels: Mapping[str, FrameLabels] | None = None
    ) -> None:
        super().__init__(split, target)
        self.labels = labels

    def read(self, name: str) -> Sample:
        """See `SampleReader.read`."""
        project = self.split.project
        frame = read_image(self.split.files(name).image)
        place = Letterbox.fit((frame.shape[0], frame.shape[1]), self.target)
        labels = None if self.labels is None else self.labels[name]
        if labels is None:
            planes = {"multiclass": (), "binary": (1,), "multilabel": (1 + len(project.seg_list),)}[project.seg_mode]
            labels = FrameLabels(np.zeros((0, 5)), np.zeros((*planes, *self.target), np.uint8))
        categories = tuple(project.classes[int(row[4])] for row in labels.boxes)
        return Sample(name, frame, place, labels.boxes, categories, labels.target, has_boxes=self.labels is not None)


def frame_splits(config: DistillConfig, project: Project, folder: Path) -> tuple[FrameSplit, FrameSplit]:
    """Frames to learn from, and frames that agreement is measured on.

    Of a video the end is held out, since neighbouring frames are nearly the same; of pictures every k-th.

    Args:
        folder: of the run; frames of videos are unpacked into it.

    Raises:
        HnxError: a source cannot be read, or there are fewer than two frames.
    """
    found = [find_frames(source, folder, config.every) for source in config.sources]
    if config.held_out_sources:
        aside = [find_frames(source, folder, config.every) for source in config.held_out_sources]
        held_out = _spread([path for part in aside for path in part.paths], config.held_out)
    else:
        count = sum(len(part.paths) for part in found)
        wanted = min(config.held_out, count // 5)
        held_out = [path for part in found for path in part.held_out(-(-wanted * len(part.paths) // max(1, count)))]
        held_out = _spread(held_out, wanted)
    apart = {path.resolve() for path in held_out}
    learnt = [path for part in found for path in part.paths if path.resolve() not in apart]
    if not learnt or not held_out:
        raise HnxError(
            f"{len(learnt)} frame(s) to learn from and {len(held_out)} to measure on",
            why="both are needed, and no frame may be both",
            fix="name more frames, or others for measuring: --held-out-frames FOLDER",
        )
    return FrameSplit.of(project, "learnt", _named(learnt)), FrameSplit.of(project, "held out", _named(held_out))


class _Frames(NamedTuple):
    """The frames of one source."""

    paths: Sequence[Path]
    is_video: bool

    def held_out(self, count: int) -> list[Path]:
        if not self.is_video:
            return _spread(self.paths, count)
        return _spread(self.paths[-max(count, int(len(self.paths) * _TAIL)) :], count)


def find_frames(source: str, folder: Path, every: int) -> _Frames:
    """The pictures of a source.

    Args:
        folder: frames of a video are written there, once.

    Raises:
        HnxError: no such source, a live one, or an unreadable video.
    """
    images = Path(source) / _IMAGES
    if images.is_dir():
        try:
            inside = sorted(path for path in images.rglob("*") if path.suffix.lower() in DATASET_SUFFIXES)
        except OSError as error:
            raise from_os_error(f"Cannot read folder {images}", error) from error
        if inside:
            return _Frames(inside, False)
    with open_source(source) as opened:
        if opened.live:
            raise HnxError(
                f"Cannot learn from {source}",
                why="frames are read once an epoch, and what comes from a camera or a stream is gone after once",
                fix="record a few minutes, and name the file",
            )
        if not opened.is_video:
            return _Frames(list(opened.files), False)
        digest = sha256_file(opened.files[0]) if opened.files else ""
        into = folder / UNPACKED / f"{opened.name}-{digest[:12]}-{every}"
        done = into / "done"
        if not done.is_file():
            into.mkdir(parents=True, exist_ok=True)
            for frame in opened:
                if frame.index % every == 0:
                    _write(into / f"{frame.index:07d}.jpg", frame.image)
            done.touch()
    paths = sorted(into.glob("*.jpg"))
    if not paths:
        raise HnxError(f"No frame of {source} can be read", fix="play it to check it")
    return _Frames(paths, True)


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    if path.is_file():
        return
    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not good:
        raise HnxError(f"Cannot encode {path.name}")
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data.tobytes())
    except OSError as error:
        raise from_os_error(f"Cannot write {path}", error) from error


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` of the paths at equal distances, all where there are fewer."""
    count = min(count, len(paths))
    return [paths[(2 * index + 1) * len(paths) // (2 * count)] for index in range(count)]


def _named(paths: Iterable[Path]) -> dict[str, Path]:
    """Names that differ, whatever folders the pictures lie in: the stem, and where that is taken a number behind it."""
    found: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        name, number = path.stem, 1
        while name in found:
            number += 1
            name = f"{path.stem}~{number}"
        found[name] = path
    return found
