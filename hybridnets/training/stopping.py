"""Ctrl-C and polite kills: the step under way ends, the state is written, then the run does."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["StopRequest", "listening"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# `timeout` signals its child and then the whole group, torchrun passes on what the terminal has sent already: one
# wish, two signals
_SAME_S = 2.0


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def listening(on_first: Callable[[], None] = lambda: None) -> Iterator[StopRequest]:
    """Turn the first signal into a request; a later one interrupts at once.

    Does nothing outside the main thread, where Python delivers no signals.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    first = 0.0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not request.asked:
            request.asked, first = True, time.monotonic()
            on_first()
        elif time.monotonic() - first > _SAME_S:
            raise KeyboardInterrupt

    before: dict[int, Any] = {}
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            before[number] = signal.signal(number, handler)
    try:
        yield request
    finally:
        for number, old in before.items():
            signal.signal(number, old)
