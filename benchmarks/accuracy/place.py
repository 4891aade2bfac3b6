"""Where the store may lie."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hybridnets.errors import from_os_error
from hybridnets.files import temporary_directory

__all__ = ["usable_store"]

_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def usable_store(folder: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """The folder, or a temporary one where this disk may not be written: an evaluation needs no more than that.

    Args:
        say: is told when an interrupted run could not go on.

    Raises:
        HnxError: any other trouble, such as a full disk, or a file in the way.
    """
    try:
        # missing folders are made later: the nearest one that exists must let us
        nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise from_os_error(f"Cannot use the store {folder}", error) from error
        reason = from_os_error("", OSError(error.errno, error.strerror)).why
        say(f"{folder} cannot be written ({reason}): nothing is kept, so this run cannot go on after an interruption")
        with temporary_directory("hnx-eval-") as temporary:
            yield temporary
        return
    yield folder
