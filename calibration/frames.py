"""The frames that ranges are measured on: chosen by a seed, spread over times of day and brightness.

A calibration set that holds bright roads only leaves night scenes outside of every range (clipped headlights, lost
shadows), so each stratum gets an equal share, however rare it is in the source.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.files import read_json, sha256_file
from hybridnets.sources import IMAGE_SUFFIXES, open_source, read_image

if TYPE_CHECKING:
    from hybridnets.preprocess import Preprocessor

__all__ = ["FEW_FRAMES", "FrameRef", "FrameSet", "select_frames"]

# below this one unusual frame decides many ranges; NVIDIA and ultralytics advise 300 to 512 frames
FEW_FRAMES = 32
# frames looked at for each frame wanted: enough to fill rare strata, few enough that 500 frames cost 15 s
_POOL_FACTOR = 3
# mean of all pixels, 0 to 255, below which a frame has this name; BDD100K's night frames lie at 20 to 50, its days at
# 80 to 140
_LEVELS = ((40.0, "dark"), (80.0, "dim"), (120.0, "medium"), (256.0, "bright"))
_MOST_FRAMES = 100_000
# folders of a data set's images -> folder of its labels, and the split to calibrate on when none is named
_IMAGES, _LABELS = "imgs", "det_annot"


@dataclass(frozen=True)
class FrameRef:
    """Where one frame is.

    Attributes:
        path: picture or video file.
        index: number of the frame in a video, None for a picture.
        stratum: time of day where it is labelled, and level of brightness, such as `night/dark`.
    """

    path: Path
    index: int | None = None
    stratum: str = ""

    def __str__(self) -> str:
        return self.path.name if self.index is None else f"{self.path.name}#{self.index}"


@dataclass(frozen=True)
class FrameSet:
    """Chosen frames, read anew each time they are gone through: memory holds one frame, whatever their number.

    Attributes:
        source: what the user named.
        frames: in the order in which they are read.
        held_out: frames of the same source that no range is measured on; empty where there are too few.
        left_out: what could not be read, each with file and reason.
        notes: what the user should know about the choice.
    """

    source: str
    frames: tuple[FrameRef, ...]
    held_out: tuple[FrameRef, ...] = ()
    left_out: tuple[HnxError, ...] = ()
    notes: tuple[str, ...] = ()
    _hashes: dict[Path, str] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.frames)

    def images(self, *, held_out: bool = False) -> Iterator[NDArray[np.uint8]]:
        """The frames as uint8 (h, w, 3) BGR.

        Raises:
            HnxError: a file changed since it was chosen, and cannot be read any more.
        """
        yield from _read(self.held_out if held_out else self.frames)

    def tensors(self, preprocess: Preprocessor, *, held_out: bool = False) -> Iterator[NDArray[np.float32]]:
        """The network's inputs, float32 (1, 3, H, W); each may be overwritten by the next."""
        for image in self.images(held_out=held_out):
            yield preprocess(image)[0]

    def digest(self) -> str:
        """Hex SHA-256 over the contents of all files and the numbers of the frames, in order; no names, no times."""
        digest = hashlib.sha256()
        for frame in self.frames:
            if frame.path not in self._hashes:
                self._hashes[frame.path] = sha256_file(frame.path)
            digest.update(f"{self._hashes[frame.path]} {frame.index}\n".encode())
        return digest.hexdigest()

    def strata(self) -> dict[str, int]:
        """Number of frames in each stratum."""
        counts: dict[str, int] = {}
        for frame in sorted(self.frames, key=lambda frame: frame.stratum):
            counts[frame.stratum] = counts.get(frame.stratum, 0) + 1
        return counts


