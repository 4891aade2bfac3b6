"""Reading processes end when the process they read for does, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """Called in a child of multiprocessing: end it at once when the process that asked for it is gone.

    torch's workers look after their parent by its number, which under the start method forkserver is the server's; and
    the server lives as long as a worker does. So after a `kill -9` both would stay for ever, 430 MB of them.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
