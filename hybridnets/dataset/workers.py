"""A function over many items in several processes: results in order, bounded memory, no child left behind.

Processes of our own over pipes instead of `multiprocessing`: they do not run the caller's script again, files of the
working folder are not imported, signals to a terminal or a process group reach the parent alone, a dead one is noticed
at once, and they end when their parent dies, however it dies (what they are at is finished first). Results
come through memory without a name: a 1280x720 sample costs the taker 0.7 ms, through a pipe 5 (of 10 to read it), and
named shared memory outlives a kill -9 and is limited to 64 MB in containers.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from hybridnets.dataset.arena import Arena, make_arena
from hybridnets.errors import HnxError

__all__ = ["available_cores", "default_workers", "ordered_map"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """One process for each core this process may use, at most 8."""
    return min(available_cores(), 8)


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, prefetch: int, grace_s: float = 0.0
) -> Generator[Result, None, None]:
    """`function` of each item, in the order of the items.

    Args:
        function: picklable by name, with its arguments (a bound method of a picklable object will do).
        items: picklable; taken one by one when they are needed. Their str() names them in errors.
        workers: processes; 0 computes here, when the result is asked for.
        prefetch: results that exist or are being made at a time, at most; not below `workers`.
        grace_s: how long a process may take to finish its item when the generator is closed or fails; then, and by
            default at once, it is killed. For functions that write files.

    Raises:
        HnxError: a process died. What `function` raises is raised here.
    """
    if workers == 0:
        yield from map(function, items)
        return
    with contextlib.ExitStack() as stack:
        team = _Team(function, workers, grace_s, stack)
        source, more = iter(items), True
        done: dict[int, Result] = {}
        sent = wanted = 0
        while True:
            while more and sent - wanted < prefetch and team.has_room():
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                    break
                team.send(sent, item)
                sent += 1
            if wanted == sent:
                return
            # without waiting when the next result is there: then only to keep the others busy
            arrived = team.receive(wait=wanted not in done)
            done.update(arrived)
            if wanted in done and not arrived:
                yield done.pop(wanted)
                wanted += 1


def _has_stderr() -> bool:
    """Not when the caller closed it (2>&-); what Python opened in its place is not passed on."""
    try:
        return os.get_inheritable(2)
    except OSError:
        return False


class _Child(Generic[Item, Result]):
    """One process; works on at most one item at a time."""

    def __init__(self, function: Callable[[Item], Result], grace_s: float) -> None:
        self._grace_s = grace_s
        root = Path(__file__).resolve().parents[2]
        paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.arena = make_arena()
        descriptors = [] if self.arena is None else [self.arena.descriptor]
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from hybridnets.dataset.workers import main; main()", *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if _has_stderr() else subprocess.DEVNULL,
            cwd=root,  # the current folder comes first on the path: a file numpy.py there would break us
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends us
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.index: int | None = None
        self.item: Item | None = None
        try:
            self._write((os.getcwd(), sys.path, pickle.dumps(function)))  # noqa: PTH109
        except BaseException:  # Ctrl-C, too: nobody knows of this process yet
            self.close()
            raise

    def _write(self, value: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # receive() says how it died
            pickle.dump(value, self.stdin, protocol=5)
            self.stdin.flush()

    def send(self, index: int, item: Item) -> None:
        self.index, self.item = index, item
        self._write(item)

    def receive(self) -> tuple[int, Result]:
        index = self.index
        assert index is not None
        try:
            good, pickled, sizes = pickle.load(self.stdout)
        except (EOFError, pickle.UnpicklingError) as error:
            raise self._death() from error
        self.index = None
        value = pickle.loads(pickled, buffers=self.arena.take(sizes) if self.arena is not None else ())
        if not good:
            raise value
        return index, value

    def _death(self) -> HnxError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        code = self.process.poll()
        why, fix = f"exit status {code}", f"try that file alone: it was working on {self.item}"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                why = f"signal {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                why += ", as the kernel does when memory is full"
                fix = "close other programs, or use fewer workers, and run it again"
        return HnxError(f"A worker process died while it was working on {self.item}", why=why, fix=fix)

    def close(self) -> None:
        for stream in (self.stdin, self.stdout):  # it ends when it has finished its item and finds no other
            with contextlib.suppress(OSError):
                stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(self._grace_s if self.index is not None else 0)
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        if self.arena is not None:
            self.arena.close()


class _Team(Generic[Item, Result]):
    """The processes of one map; each is started when there is an item for it."""

    def __init__(
        self, function: Callable[[Item], Result], count: int, grace_s: float, stack: contextlib.ExitStack
    ) -> None:
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._function, self._missing, self._grace_s, self._stack = function, count, grace_s, stack
        self._idle: list[_Child[Item, Result]] = []

    def has_room(self) -> bool:
        return bool(self._idle) or self._missing > 0

    def send(self, index: int, item: Item) -> None:
        (self._idle.pop() if self._idle else self._start()).send(index, item)

    def _start(self) -> _Child[Item, Result]:
        child: _Child[Item, Result] = _Child(self._function, self._grace_s)
        self._missing -= 1
        self._stack.callback(child.close)
        self._selector.register(child.stdout, selectors.EVENT_READ, child)
        return child

    def receive(self, *, wait: bool) -> dict[int, Result]:
        """What has arrived; at least one result with `wait`."""
        arrived: dict[int, Result] = {}
        for key, _ in self._selector.select(None if wait else 0):
            child = key.data
            index, value = child.receive() if child.index is not None else self._early_death(child)
            arrived[index] = value
            self._idle.append(child)
        return arrived

    @staticmethod
    def _early_death(child: _Child[Item, Result]) -> tuple[int, Result]:
        child.item = None
        raise child._death()


def _serve(requests: BinaryIO, replies: BinaryIO, arena: Arena | None) -> None:
    """The child's side: function, then one item after the other, until the parent closes the pipe."""
    folder, path, pickled = pickle.load(requests)
    sys.path[:] = path
    function = pickle.loads(pickled)
    os.chdir(folder)
    while True:
        try:
            item = pickle.load(requests)
        except EOFError:
            return
        good, value = True, None
        try:
            value = function(item)
        except Exception as error:
            good, value = False, error
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(value, protocol=5, buffer_callback=None if arena is None else buffers.append)
        sizes = [] if arena is None else arena.put(buffers)
        pickle.dump((good, pickled, sizes), replies, protocol=5)
        replies.flush()


def main() -> None:
    """Entry of a worker process."""
    # what libraries print must not get between the replies
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(BrokenPipeError, EOFError, pickle.UnpicklingError):  # the parent is gone
        import cv2

        cv2.setNumThreads(1)  # there is a process on every core
        _serve(sys.stdin.buffer, replies, Arena(int(sys.argv[1])) if len(sys.argv) > 1 else None)
    os._exit(0)  # nothing to flush: whatever is left in the buffers has no reader
