"""What the child's side of every measurement shares: commands come in, replies go out, one JSON object a line.

The parent's side is `benchmarks.children`.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from hybridnets.errors import HnxError

__all__ = ["answer", "probe", "serve"]

Command = Callable[..., dict[str, Any]]


def answer(commands: Mapping[str, Command], message: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to one message, `{"command": name, **arguments}`; a failure is a reply too."""
    try:
        arguments = dict(message)
        return commands[arguments.pop("command")](**arguments)
    except HnxError as error:
        return _failure(error)
    except MemoryError:
        return _failure(HnxError("Not enough memory", fix="close other programs, or measure fewer runtimes at a time"))
    except Exception as error:
        return _failure(
            HnxError(
                f"{type(error).__name__} while measuring",
                why=str(error).strip()[:300],
                fix="measure the other runtimes, and report this one",
            )
        )


def probe(*, runtime: str) -> dict[str, Any]:
    """Command of every child: can this runtime run here, and which precisions?"""
    from runtimes.machine import probe_here
    from runtimes.registry import entry

    return probe_here(entry(runtime))


def serve(handle: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    """Answer commands until standard input ends.

    A thread reads them, so that the end of the parent (which closes the pipe, however it died) ends this process at
    once, even in the middle of a measurement.
    """
    # Ctrl-C goes to the whole terminal: the parent decides what becomes of us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # libraries fork (OpenVINO's telemetry does when it is imported): their child closes sys.stdin, and would wait
    # for ever for the lock that our reading thread holds; so that thread reads something else
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    # libraries print to standard output, some of them in C: whatever they say goes to standard error instead
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in requests:
            commands.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        message = json.loads(commands.get())
        replies.write(json.dumps(handle(message), default=str) + "\n")
        replies.flush()


def _failure(error: HnxError) -> dict[str, Any]:
    return {"error": {"what": error.what, "why": error.why, "fix": error.fix, "code": int(error.code)}}
