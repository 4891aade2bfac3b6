"""The frames that end-to-end times are taken on: JPEG bytes, decoded anew for every sample."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import HnxError
from hybridnets.sources import open_source, read_image

__all__ = ["MAX_FRAMES", "decode_jpeg", "load_frames", "tensor_sha256"]

# enough to vary the content, little enough to stay in memory: 32 frames of 1280x720 are 10 MB as JPEG
MAX_FRAMES = 32


def load_frames(source: str | Path | None) -> list[NDArray[np.uint8]]:
    """JPEG bytes of up to 32 frames: of an image, folder, pattern or video evenly spaced, of a camera the first.

    JPEG files are taken as they are; other images and video frames are encoded at quality 95.

    Raises:
        HnxError: the source is missing or holds no image, or one cannot be decoded.
    """
    if source is None:
        from hybridnets.data import demo_frame

        source = demo_frame()
    with open_source(source) as opened:
        if not opened.is_video:
            return [_read_image(opened.files[index]) for index in _spread(len(opened.files))]
        wanted = set(_spread(opened.length or MAX_FRAMES))
        frames = []
        for frame in opened:
            if frame.index in wanted:
                frames.append(_encode(frame.image))
            if frame.index >= max(wanted):
                break
    return frames


def _spread(count: int) -> list[int]:
    if count <= MAX_FRAMES:
        return list(range(count))
    return [index * count // MAX_FRAMES for index in range(MAX_FRAMES)]


def _read_image(path: Path) -> NDArray[np.uint8]:
    frame = read_image(path)
    data = np.fromfile(path, np.uint8)
    return data if bytes(data[:2]) == b"\xff\xd8" else _encode(frame)


def _encode(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    done, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not done:
        raise HnxError("OpenCV cannot encode JPEG", fix="pip install --force-reinstall opencv-python-headless")
    return np.asarray(data, np.uint8).ravel()


def decode_jpeg(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encoded bytes to BGR; the frames were decoded once before anything was measured, so they are good."""
    frame = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if frame is None:
        raise HnxError("A frame cannot be decoded", why="it changed since it was read", fix="measure again")
    return np.asarray(frame, np.uint8)


def tensor_sha256(tensor: NDArray[np.float32]) -> str:
    """Hex SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()
