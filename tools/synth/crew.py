"""Worker processes that each write a share of the scenes."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import cv2

from hybridnets.errors import ExitCode, HnxError
from tools.synth.config import SynthConfig
from tools.synth.writing import write_scene

__all__ = ["Job", "write_all"]

Job = tuple[str, int]  # split, index
_GRACE_S = 10.0  # a scene takes a third of a second; a disk may be slow


def write_all(config: SynthConfig, jobs: Sequence[Job]) -> Iterator[Job]:
    """Write scenes and yield each when its files are whole. Closing the iterator ends the workers in order.

    Raises:
        HnxError: a file cannot be written, or a worker died.
    """
    count = min(config.processes, len(jobs))
    if count <= 1:
        with _one_thread():
            for job in jobs:
                write_scene(config, *job)
                yield job
        return
    members = _start(config, [list(jobs[i::count]) for i in range(count)])
    try:
        yield from _collect(members)
    finally:
        _end(members)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV's own threads gain nothing here and would fight with other workers."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@dataclass
class _Member:
    process: SpawnProcess
    replies: Connection
    done: bool = False


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes started in this block ignore Ctrl-C from their first instruction: the parent ends them in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start(config: SynthConfig, shares: Sequence[Sequence[Job]]) -> list[_Member]:
    context = multiprocessing.get_context("spawn")
    members: list[_Member] = []
    with _deaf():
        for share in shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, config, list(share)), daemon=True)
            process.start()
            theirs.close()  # so that the pipe ends when the worker does
            members.append(_Member(process, ours))
    return members


def _work(pipe: Connection, config: SynthConfig, jobs: list[Job]) -> None:
    """A worker: write scenes until all are written or the parent has spoken or gone."""
    cv2.setNumThreads(1)
    try:
        for job in jobs:
            if pipe.poll():
                return
            write_scene(config, *job)
            pipe.send(job)
        pipe.send(None)
    except HnxError as error:
        with contextlib.suppress(OSError):
            pipe.send(error)
    except (OSError, EOFError):  # the parent is gone
        return


def _collect(members: Sequence[_Member]) -> Iterator[Job]:
    while waiting := [member for member in members if not member.done]:
        ready = wait([member.replies for member in waiting])
        for member in waiting:
            if member.replies not in ready:
                continue
            try:
                reply = member.replies.recv()
            except (EOFError, OSError):
                raise _death(member) from None
            if reply is None:
                member.done = True
            elif isinstance(reply, HnxError):
                raise reply
            else:
                yield reply


def _death(member: _Member) -> HnxError:
    member.process.join(_GRACE_S)
    code = member.process.exitcode
    how = f"exit code {code}"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
    return HnxError(
        "A worker process ended before its work was done",
        why=f"{how}; SIGKILL is often the system running out of memory, a worker takes about 300 MB",
        fix="run the same command again, it goes on where it stopped; use fewer --workers",
        code=ExitCode.FAILED,
    )


def _end(members: Sequence[_Member]) -> None:
    """Let every worker finish its scene, then make sure that it is gone."""
    for member in members:
        with contextlib.suppress(OSError, ValueError):
            member.replies.send("stop")
    for member in members:
        member.process.join(_GRACE_S)
        if member.process.is_alive():
            member.process.kill()
            member.process.join()
        member.replies.close()
