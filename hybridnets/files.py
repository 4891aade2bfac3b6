"""Files that are either whole or absent, and their hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridnets.errors import HnxError, from_os_error

__all__ = [
    "atomic_directory",
    "atomic_path",
    "read_json",
    "remove_leftovers",
    "sha256_file",
    "temporary_directory",
    "write_bytes",
    "write_json",
    "written_under",
]

# A leftover may be removed a minute after its last change, when its writer no longer holds its lock; a day after it
# where locks cannot be told (some network file systems).
_FRESH_S, _FORGOTTEN_S = 60, 86_400
# names that `atomic_path` gives: stem and suffix of what is written
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp(\.[^.]+)?")


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


def _chmod_as_open(path: Path, mode: int) -> None:
    """The mode that an ordinary open() or mkdir() would have given: tempfile makes private ones."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside `path`; renamed to it when the block ends well, removed when it does not.

    The name keeps the suffix of `path`, because writers such as cv2.VideoWriter choose the format by it.

    Args:
        durable: wait until the disk has it, so that not even a power cut leaves half a file. A memory card takes
            seconds for that: leave it out for what is checked when it is read, and can be made again.

    Raises:
        HnxError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    handle: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent)
        temporary = Path(name)
        _mark(handle)
        yield temporary
        if durable:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        _chmod_as_open(temporary, 0o666)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise from_os_error(f"Cannot write {path}", error) from error
    finally:
        if handle is not None:
            os.close(handle)
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; it takes the place of `path` when the block ends well.

    An existing folder is moved aside first and removed last, so there is never a half-written one. What earlier
    writers that were killed left there is removed.

    Raises:
        HnxError: the parent cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    handle: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
        handle = os.open(temporary, os.O_RDONLY)
        _mark(handle)
        yield temporary
        _chmod_as_open(temporary, 0o777)
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
        if handle is not None:
            os.close(handle)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """A folder in the system's place for temporary files, removed when the block ends.

    What earlier ones of the same prefix left there is removed: a process that is killed cannot. Those of living
    processes stay.

    Args:
        prefix: of its name, ours alone, such as `hnx-trials-`.

    Raises:
        HnxError: the folder cannot be made.
    """
    try:
        place = Path(tempfile.gettempdir())
        _sweep(place, re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}"))
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    except OSError as error:
        raise from_os_error("Cannot make a temporary folder", error) from error
    handle: int | None = None
    try:
        with contextlib.suppress(OSError):  # Windows opens no folder
            handle = os.open(folder, os.O_RDONLY)
            _mark(handle)
        yield folder
    finally:
        if handle is not None:
            os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(place: Path, ours: re.Pattern[str]) -> None:
    """Remove folders that nobody uses any more. Others may share the place: what is not ours to remove stays."""
    with contextlib.suppress(OSError):
        for found in [entry for entry in place.iterdir() if ours.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                if found.is_dir() and not found.is_symlink() and not _in_use(found):
                    shutil.rmtree(found, ignore_errors=True)


def written_under(name: str) -> str:
    """The name of the file that a temporary name of `atomic_path` is for; empty for other names.

    >>> written_under(".labels.k3v9_x0a.tmp.json")
    'labels.json'
    """
    match = _TEMPORARY.fullmatch(name)
    return match[1] + (match[2] or "") if match else ""


def remove_leftovers(path: Path) -> None:
    """Remove what writers of `path` that were killed left beside it under temporary names.

    Files of living writers stay: they hold a lock that the system drops when they end, however they end. A folder
    that was moved aside and not replaced any more comes back.
    """
    folders = re.compile(rf"\.{re.escape(path.name)}\.(tmp|old)-[a-z0-9_]{{8}}")
    with contextlib.suppress(OSError):
        for found in list(path.parent.iterdir()):
            if not folders.fullmatch(found.name) and written_under(found.name) != path.name:
                continue
            if _in_use(found):
                continue
            if (found / path.name).is_dir() and not path.exists():
                (found / path.name).rename(path)
            if found.is_dir():
                shutil.rmtree(found, ignore_errors=True)
            else:
                found.unlink()


def _mark(handle: int) -> None:
    """Lock a temporary file or folder for as long as this process lives, where the file system can."""
    with contextlib.suppress(OSError):
        _lock(handle)


def _lock(handle: int) -> None:
    try:
        import fcntl
    except ImportError as error:
        raise OSError(errno.ENOTSUP, "no file locks") from error
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _in_use(path: Path) -> bool:
    age = time.time() - path.lstat().st_mtime
    if age < _FRESH_S:
        return True
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            _lock(handle)
        finally:
            os.close(handle)
    except BlockingIOError:
        return True
    except OSError:
        return age < _FORGOTTEN_S
    return False


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or none."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON (UTF-8, indented, no NaN) whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, *, limit: int = 64 << 20, fix: str = "write the file again") -> Any:
    """Parse a JSON file of at most `limit` bytes.

    Args:
        fix: what to do where it is not JSON.

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
            fix=fix,
        ) from error
