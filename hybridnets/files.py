"""Files that are either whole or absent, and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridnets.errors import HnxError, from_os_error

__all__ = ["atomic_directory", "atomic_path", "read_json", "sha256_file", "write_bytes", "write_json"]


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces of 1 MiB.

    Raises:
        HnxError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise from_os_error(f"Cannot read {path}", error) from error
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; renamed to it when the block ends well, removed when it does not.

    The name keeps the suffix of `path`, because writers such as cv2.VideoWriter choose the format by it.

    Raises:
        HnxError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent)
        temporary = Path(name)
        os.close(handle)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes 0600 files; give the result the mode an ordinary open() would have given it
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise from_os_error(f"Cannot write {path}", error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; it takes the place of `path` when the block ends well.

    An existing folder is moved aside first and removed last, so there is never a half-written one.

    Raises:
        HnxError: the parent cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        if path.exists():
            aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
            path.rename(aside / path.name)
            try:
                temporary.rename(path)
            except BaseException:
                (aside / path.name).rename(path)
                raise
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        else:
            temporary.rename(path)
        temporary = None
    except OSError as error:
        raise from_os_error(f"Cannot write {path}", error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or none."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON (UTF-8, indented, no NaN) whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, *, limit: int = 64 << 20) -> Any:
    """Parse a JSON file of at most `limit` bytes.

    Raises:
        HnxError: missing, unreadable, too large, or not JSON.
    """
    try:
        size = path.stat().st_size
        if size > limit:
            raise HnxError(
                f"Cannot read {path}",
                why=f"{size} bytes is more than a file of this kind can have ({limit})",
                fix="check that this is the right file",
            )
        return json.loads(path.read_bytes())
    except OSError as error:
        raise from_os_error(f"Cannot read {path}", error) from error
    except (ValueError, RecursionError) as error:
        raise HnxError(
            f"Cannot read {path}",
            why=f"it is not valid JSON: {error}",
            fix="write the file again",
        ) from error
