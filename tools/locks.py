"""Who else writes to a data set: a lock on its folder, which the system drops however a process ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["FolderLock"]


class FolderLock:
    """Held until it is closed. Where there are no locks (some network file systems, Windows) everybody is alone.

    Attributes:
        alone: nobody else held the folder when this was made, and nobody gets it until `share` or `close`.

    Raises:
        OSError: the folder cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._handle: int | None = os.open(folder, os.O_RDONLY)
        self.alone = self._lock("LOCK_EX", "LOCK_NB")

    def share(self) -> None:
        """Hold the folder together with others who share it; waits for one who is alone."""
        self._lock("LOCK_SH")
        self.alone = False

    def close(self) -> None:
        """Let go."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = None

    def _lock(self, *flags: str) -> bool:
        try:
            import fcntl
        except ImportError:
            return True
        assert self._handle is not None
        try:
            fcntl.flock(self._handle, sum(getattr(fcntl, flag) for flag in flags))
        except BlockingIOError:
            return False
        except OSError:  # not supported
            return True
        return True
