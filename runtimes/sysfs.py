"""Small files of /sys, /proc and /etc: missing, unreadable and vanishing ones are an ordinary case."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Tree"]

_EDGES = "\0 \t\r\n"  # the device tree ends its strings with a zero byte
_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")


@dataclass(frozen=True)
class Tree:
    """The files below a root.

    Attributes:
        root: where `sys`, `proc` and `etc` lie; another one than `/` for tests, and for a container that has its host's
            files mounted somewhere.
    """

    root: Path = Path("/")

    def read(self, path: str | Path) -> str:
        """Text of a file, without white space and zero bytes around it.

        Args:
            path: below the root, or what `glob` returned.

        Raises:
            OSError: it cannot be read, for whatever reason.
        """
        return (self.root / path).read_bytes().decode(errors="replace").strip(_EDGES)

    def text(self, path: str | Path) -> str | None:
        """`read`, or None."""
        try:
            return self.read(path)
        except (OSError, ValueError):
            return None

    def number(self, path: str | Path) -> float | None:
        """The first word of a file as a number, or None: some drivers write `32760 ma`."""
        try:
            return float((self.text(path) or "").split()[0])
        except (ValueError, IndexError):
            return None

    def glob(self, pattern: str) -> list[Path]:
        """Paths below the root that match, sorted; empty where a folder is missing or closed to us."""
        try:
            return sorted(self.root.glob(pattern))
        except (OSError, ValueError):
            return []

    def which(self, name: str) -> str | None:
        """A program: on the path, or below another root in its usual folders; None where there is none."""
        if self.root == Path("/"):
            return shutil.which(name)
        return shutil.which(name, path=os.pathsep.join(str(self.root / folder) for folder in _FOLDERS))