def select_frames(
    source: str | Path, count: int = 300, *, seed: int = 0, held_out: int = 8, split: str | None = None
) -> FrameSet:
    """Choose frames of a folder, a pattern, a data set in upstream's layout, or a video.

    Args:
        count: frames wanted; fewer where the source has fewer.
        seed: of the choice; the same source and seed give the same frames in the same order.
        held_out: frames set aside for checking; a source with too few keeps an eighth, or none.
        split: of a data set; None is train, else val, else the only one.

    Raises:
        HnxError: no such source, a camera or a stream, or no frame of it can be read; the count is out of range (exit
            code 2).
    """
    if not 1 <= count <= _MOST_FRAMES:
        raise HnxError(
            f"{count} calibration frames",
            why=f"between 1 and {_MOST_FRAMES} can be asked for",
            fix="300 are usual",
            code=ExitCode.USAGE,
        )
    generator = random.Random(seed)
    folder = Path(source)
    if (folder / _IMAGES).is_dir():
        frames, left_out = _of_data_set(folder, split, (count + held_out) * _POOL_FACTOR, generator)
    elif split is not None:
        raise HnxError(
            f"--split {split}, but {source} is no data set",
            why=f"it has no folder {_IMAGES}",
            fix="leave the split out",
            code=ExitCode.USAGE,
        )
    else:
        frames, left_out = _of_source(source, (count + held_out) * _POOL_FACTOR, generator)
    if not frames:
        raise HnxError(
            f"No frame of {source} can be read",
            why="; ".join(f"{error.what}: {error.why}" for error in left_out[:3]) or "it holds none",
            fix="name a folder of pictures, a data set or a video that can be played",
        )
    aside = held_out if len(frames) >= count + held_out else min(held_out, len(frames) // 8)
    chosen = _spread(frames, min(count + aside, len(frames)), generator)
    # every k-th is held out, so both parts see all strata
    step = len(chosen) // aside if aside else 0
    apart = set(range(step - 1, step * aside, step)) if aside else set()
    kept = tuple(frame for index, frame in enumerate(chosen) if index not in apart)
    return FrameSet(
        str(source),
        _in_reading_order(kept),
        _in_reading_order([chosen[index] for index in sorted(apart)]),
        tuple(left_out),
        _notes(len(kept), count, len(left_out)),
    )


def _notes(found: int, wanted: int, left_out: int) -> tuple[str, ...]:
    notes = []
    if left_out:
        notes.append(f"{left_out} frame(s) could not be read and were left out")
    if found < wanted:
        notes.append(f"only {found} of {wanted} calibration frames were found")
    if found < FEW_FRAMES:
        notes.append(
            f"{found} calibration frame(s) are few: ranges may miss what other scenes hold, and values beyond them are "
            f"clipped; use {FEW_FRAMES} or more, 300 are usual"
        )
    return tuple(notes)


def _of_data_set(
    folder: Path, split: str | None, pool: int, generator: random.Random
) -> tuple[list[FrameRef], list[HnxError]]:
    images = folder / _IMAGES
    try:
        splits = sorted(path.name for path in images.iterdir() if path.is_dir())
    except OSError as error:
        raise from_os_error(f"Cannot read folder {images}", error) from error
    if split is None:
        split = next((name for name in ("train", "val") if name in splits), splits[0] if splits else "")
    if split not in splits:
        raise HnxError(
            f"Data set {folder} has no split {split!r}",
            why=f"its images lie in {', '.join(splits) or 'no folder'}",
            fix=f"name one of these, or check it: hnx data check {folder}",
            code=ExitCode.USAGE,
        )
    return _of_pictures(_pictures(images / split), pool, generator, folder / _LABELS / split)


def _pictures(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    except OSError as error:
        raise from_os_error(f"Cannot read folder {folder}", error) from error


def _of_source(source: str | Path, pool: int, generator: random.Random) -> tuple[list[FrameRef], list[HnxError]]:
    with open_source(source) as opened:
        if not opened.is_video:
            return _of_pictures(list(opened.files), pool, generator, None)
        if not opened.files or opened.length is None:
            raise HnxError(
                f"Cannot calibrate on {source}",
                why="frames are read several times, and what comes from a camera or a stream is gone after once",
                fix="record a few minutes, and name the file",
            )
        path, length = opened.files[0], opened.length
        wanted = _positions(length, min(pool, length), generator)
        found = []
        for frame in opened:
            if frame.index in wanted:
                found.append(FrameRef(path, frame.index, _stratum("", frame.image)))
            if frame.index >= max(wanted):
                break
        problems = list(opened.problems)
    return found, problems


def _positions(length: int, count: int, generator: random.Random) -> set[int]:
    """One frame at random from each of `count` equal parts of a video."""
    return {generator.randrange(index * length // count, (index + 1) * length // count) for index in range(count)}


def _of_pictures(
    paths: list[Path], pool: int, generator: random.Random, labels: Path | None
) -> tuple[list[FrameRef], list[HnxError]]:
    generator.shuffle(paths)
    found: list[FrameRef] = []
    left_out: list[HnxError] = []
    for path in paths:
        if len(found) >= pool:
            break
        try:
            image = read_image(path)
        except HnxError as error:
            left_out.append(error)
            continue
        found.append(FrameRef(path, None, _stratum(_time_of_day(labels, path), image)))
    return found, left_out


def _stratum(time: str, image: NDArray[np.uint8]) -> str:
    """Time of day and level of brightness, which is the mean of all channels over a grid of about 64 x 64 pixels."""
    rows, columns = (max(1, size // 64) for size in image.shape[:2])
    light = float(image[::rows, ::columns].mean())
    level = next(name for limit, name in _LEVELS if light < limit)
    return f"{time}/{level}" if time else level


def _time_of_day(labels: Path | None, image: Path) -> str:
    """What BDD100K's labels say (`daytime`, `night`, `dawn/dusk`), "" where there is no such label."""
    if labels is None:
        return ""
    path = labels / f"{image.stem}.json"
    try:
        data: Any = read_json(path, limit=32 << 20) if path.is_file() else None
    except HnxError:
        return ""  # of use for the choice only: a damaged label is no reason to leave a good frame out
    attributes = data.get("attributes") if isinstance(data, dict) else None
    value = attributes.get("timeofday") if isinstance(attributes, dict) else None
    return value.replace("/", "-") if isinstance(value, str) and value.isprintable() and value != "undefined" else ""


def _spread(frames: Sequence[FrameRef], count: int, generator: random.Random) -> list[FrameRef]:
    """One frame from each stratum in turn until there are enough; strata that run out are passed over."""
    strata: dict[str, list[FrameRef]] = {}
    for frame in sorted(frames, key=lambda frame: (frame.stratum, str(frame.path), frame.index or 0)):
        strata.setdefault(frame.stratum, []).append(frame)
    for group in strata.values():
        generator.shuffle(group)
    chosen: list[FrameRef] = []
    while len(chosen) < count:
        for group in strata.values():
            if group and len(chosen) < count:
                chosen.append(group.pop())
    return chosen


def _in_reading_order(frames: Sequence[FrameRef]) -> tuple[FrameRef, ...]:
    """A video is read once from its start to the last frame wanted, never by seeking, which is inexact."""
    return tuple(sorted(frames, key=lambda frame: (str(frame.path), frame.index or 0)))


def _read(frames: Sequence[FrameRef]) -> Iterator[NDArray[np.uint8]]:
    by_video: dict[Path, set[int]] = {}
    for frame in frames:
        if frame.index is None:
            yield read_image(frame.path)
        else:
            by_video.setdefault(frame.path, set()).add(frame.index)
    for path, wanted in by_video.items():
        with open_source(path) as opened:
            for item in opened:
                if item.index in wanted:
                    yield item.image
                if item.index >= max(wanted):
                    break
