"""Where results go: pictures, videos and JSON lines. Every file appears under its name only when it is whole."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import HnxError, from_os_error
from hybridnets.files import atomic_path, remove_leftovers, write_bytes
from hybridnets.postprocess import Prediction
from hybridnets.sources import Frame

__all__ = [
    "JsonLinesSink",
    "OutputNames",
    "Sink",
    "VideoSink",
    "frame_record",
    "rle_decode",
    "rle_encode",
    "write_image",
]

# a frame of 4K video takes at most some 3 MB, the index of an hour 2 MB: below this the file could not be finished
DISK_RESERVE = 16 << 20


SinkType = TypeVar("SinkType", bound="Sink")


class _DiscardError(Exception):
    """Thrown into `atomic_path` to make it remove its temporary file."""


class Sink:
    """A file that is written piece by piece under a temporary name.

    `close` gives it its name, `discard` removes it; leaving a with statement does the first after success and the
    second after an error. Both may be called again.

    Raises:
        HnxError: the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise HnxError(f"Cannot write {path}", why="a folder has this name", fix="choose another output folder")
        self.count = 0
        self._stack = contextlib.ExitStack()
        remove_leftovers(self.path)  # a video that was killed may have left gigabytes
        self._temporary = self._stack.enter_context(atomic_path(self.path))
        self._open = True

    def _release(self) -> None:
        """Let go of the file; called once, before it is renamed or removed."""

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            HnxError: it could not be finished, for example because the disk is full; then it is removed.
        """
        if not self._open:
            return
        try:
            self._release()
            self._check()
        except BaseException:
            self.discard()
            raise
        self._open = False
        self._stack.close()

    def _check(self) -> None:
        """Raise HnxError unless the finished file is whole."""

    def discard(self) -> None:
        """Remove the file."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError):
            self._release()
        error = _DiscardError()
        self._stack.__exit__(_DiscardError, error, None)

    def __enter__(self: SinkType) -> SinkType:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class VideoSink(Sink):
    """An .mp4 file (MPEG-4 part 2, which every OpenCV can write and every player can show).

    Frames of an odd width or height get one more row or column, because the codec has none for them: OpenCV would
    cut one away without a word. The first frame fixes the size; later ones that differ are resized.

    Args:
        path: ends in .mp4.
        fps: frames per second; fractions are kept.
        size: (height, width) of the frames.

    Raises:
        HnxError: the folder cannot be written, or this OpenCV has no encoder.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        super().__init__(path)
        self.size = size
        self._even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        try:
            self._writer = self._open_writer(fps)
        except BaseException:
            self._writer = None
            self.discard()
            raise

    def _open_writer(self, fps: float) -> Any:
        # MPEG-4 stores the rate as a fraction below 65536: a rate such as 240.1234 needs rounding
        for rate in (fps, round(fps, 2), float(max(1, round(fps)))):
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(self._temporary), fourcc, rate, (self._even[1], self._even[0]))
            if writer.isOpened():
                return writer
            writer.release()
        raise HnxError(
            f"Cannot write video {self.path}",
            why=f"OpenCV has no MPEG-4 encoder for {self._even[1]}x{self._even[0]} at {fps:g} frames/s",
            fix="pip install --force-reinstall opencv-python-headless, or use --no-draw --save-json",
        )

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append a frame, uint8 (h, w, 3) BGR.

        Raises:
            HnxError: the disk is full, or the encoder refuses the frame.
        """
        try:
            free = shutil.disk_usage(self._temporary.parent).free  # 2 us
        except OSError as error:
            raise from_os_error(f"Cannot write {self.path}", error) from error
        # VideoWriter tells nobody about a full disk: the file would lack its end and be unreadable as a whole
        if free < DISK_RESERVE:
            raise HnxError(
                f"Stopped writing {self.path} after {self.count} frames",
                why=f"the disk is full ({free >> 20} MiB are left)",
                fix="free some space, or choose another folder with -o",
            )
        if image.shape[:2] != self.size:
            image = cv2.resize(image, (self.size[1], self.size[0]), interpolation=cv2.INTER_AREA)
        down, right = self._even[0] - self.size[0], self._even[1] - self.size[1]
        if down or right:
            image = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE)
        if self._writer.write(image) is False:  # OpenCV 5 tells, 4 returns None
            raise self._incomplete()
        self.count += 1

    def _incomplete(self) -> HnxError:
        return HnxError(
            f"Cannot write video {self.path}",
            why="the encoder could not store every frame: the disk or a quota is full",
            fix="free some space, or choose another folder with -o",
        )

    def _release(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def _check(self) -> None:
        capture = cv2.VideoCapture(str(self._temporary))
        stored = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        if self.count and stored != self.count:
            raise self._incomplete()


class JsonLinesSink(Sink):
    """One JSON object per line, written as it comes.

    Raises:
        HnxError: the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._size = 0
        self._stream = self._temporary.open("wb", buffering=0)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a line.

        Raises:
            HnxError: the disk is full, or a number is not finite.
        """
        try:
            line = json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        except ValueError as error:
            raise HnxError(
                f"Cannot write frame {record.get('frame')} of {record.get('source')} to {self.path}",
                why="the network gave a number that is not finite",
                fix="run it with --precision fp32; if that does not help, check the checkpoint",
            ) from error
        # a file name that is no valid UTF-8 becomes a JSON escape, which reads back as the same name
        data = (line + "\n").encode("utf-8", "backslashreplace")
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._stream.write(rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._stream.truncate(self._size)  # a full disk takes half a line
            raise from_os_error(f"Cannot write {self.path}", error) from error
        self._size += len(data)
        self.count += 1

    def _release(self) -> None:
        self._stream.close()


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write uint8 (h, w, 3) BGR, the format chosen by the suffix; whole or not at all.

    Raises:
        HnxError: the folder cannot be written, the disk is full, or the format cannot hold the picture.
    """
    if path.is_dir():
        raise HnxError(f"Cannot write {path}", why="a folder has this name", fix="choose another output folder")
    try:
        ok, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        ok, data = False, None
    if not ok or data is None:
        height, width = image.shape[:2]
        raise HnxError(
            f"Cannot write {path}",
            why=f"{path.suffix} cannot hold {width}x{height} pixels (JPEG ends at 65535)",
            fix="use smaller pictures, or --no-draw --save-json",
        )
    write_bytes(path, data.tobytes())


class OutputNames:
    """Names of output files, never twice the same and never those of the sources.

    Where a source lies in the output folder itself, its output is called `<stem>_hnx`: a picture beside it with
    the same stem may be the user's own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._resolved = self.folder.resolve()
        self._used: set[str] = set()

    def __call__(self, stem: str, suffix: str, source: Path | None = None) -> Path:
        """A path in the folder; `source` is the file it is made from, None for cameras and streams."""
        if source is not None and source.resolve().parent == self._resolved:
            stem += "_hnx"
        name, number = stem + suffix, 1
        # file systems that ignore case would put X.jpg over x.jpg
        while name.casefold() in self._used:
            number += 1
            name = f"{stem}_{number}{suffix}"
        self._used.add(name.casefold())
        return self.folder / name


def rle_encode(mask: NDArray[Any]) -> dict[str, list[int]]:
    """COCO's uncompressed run lengths of a (h, w) mask: column by column, first the zeros.

    1 ms for 1280x720 where a loop takes 200 ms.

    >>> rle_encode(np.array([[0, 1], [1, 1]]))
    {'size': [2, 2], 'counts': [1, 3]}
    """
    height, width = mask.shape
    # OpenCV's transposition works in blocks: 0.3 ms where numpy's copy of mask.T takes 2 ms
    flat = cv2.transpose((mask != 0).view(np.uint8)).ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts: list[int] = np.diff(edges).tolist()
    return {"size": [height, width], "counts": [0, *counts] if flat[0] else counts}


def rle_decode(rle: Mapping[str, Sequence[int]]) -> NDArray[np.bool_]:
    """The (h, w) mask of `rle_encode`.

    Raises:
        HnxError: the counts do not fill the size.
    """
    height, width = rle["size"]
    counts = np.asarray(rle["counts"], np.int64)
    if (len(counts) and counts.min() < 0) or counts.sum() != height * width:
        raise HnxError(
            f"Run lengths of {counts.sum()} pixels for a mask of {width}x{height}",
            why="the record is damaged",
            fix="write the file again with --save-json",
        )
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def frame_record(
    frame: Frame, prediction: Prediction, classes: Sequence[str], seg_classes: Sequence[str]
) -> dict[str, Any]:
    """What is written about one frame, ready for JSON.

    Returns:
        source, frame, width, height, time_ms (videos only), boxes (x1, y1, x2, y2 in pixels, 2 decimals), scores,
        classes (names), class_ids, and segmentation: class name to run lengths, empty without that head.
    """
    found = prediction.detections
    record: dict[str, Any] = {
        "source": frame.name,
        "frame": frame.index,
        "width": int(frame.image.shape[1]),
        "height": int(frame.image.shape[0]),
    }
    if frame.time_ms is not None:
        record["time_ms"] = round(frame.time_ms, 3)
    ids = found.classes.tolist()
    record["boxes"] = [[round(v, 2) for v in box] for box in found.boxes.tolist()]
    record["scores"] = [round(v, 4) for v in found.scores.tolist()]
    record["classes"] = [classes[i] if i < len(classes) else f"class {i}" for i in ids]
    record["class_ids"] = ids
    record["segmentation"] = (
        {}
        if prediction.segmentation is None
        else {name: rle_encode(prediction.mask(k)) for k, name in enumerate(seg_classes)}
    )
    return record
