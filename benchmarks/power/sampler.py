"""Reading something over and over in a thread, while other processes work.

A thread is enough: rows run in processes of their own, and this one only waits for their answers meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from benchmarks.power.reading import Unreadable
from hybridnets.errors import first_line

__all__ = ["Sampler"]

T = TypeVar("T")

# A file may be away for a moment (a sensor in use, a GPU that wakes up); after this many failures on end it is gone.
FAILURES = 10
# what a reader that waits for itself gets after a failure, so that failures do not spin
PAUSE_S = 0.05


class Sampler(Generic[T]):
    """Readings from when it is started until it is stopped.

    Args:
        read: takes one reading; whatever it raises counts as a failure.
        interval_s: from the beginning of one reading to that of the next; 0 where `read` waits itself.

    Attributes:
        taken: the readings so far, in order.
        problem: why no more are taken; empty while they are.
        cpu_s: what reading cost, known once it is stopped.
    """

    def __init__(self, read: Callable[[], T], interval_s: float) -> None:
        self._read, self._interval_s = read, interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.taken: list[T] = []
        self.problem = ""
        self.cpu_s = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float = 6.0) -> None:
        """End; a reader that hangs is left alone after `timeout` seconds."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            start = time.monotonic()
            try:
                reading = self._read()
            except Exception as error:
                failures += 1
                if failures >= FAILURES:
                    self.problem = error.reason if isinstance(error, Unreadable) else first_line(error)
                    break
                self._stop.wait(PAUSE_S)
            else:
                failures = 0
                self.taken.append(reading)
            self._stop.wait(max(0.0, start + self._interval_s - time.monotonic()))
        self.cpu_s = time.thread_time()
