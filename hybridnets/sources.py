"""Where frames come from: pictures, folders, patterns, videos, cameras and streams."""

from __future__ import annotations

import glob
import math
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import ExitCode, HnxError, from_os_error, last_line

__all__ = ["IMAGE_SUFFIXES", "Frame", "ImageSource", "Source", "VideoSource", "open_source", "read_image"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
URL_SCHEMES = ("rtsp", "rtsps", "http", "https")
DEFAULT_FPS = 30.0
# OpenCV waits 30 s by default for a stream that does not answer
URL_TIMEOUT_MS = 10_000
# colour in 8 bits; the EXIF orientation is ignored because upstream trained and evaluated that way
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True)
class Frame:
    """One picture.

    Attributes:
        image: uint8 (h, w, 3) BGR.
        name: the file, camera or address it came from; passwords of addresses are left out.
        index: its number within the source, from 0.
        time_ms: its time within the video, or since a live source started; None for pictures.
    """

    image: NDArray[np.uint8]
    name: str
    index: int
    time_ms: float | None = None


class Source(ABC):
    """Frames in order, read once; use it in a with statement.

    Attributes:
        name: short name, fit for naming output files.
        is_video: the frames belong together in time.
        live: a camera or an address: it ends when the user stops.
        fps: frames per second of a video, not rounded; 0 for pictures.
        length: number of frames as far as it is announced, None when unknown.
        size: (height, width) of all frames, None when they may differ.
        files: the files that are read: never to be overwritten.
        notes: remarks about the source for the user.
        problems: what could not be read so far; iteration went on after each.
    """

    def __init__(self, name: str, files: Sequence[Path] = ()) -> None:
        self.name = name
        self.is_video = False
        self.live = False
        self.fps = 0.0
        self.length: int | None = None
        self.size: tuple[int, int] | None = None
        self.files: tuple[Path, ...] = tuple(files)
        self.notes: list[str] = []
        self.problems: list[HnxError] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            HnxError: nothing at all could be read.
        """

    def close(self) -> None:  # noqa: B027 - pictures hold nothing open
        """Let go of the device or file."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ImageSource(Source):
    """Pictures one after the other. One that is damaged is put into `problems`, the rest goes on."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        super().__init__(name, files)
        self.length = len(files)

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.files):
            try:
                image = read_image(path)
            except HnxError as error:
                if len(self.files) == 1:
                    raise
                self.problems.append(error)
                continue
            yield Frame(image, str(path), index)


class VideoSource(Source):
    """A video file, a camera or an address, through OpenCV.

    Raises:
        HnxError: it cannot be opened.
    """

    def __init__(self, name: str, target: int | str, public: str, files: Sequence[Path] = ()) -> None:
        super().__init__(name, files)
        self.is_video = True
        self._public = public
        self._capture = _open_capture(target)
        if not self._capture.isOpened():
            self._capture.release()
            raise _cannot_open(target, public)
        self.fps = self._read_fps()
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        # cameras and streams announce -1, 0 or a huge negative number; a file behind http:// has a length
        self.length = int(count) if isinstance(target, str) and math.isfinite(count) and count >= 1 else None
        self.live = not files and self.length is None
        height, width = (self._capture.get(key) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        if height >= 1 and width >= 1:
            self.size = int(height), int(width)

    def _read_fps(self) -> float:
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        # files with a clock of 90 kHz and no rate report the clock
        if math.isfinite(fps) and 0 < fps <= 1000:
            return fps
        self.notes.append(f"{self._public} does not say its frames per second: {DEFAULT_FPS:g} are assumed")
        return DEFAULT_FPS

    def __iter__(self) -> Iterator[Frame]:
        start = time.perf_counter_ns()
        index = 0
        while True:
            try:
                ok, image = self._capture.read()
            except cv2.error as error:
                ok, image = False, None
                self.notes.append(f"{self._public}: {last_line(error)}")
            if not ok or image is None:
                break
            if self.live:
                time_ms = (time.perf_counter_ns() - start) / 1e6
            else:
                time_ms = float(self._capture.get(cv2.CAP_PROP_POS_MSEC))
            yield Frame(_as_colour(image), self._public, index, time_ms if math.isfinite(time_ms) else None)
            index += 1
        self._check_end(index)

    def _check_end(self, count: int) -> None:
        if count == 0:
            raise HnxError(
                f"{self._public} holds no frame that can be decoded",
                why="it is damaged, or its codec is not in this OpenCV",
                fix="check it with a player, or convert it: ffmpeg -i FILE -c:v libx264 fixed.mp4",
            )
        if self.live:
            ended = f"{self._public} ended after {count} frames"
            if self._public.startswith("http"):  # a stream of finite length is nothing unusual there
                self.notes.append(ended)
            else:
                self.problems.append(
                    HnxError(ended, why="the camera or server sends no more", fix="check the connection")
                )
        # containers without an index only estimate their length: two frames or 2 % are no damage
        elif self.length is not None and self.length - count > max(2.0, 0.02 * self.length):
            self.problems.append(
                HnxError(
                    f"{self._public} ended after {count} of {self.length} frames",
                    why="the file is cut off or damaged there",
                    fix="copy or record it again; the frames before the damage are kept",
                )
            )

    def close(self) -> None:
        """Let go of the device or file."""
        self._capture.release()


def read_image(path: Path | str) -> NDArray[np.uint8]:
    """A picture as uint8 (h, w, 3) BGR.

    Grey is repeated, alpha dropped, 16 bits cut to the upper 8; the EXIF orientation is ignored as upstream does.
    A file that is cut off is refused, not read as a half grey picture: its boxes would look like results.

    Raises:
        HnxError: missing, a folder, empty, damaged, or above OpenCV's limit of 2^30 pixels.
    """
    _quiet()
    path = Path(path)
    what = f"Cannot read image {path}"
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise from_os_error(what, error) from error
    if not data.size:
        raise HnxError(what, why="the file is empty (0 bytes)", fix="copy or download it again")
    try:
        # from memory, because only there OpenCV refuses a JPEG that is cut off
        image = cv2.imdecode(data, _READ_FLAGS)
    except cv2.error as error:
        if "MAX_IMAGE" in str(error):
            raise HnxError(
                what,
                why="it has more pixels than OpenCV reads (2^30, or sides above 2^20)",
                fix="make it smaller, or raise OPENCV_IO_MAX_IMAGE_PIXELS",
            ) from error
        image = None
    if image is None:
        raise HnxError(
            what,
            why="it is cut off or damaged, or it is no picture of a kind OpenCV knows",
            fix="copy or download it again, or convert it to PNG",
        )
    return image.view(np.uint8)


def open_source(text: str | Path) -> Source:
    """What the user named: a file, a folder, a pattern, a camera's number or an address.

    Args:
        text: image or video file; folder (its pictures, sorted, without subfolders); pattern such as `day1/*.jpg`;
            number of a camera, `0` the first; rtsp://, rtsps://, http:// or https:// address.

    Raises:
        HnxError: there is no such thing, it is empty, or it cannot be opened.
    """
    _quiet()
    text = str(text)
    path = Path(text)
    if text and path.is_dir():  # Path("") is the current folder
        return _open_folder(path)
    if text and path.exists():
        return _open_file(path)
    if text.isascii() and text.isdigit() and len(text) < 10:  # OpenCV takes 32 bits
        return VideoSource(f"camera{int(text)}", int(text), f"camera {int(text)}")
    if match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        if match[1].lower() not in URL_SCHEMES:
            raise HnxError(
                f"Cannot open addresses of the kind {match[1]}://",
                why=f"known are {', '.join(f'{scheme}://' for scheme in URL_SCHEMES)}",
                fix="use one of these, or a file",
                code=ExitCode.USAGE,
            )
        return _open_url(text)
    if glob.has_magic(text):
        return _open_pattern(text)
    raise HnxError(
        f"There is no source {text!r}",
        why="no file or folder has this name, and it is neither a camera number nor an address",
        fix="check the path; `hnx infer --help` lists what can be read",
    )


def _open_folder(folder: Path) -> Source:
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    except OSError as error:
        raise from_os_error(f"Cannot read folder {folder}", error) from error
    if not files:
        raise HnxError(
            f"Folder {folder} holds no picture",
            why=f"no file in it (subfolders are not read) ends in {', '.join(IMAGE_SUFFIXES)}",
            fix="name another folder, a pattern such as 'folder/*/*.jpg', or one video file",
        )
    return ImageSource(folder.resolve().name or "images", files)


def _open_pattern(pattern: str) -> Source:
    # Path.glob refuses absolute patterns
    found = sorted(Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file())  # noqa: PTH207
    files = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        why = f"the {len(found)} files it matches are no pictures" if found else "it matches no file"
        raise HnxError(f"Pattern {pattern!r} names no picture", why=why, fix="check it; videos are given one by one")
    return ImageSource(files[0].stem if len(files) == 1 else "images", files)


def _open_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if path.is_fifo() or path.is_socket():
        raise HnxError(
            f"Cannot read {path}", why="it is a pipe or a socket: OpenCV must go back in files", fix="name a file"
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(1)
    except OSError as error:
        raise from_os_error(f"Cannot read {path}", error) from error
    image = suffix in IMAGE_SUFFIXES or (suffix not in VIDEO_SUFFIXES and cv2.haveImageReader(str(path)))
    if image:
        return ImageSource(path.stem, [path])
    if not head and path.is_file():
        raise HnxError(f"Cannot open video {path}", why="the file is empty (0 bytes)", fix="copy or record it again")
    return VideoSource(path.stem, str(path), str(path), [path])


def _open_url(url: str) -> Source:
    try:
        parts = urlsplit(url)
        host = parts.hostname or "stream"
    except ValueError as error:
        raise HnxError(f"Cannot read address {url!r}", why=str(error), fix="check it", code=ExitCode.USAGE) from error
    # user and password must not end up in result files and logs
    public = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    last = Path(parts.path).stem
    name = re.sub(r"[^\w.-]+", "_", f"{host}_{last}" if last else host)
    return VideoSource(name, url, public)


def _open_capture(target: int | str) -> Any:
    if isinstance(target, str) and "://" in target:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, URL_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, URL_TIMEOUT_MS]
        capture = cv2.VideoCapture(target, cv2.CAP_FFMPEG, limits)
        if capture.isOpened() or cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends():
            return capture
    # Jetson's own OpenCV has GStreamer in FFmpeg's place
    return cv2.VideoCapture(target)


def _cannot_open(target: int | str, public: str) -> HnxError:
    if isinstance(target, int):
        return HnxError(
            f"Cannot open {public}",
            why="there is no such camera, another program holds it, or you may not use it",
            fix="list cameras with `ls /dev/video*`; you need to be in the group video",
        )
    if "://" in target:
        return HnxError(
            f"Cannot open {public}",
            why=f"the server does not answer within {URL_TIMEOUT_MS // 1000} s, refuses, or sends no video",
            fix="try the address in a player such as ffplay",
        )
    return HnxError(
        f"Cannot open video {public}",
        why="it is no video, it is damaged (a recording that was cut off has no index), or its codec is unknown",
        fix="check it with a player, or convert it: ffmpeg -i FILE -c:v libx264 fixed.mp4",
    )


def _as_colour(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Infrared cameras give one channel."""
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return image.view(np.uint8)


def _quiet() -> None:
    """Stop OpenCV and FFmpeg from printing about damaged files on stderr: the errors here say it in words.

    What libjpeg and libpng print themselves cannot be switched off. A user's own setting is respected.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when the first video is opened
    logging = getattr(cv2.utils, "logging", None)
    if logging is not None and "OPENCV_LOG_LEVEL" not in os.environ:
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
