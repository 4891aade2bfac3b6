"""Compiled networks kept on disk between processes, for runtimes whose library can write down what it compiled.

A network is found by everything that decided what it became: the caller's key holds the digests of its files, the
library's version, the device and every setting. A file is checked before the library sees it, for a damaged one could
take the process along, and whatever goes wrong on the way costs time and nothing else: the network is compiled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import HnxError, from_os_error
from hybridnets.files import atomic_path

__all__ = ["LIMIT_BYTES", "CompiledStore", "Kept"]

# what a folder may hold: twenty times coefficient 3, which takes 52 MB at each precision and number of threads
LIMIT_BYTES = 1 << 30
# one page: what follows can be mapped as it is
_HEAD_BYTES = 4096
_SUFFIX = ".blob"
# a temporary file older than this was left by a writer that was killed
_WRITING_S = 3600


class Kept(NamedTuple):
    """A network from the folder.

    Attributes:
        data: mapped from the file, to be held on to as long as the library uses it.
        about: what its writer said about it.
    """

    data: NDArray[np.uint8]
    about: Any


class CompiledStore:
    """A folder of compiled networks. Several processes may use it at once.

    Args:
        folder: made with the first network that is kept.
        limit: bytes of all files together; beyond it the ones that were used longest ago are removed.
    """

    def __init__(self, folder: Path, limit: int = LIMIT_BYTES) -> None:
        self.folder, self.limit = folder, limit

    def path(self, key: Mapping[str, Any]) -> Path:
        """Where a network is kept.

        Args:
            key: JSON values.
        """
        return self.folder / f"{_digest(key)[:32]}{_SUFFIX}"

    def read(self, key: Mapping[str, Any]) -> Kept | None:
        """What is kept under a key; None where there is nothing, or not what was written: shortened, changed."""
        path = self.path(key)
        try:
            # private pages: the library gets memory that it may write to, and the file stays as it is
            mapped = np.asarray(np.memmap(path, np.uint8, "c"))
        except (OSError, ValueError):  # missing, forbidden, empty
            return None
        head, payload = bytes(mapped[:_HEAD_BYTES]), mapped[_HEAD_BYTES:]
        try:
            about = json.loads(head)["about"]
            if head != _head(key, about, payload.data):
                return None
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        with contextlib.suppress(OSError):  # a read-only folder
            path.touch()
        return Kept(payload, about)

    def write(self, key: Mapping[str, Any], about: Mapping[str, Any], data: bytes | memoryview) -> str:
        """Keep a network, whole or not at all; never fails.

        Args:
            about: what the caller wants to know of it when it is read, as JSON values; a few lines.

        Returns:
            Why it was not kept; empty when it was.
        """
        path, size = self.path(key), len(data) + _HEAD_BYTES
        if size > self.limit:
            return f"its {size / 1e6:.0f} MB are more than the {self.limit / 1e6:.0f} MB that the cache may have"
        head = _head(key, about, data)
        if len(head) > _HEAD_BYTES:
            return "there is too much to say about it"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # the last bytes of a disk are worth more to others
            if shutil.disk_usage(self.folder).free < 2 * size:
                return "the disk is nearly full"
            # checked by its sum when it is read: it need not be waited for
            with atomic_path(path, durable=False) as temporary, temporary.open("wb") as stream:
                stream.write(head)
                stream.write(data)
            self._evict(path)
        except OSError as error:
            return from_os_error("", error).why
        except HnxError as error:
            return error.why
        return ""

    def _evict(self, kept: Path) -> None:
        """Remove the files used longest ago, what killed writers left among them, until the rest is small enough."""
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):  # another process was quicker
                state = path.stat()
                if path.name.startswith(".") and time.time() - state.st_mtime < _WRITING_S:
                    continue  # another process writes it just now
                found.append((path == kept, state.st_mtime_ns, state.st_size, path))
        total = sum(size for _, _, size, _ in found)
        for is_kept, _, size, path in sorted(found):
            if total <= self.limit or is_kept:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _head(key: Mapping[str, Any], about: Any, data: bytes | memoryview) -> bytes:
    """The first page of a file: what it holds, its length and its sum.

    CRC-32 takes 16 ms for the 52 MB of coefficient 3, SHA-256 twice that; loading them takes 200 ms. The sum is
    against accidents: who can write to the folder can do worse.
    """
    words = json.dumps(about, sort_keys=True, allow_nan=False).encode()
    record = {
        "format": "hnx compiled 1",
        "key": _digest(key),
        "bytes": len(data),
        "crc32": zlib.crc32(data, zlib.crc32(words)),
        "about": json.loads(words),
    }
    return json.dumps(record).encode().ljust(_HEAD_BYTES)
