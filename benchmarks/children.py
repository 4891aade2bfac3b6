"""The parent's side of a row's process: start it, talk to it, notice its death, end it.

The protocol is one JSON object a line, commands on its standard input, replies on its standard output; the child's side
is `benchmarks.worker`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

from benchmarks.surroundings import ROOT, with_root
from hybridnets.errors import ExitCode, HnxError

__all__ = ["ChildWorker", "Worker", "WorkerDiedError", "checked", "closing_all", "probe_apart"]

LOOK_S = 1.0  # how often a silent child is looked after
ORPHANS_S = 2.0  # a pipe without writers ends at once
PROBE_TIMEOUT_S = 120.0  # to import a library; torch from a cold disk took 20 s


class WorkerDiedError(HnxError):
    """A child ended or fell silent while it was needed."""


class Worker(Protocol):
    """The parent's view of a row's process."""

    def call(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its reply.

        Raises:
            HnxError: the command failed; WorkerDiedError: the child is gone or silent for `timeout` seconds.
        """
        ...

    def close(self) -> None:
        """End it; never fails."""
        ...


def checked(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The reply, or its failure raised as HnxError."""
    error = reply.get("error")
    if error is not None:
        raise HnxError(error["what"], why=error["why"], fix=error["fix"], code=ExitCode(error["code"]))
    return dict(reply)


class ChildWorker:
    """A child process over pipes. It dies with its parent: see `main`.

    Args:
        arguments: of the Python interpreter, for tests; default this module.
    """

    def __init__(self, arguments: Sequence[str] = ("-m", "benchmarks.worker")) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # -m puts the current folder first on the path: one of the user's with a file numpy.py would break us
            cwd=ROOT,
            env=with_root(PYTHONIOENCODING="utf-8"),
            # out of the terminal's group: Ctrl-C reaches the parent alone, which then ends us in order
            start_new_session=True,
        )
        self._replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with contextlib.suppress(ValueError, OSError):  # closed under our hands
            for line in stream:
                self._replies.put(line)
        self._replies.put(b"")

    def call(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """See `Worker.call`."""
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):  # the reply says how it died
            stream.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            stream.flush()
        try:
            line = self._next(timeout)
        except queue.Empty:
            self.close()
            raise WorkerDiedError(
                "The process was silent",
                why=f"no answer to {command!r} within {timeout:.0f} s",
                fix="measure this runtime alone, or the other ones",
            ) from None
        if not line:
            raise self._death(command)
        try:
            return checked(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            self.close()
            raise WorkerDiedError(
                "The process answered nonsense", why=str(error)[:200], fix="measure the other runtimes"
            ) from error

    def _next(self, timeout: float) -> bytes:
        """The next line; empty when the child is gone.

        Raises:
            queue.Empty: none within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while True:
            # what it forked may hold the pipe open after its death
            gone = self._process.poll() is not None
            left = end - time.monotonic()
            try:
                return self._replies.get(timeout=max(0.0, min(left, LOOK_S)))
            except queue.Empty:
                if gone:
                    return b""
                if left <= LOOK_S:
                    raise

    def _death(self, command: str) -> WorkerDiedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.poll()
        why, fix = f"exit status {code}", "measure the other runtimes; reinstall this one's library"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                why = f"signal {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                why += ", as the kernel does when memory is full"
                fix = "close other programs, or measure fewer runtimes at a time"
        last = self._last_words()
        return WorkerDiedError(
            f"The process died during {command!r}", why=f"{why}{': ' if last else ''}{last}", fix=fix
        )

    def _last_words(self) -> str:
        """Last line of what it wrote to standard error, cut to 200 characters."""
        with contextlib.suppress(OSError, ValueError):
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - 4096))
            lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
            return lines[-1][:200] if lines else ""
        return ""

    def close(self) -> None:
        """See `Worker.close`."""
        with contextlib.suppress(OSError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._reader.join(ORPHANS_S)
        if self._reader.is_alive():
            # something that it forked holds the pipe; it leads a group of its own, which outlives it
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._reader.join(ORPHANS_S)
        # to close a pipe that is being read would wait for ever
        replies = None if self._reader.is_alive() else self._process.stdout
        for stream in (self._process.stdin, replies, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()


@contextlib.contextmanager
def closing_all(workers: Sequence[Worker]) -> Iterator[None]:
    """Close every worker that the list holds at the end, whatever happens."""
    try:
        yield
    finally:
        for worker in workers:
            worker.close()


def probe_apart(runtime: str, start: Callable[[], Worker] = ChildWorker) -> dict[str, Any]:
    """What a child finds out about a runtime, as `runtimes.machine.probe_here`; its death is a finding too."""
    worker = start()
    try:
        return worker.call("probe", PROBE_TIMEOUT_S, runtime=runtime)
    except HnxError as error:
        reason = ": ".join(filter(None, [error.what, error.why]))
        fix = "reinstall its library; it may be built for another processor"
        return {"version": "", "runnable": [], "precisions": {}, "reason": reason, "fix": fix}
    finally:
        worker.close()
