"""Images: their size from a look at the file, and their way into the target."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import cv2

from hybridnets.dataset.layout import check_regular
from hybridnets.errors import HnxError, from_os_error
from hybridnets.files import atomic_path, write_bytes
from hybridnets.sources import read_image

__all__ = ["image_size", "place_image"]

_JPEG = (".jpg", ".jpeg")
# markers with a frame header: baseline, progressive and their relatives; C4, C8 and CC are something else
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# what a file system without hard links, another disk, 65,000 links to one file or another owner's file answer
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP})


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) as stored; the EXIF orientation is ignored, as everywhere.

    A JPEG is not decoded (8 ms of 1280x720): its header gives the size, its last bytes say whether it is whole.

    Raises:
        HnxError: missing, damaged, cut off, or a pipe.
    """
    check_regular(path)
    if path.suffix.lower() in _JPEG:
        try:
            size = _jpeg_size(path.read_bytes())
        except OSError as error:
            raise from_os_error(f"Cannot read image {path}", error) from error
        if size is not None:
            return size
    height, width = read_image(path).shape[:2]
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """The size of a JPEG that is whole; None where only decoding can tell."""
    if not data.startswith(b"\xff\xd8") or b"\xff\xd9" not in data[-32:]:
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _NO_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAME_HEADERS:
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            return (height, width) if height and width else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def place_image(source: Path, target: Path, mode: str) -> str:
    """Bring an image to `target` (.jpg).

    Args:
        source: any image; what is no JPEG is encoded as one of quality 95, because upstream reads only .jpg.
        target: replaced when it exists.
        mode: "hardlink" (copied where the disk cannot), "copy" or "link" (symbolic).

    Returns:
        What was done: "hardlink", "copy", "link" or "encode".

    Raises:
        HnxError: it cannot be read or written.
    """
    if source.suffix.lower() not in _JPEG:
        ok, data = cv2.imencode(".jpg", read_image(source), [cv2.IMWRITE_JPEG_QUALITY, 95])
        if not ok:
            raise HnxError(f"Cannot encode {source} as JPEG", fix="convert it yourself")
        write_bytes(target, data.tobytes())
        return "encode"
    if mode != "copy":
        try:
            return _link(Path(os.path.realpath(source)), target, mode)
        except OSError as error:
            if mode == "link" or error.errno not in _CANNOT_LINK:
                raise from_os_error(f"Cannot link {target} to {source}", error) from error
    # atomic_path renames, so a link that an earlier run left there is replaced and not written through
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return "copy"


def _link(source: Path, target: Path, mode: str) -> str:
    for _ in range(2):
        try:
            if mode == "link":
                target.symlink_to(source)
            else:
                os.link(source, target)
            return mode
        except FileExistsError:
            target.unlink()
    raise FileExistsError(errno.EEXIST, "another program writes there", str(target))
