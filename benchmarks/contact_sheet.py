"""Many pictures on one sheet, small enough for a document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import HnxError
from hybridnets.files import write_bytes

__all__ = ["contact_sheet", "write_small_jpeg"]

GAP = 4
BACKGROUND = 255
# below 60, blocks show on lane lines; a smaller sheet looks better than that
QUALITIES = (88, 80, 70, 60)
SHRINK = 0.85
LEAST_WIDTH = 320


def contact_sheet(pictures: Sequence[NDArray[np.uint8]], *, columns: int, width: int) -> NDArray[np.uint8]:
    """Pictures in rows, each row as high as its highest picture.

    Args:
        pictures: uint8 (h, w, 3) BGR of any sizes.
        columns: pictures in a row.
        width: of the sheet, in pixels; each picture is scaled to its share.

    Raises:
        HnxError: there is no picture, or no room for the columns.
    """
    tile = (width - (columns - 1) * GAP) // columns if columns > 0 else 0
    if not pictures or tile < 16:
        raise HnxError(
            "There is nothing to put on a sheet" if not pictures else f"{columns} columns do not fit into {width} px",
            fix="name pictures" if not pictures else "use fewer columns",
        )
    rows = []
    for start in range(0, len(pictures), columns):
        tiles = [_scaled(picture, tile) for picture in pictures[start : start + columns]]
        row = np.full((max(len(found) for found in tiles), width, 3), BACKGROUND, np.uint8)
        for number, found in enumerate(tiles):
            x = number * (tile + GAP)
            row[: len(found), x : x + tile] = found
        rows += [row, np.full((GAP, width, 3), BACKGROUND, np.uint8)]
    return np.concatenate(rows[:-1])


def _scaled(picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    method = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_LINEAR
    found: NDArray[np.uint8] = cv2.resize(picture, (width, height), interpolation=method)
    return found


def write_small_jpeg(path: Path, picture: NDArray[np.uint8], limit: int) -> int:
    """Write a JPEG of at most `limit` bytes: first with a lower quality, then smaller. Returns its bytes.

    Raises:
        HnxError: it does not become small enough, or cannot be written.
    """
    current = picture
    while current.shape[1] >= LEAST_WIDTH or current is picture:
        for quality in QUALITIES:
            done, data = cv2.imencode(".jpg", current, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if done and len(data) <= limit:
                write_bytes(path, data.tobytes())
                return len(data)
        current = _scaled(picture, int(current.shape[1] * SHRINK))
    raise HnxError(f"Cannot write {path} in {limit} bytes", why="it holds too many pictures", fix="take fewer pictures")
