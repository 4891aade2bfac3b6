"""Processes of this machine, as /proc shows them."""

from __future__ import annotations

import os
from pathlib import Path


def alive(process: int) -> bool:
    """A process that has ended and waits for its entry to be removed is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(parent: int | None = None) -> set[int]:
    """Process ids of the living children of a process."""
    parent = os.getpid() if parent is None else parent
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.add(int(path.parent.name))
    return found
