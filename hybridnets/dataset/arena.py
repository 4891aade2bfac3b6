"""Memory that two processes share without a name: it needs no cleaning up, and no space in /dev/shm."""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Sequence

__all__ = ["Arena", "make_arena"]


class Arena:
    """Anonymous shared memory of Linux behind a file descriptor; grows as needed.

    One side puts, tells the other the sizes, and puts again only after the other has taken.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    def _view(self, size: int) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            if self._map is not None:
                self._map.close()
            self._map = mmap.mmap(self.descriptor, size)
        return self._map

    def put(self, buffers: Sequence[pickle.PickleBuffer]) -> list[int]:
        """Copy buffers one behind the other; their sizes."""
        views = [buffer.raw() for buffer in buffers]
        sizes = [view.nbytes for view in views]
        total = sum(sizes)
        if total:
            if os.fstat(self.descriptor).st_size < total:
                os.ftruncate(self.descriptor, total)
            target, start = self._view(total), 0
            for view in views:
                target[start : start + view.nbytes] = view
                start += view.nbytes
        return sizes

    def take(self, sizes: Sequence[int]) -> list[bytearray]:
        """Copies of what was put."""
        taken, start = [], 0
        if not sum(sizes):
            return [bytearray() for _ in sizes]
        with memoryview(self._view(sum(sizes))) as view:
            for size in sizes:
                taken.append(bytearray(view[start : start + size]))
                start += size
        return taken

    def close(self) -> None:
        """Give this side's hold up; the memory goes with the last one."""
        if self._map is not None:
            self._map.close()
            self._map = None
        os.close(self.descriptor)


def make_arena() -> Arena | None:
    """A new one, where the system has such memory."""
    if not hasattr(os, "memfd_create"):
        return None
    import fcntl

    try:
        descriptor = os.memfd_create("hnx-samples")
        if descriptor < 3:  # a standard stream is closed: its number means something else to a child
            low, descriptor = descriptor, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(low)
        return Arena(descriptor)
    except OSError:
        return None
