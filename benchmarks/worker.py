"""One row's process: it loads one runtime at one precision and takes samples when it is told to.

Each row has a process of its own, also where two share a runtime: a crash then costs one row, and the memory of one
row is not mixed with another's. The protocol is one JSON object a line, commands on standard input, replies on the
original standard output. Both ends of it live here.

Started as `python -m benchmarks.worker`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.environment import system_busy_seconds
from hybridnets.errors import ExitCode, HnxError

__all__ = [
    "ChildWorker",
    "Session",
    "StopRule",
    "WarmUpRule",
    "Worker",
    "WorkerDiedError",
    "collect",
    "decode_jpeg",
    "main",
    "peak_memory_mb",
    "tensor_sha256",
    "warm_up",
]

Clock = Callable[[], int]
Stamps = tuple[int, ...]
STAGES = ("decode", "preprocess", "network", "postprocess")


# -- taking samples ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StopRule:
    """When a slice of samples ends: at both minima, or at the maximum.

    Attributes:
        count: samples at least.
        seconds: time at least.
        limit: time at most, in seconds; the sample under way is finished, so one sample is always taken.
    """

    count: int
    seconds: float
    limit: float

    def met(self, count: int, seconds: float) -> bool:
        """Enough, or no time left."""
        return (count >= self.count and seconds >= self.seconds) or seconds >= self.limit


@dataclass(frozen=True)
class WarmUpRule:
    """When a network counts as warm: the median of the last `window` samples lies within `tolerance` of that of the
    `window` before them. Given up after `iterations` or `seconds`, whichever comes first; a network so slow that it
    has not filled its two windows by then gets three times as long.
    """

    window: int = 5
    tolerance: float = 0.05
    iterations: int = 200
    seconds: float = 10.0

    def settled(self, samples: Sequence[int]) -> bool:
        """The rule is met by these samples."""
        if len(samples) < 2 * self.window:
            return False
        before = float(np.median(samples[-2 * self.window : -self.window]))
        return abs(float(np.median(samples[-self.window :])) - before) <= self.tolerance * before

    def given_up(self, count: int, seconds: float) -> bool:
        """No more samples, settled or not."""
        limit = self.seconds if count >= 2 * self.window else 3 * self.seconds
        return count >= self.iterations or seconds >= limit


def collect(step: Callable[[], Stamps], rule: StopRule, clock: Clock = time.perf_counter_ns) -> list[Stamps]:
    """Call `step` until the rule is met; it returns the nanosecond stamps between its stages, first and last too."""
    taken: list[Stamps] = []
    start = clock()
    while True:
        taken.append(step())
        if rule.met(len(taken), (clock() - start) / 1e9):
            return taken


def collect_parallel(
    steps: Sequence[Callable[[], Stamps]], rule: StopRule, clock: Clock = time.perf_counter_ns
) -> tuple[list[Stamps], float]:
    """`collect` with one thread for each step, all at once.

    Returns:
        All samples, and the completed requests per second while every thread was running: what a thread finishes
        after the first has stopped had more of the machine than its share.
    """
    taken: list[list[Stamps]] = [[] for _ in steps]
    errors: list[BaseException] = []
    finished = threading.Event()
    barrier = threading.Barrier(len(steps))
    start = [0] * len(steps)
    end = [0] * len(steps)

    def loop(index: int) -> None:
        try:
            barrier.wait()
            start[index] = clock()
            while not finished.is_set():
                taken[index].append(steps[index]())
                if rule.met(sum(map(len, taken)), (clock() - start[index]) / 1e9):
                    finished.set()
        except BaseException as error:
            errors.append(error)
            finished.set()
            barrier.abort()
        finally:
            end[index] = clock()

    threads = [threading.Thread(target=loop, args=(index,), daemon=True) for index in range(len(steps))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    samples = [stamps for thread_samples in taken for stamps in thread_samples]
    first_end = min(end)
    seconds = (first_end - min(start)) / 1e9
    return samples, sum(stamps[-1] <= first_end for stamps in samples) / seconds


def warm_up(
    step: Callable[[], Stamps], rule: WarmUpRule, clock: Clock = time.perf_counter_ns
) -> tuple[list[int], bool]:
    """Samples (nanoseconds) taken until the rule is met or given up, and whether it was met."""
    samples: list[int] = []
    start = clock()
    while True:
        stamps = step()
        samples.append(stamps[-1] - stamps[0])
        if rule.settled(samples):
            return samples, True
        if rule.given_up(len(samples), (clock() - start) / 1e9):
            return samples, False


def wait_idle(limit: float = 0.5, window: float = 0.01) -> bool:
    """Sleep until this process's threads sleep too: less than a tenth of a core busy; False at the limit (seconds).

    OpenMP's and ONNX Runtime's threads spin for milliseconds after the last call, Intel's for 200 ms. The next row
    must not share its cores with them.
    """
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        before, start = time.process_time_ns(), time.perf_counter_ns()
        time.sleep(window)
        if time.process_time_ns() - before < 0.1 * (time.perf_counter_ns() - start):
            return True
    return False


def peak_memory_mb() -> float | None:
    """Largest resident size of this process so far, in millions of bytes; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def decode_jpeg(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encoded bytes to BGR; the frames were decoded once before anything was measured, so they are good."""
    frame = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if frame is None:
        raise HnxError("A frame cannot be decoded", why="it changed since it was read", fix="measure again")
    return np.asarray(frame, np.uint8)


def tensor_sha256(tensor: NDArray[np.float32]) -> str:
    """Hex SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()


# -- the child's side ----------------------------------------------------------------------------------------


class Session:
    """What a child knows between commands. It does not know how they arrive."""

    def __init__(self) -> None:
        self._runtime: Any = None
        self._forward: list[Callable[[], Stamps]] = []
        self._end_to_end: list[Callable[[], Stamps]] = []
        self._probes: list[Any] = []
        self._outputs: dict[str, NDArray[Any]] = {}

    def handle(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one command; a failure is an answer too."""
        commands: dict[str, Callable[..., dict[str, Any]]] = {
            "probe": self.probe,
            "open": self.open,
            "warm_up": self.warm_up,
            "measure": self.measure,
            "finish": self.finish,
        }
        try:
            arguments = dict(message)
            return commands[arguments.pop("command")](**arguments)
        except HnxError as error:
            return _failure(error)
        except MemoryError:
            return _failure(
                HnxError("Not enough memory", fix="close other programs, or measure fewer runtimes at a time")
            )
        except Exception as error:
            return _failure(
                HnxError(
                    f"{type(error).__name__} while measuring",
                    why=str(error).strip()[:300],
                    fix="measure the other runtimes, and report this one",
                )
            )

    def probe(self, *, runtime: str) -> dict[str, Any]:
        """Can this runtime run here, and which precisions?"""
        from runtimes.registry import entry, probe

        found = probe(entry(runtime))
        return {
            "reason": found.reason,
            "fix": found.fix,
            "precisions": dict(found.precisions),
            "runnable": found.runnable(),
            "version": found.version,
        }

    def open(
        self,
        *,
        bundle: str,
        runtime: str,
        precision: str,
        threads: int,
        streams: int,
        frames: Sequence[str],
        conf: float,
        iou: float,
    ) -> dict[str, Any]:
        """Load the network, run it once, prepare the loops. Frames are files of JPEG bytes."""
        # hashes were compared by the parent: another 54 MB through SHA-256 would only warm the wrong caches
        from hybridnets.bundle import open_bundle

        return self.open_with(
            open_bundle(Path(bundle), verify=False),
            runtime=runtime,
            precision=precision,
            threads=threads,
            streams=streams,
            encoded=[np.frombuffer(Path(name).read_bytes(), np.uint8) for name in frames],
            conf=conf,
            iou=iou,
        )

    def open_with(
        self,
        bundle: Any,
        *,
        runtime: str,
        precision: str,
        threads: int,
        streams: int,
        encoded: Sequence[NDArray[np.uint8]],
        conf: float,
        iou: float,
    ) -> dict[str, Any]:
        """`open` with the bundle and the frames already in memory."""
        from runtimes.base import RuntimeOptions
        from runtimes.predictor import Pipeline
        from runtimes.registry import open_runtime

        # pre- and postprocessing run on OpenCV's threads: the same number for every row
        cv2.setNumThreads(threads)
        before = peak_memory_mb()
        # no model cache: loading is measured cold, apart from the operating system's file cache
        options = RuntimeOptions(precision=precision, threads=threads, streams=streams, cache_dir=None)
        start = time.perf_counter_ns()
        self._runtime = open_runtime(runtime, bundle, options)
        load = time.perf_counter_ns() - start
        after = peak_memory_mb()

        frame = decode_jpeg(encoded[0])
        pipelines = [Pipeline(self._runtime, conf=conf, iou=iou) for _ in range(streams)]
        # the preprocessor overwrites its buffer: the fixed input of the forward-only loop is a copy
        tensor = pipelines[0].preprocess(frame)[0].copy()
        start = time.perf_counter_ns()
        self._outputs = pipelines[0].network(tensor)
        first = time.perf_counter_ns() - start
        finite = self._finite()
        self._forward = [self._forward_step(pipeline, tensor) for pipeline in pipelines]
        self._end_to_end = [
            self._end_to_end_step(pipeline, encoded, offset) for offset, pipeline in enumerate(pipelines)
        ]
        execution = self._runtime.execution
        return {
            "load_ms": load / 1e6,
            "first_inference_ms": first / 1e6,
            "memory_mb": {"before_load": before, "after_load": after},
            "input_sha256": tensor_sha256(tensor),
            "finite": finite,
            "execution": {
                "precision": execution.precision,
                "device": execution.device,
                "threads": execution.threads,
                "library": execution.library,
                "details": dict(execution.details),
            },
        }

    def _finite(self) -> bool:
        return all(bool(np.isfinite(array).all()) for array in self._outputs.values())

    def _forward_step(self, pipeline: Any, tensor: NDArray[np.float32]) -> Callable[[], Stamps]:
        def step() -> Stamps:
            start = time.perf_counter_ns()
            self._outputs = pipeline.network(tensor)
            return start, time.perf_counter_ns()

        return step

    def _end_to_end_step(
        self, pipeline: Any, encoded: Sequence[NDArray[np.uint8]], offset: int
    ) -> Callable[[], Stamps]:
        position = offset

        def step() -> Stamps:
            nonlocal position
            data = encoded[position % len(encoded)]
            position += 1
            t0 = time.perf_counter_ns()
            frame = decode_jpeg(data)
            t1 = time.perf_counter_ns()
            tensor, box = pipeline.preprocess(frame)
            t2 = time.perf_counter_ns()
            outputs = pipeline.network(tensor)
            t3 = time.perf_counter_ns()
            pipeline.postprocess(outputs, box)
            return t0, t1, t2, t3, time.perf_counter_ns()

        return step

    def warm_up(self, *, window: int, tolerance: float, iterations: int, seconds: float) -> dict[str, Any]:
        """Forward-only samples until the rule is met; then the whole pipeline twice, for its own buffers."""
        samples, stable = warm_up(self._forward[0], WarmUpRule(window, tolerance, iterations, seconds))
        _discard(self._end_to_end, 2)
        return {"samples_ns": samples, "stable": stable, "idle": wait_idle()}

    def measure(
        self, *, kind: str, count: int, seconds: float, limit: float, discard: int, pause: float
    ) -> dict[str, Any]:
        """A pause, `discard` unrecorded iterations, then a slice of samples of `forward` or `end_to_end`."""
        steps = self._forward if kind == "forward" else self._end_to_end
        time.sleep(pause)
        _discard(steps, discard)
        rule = StopRule(count, seconds, limit)
        busy, cpu, start = system_busy_seconds(), time.process_time(), time.perf_counter()
        per_second: float | None = None
        if len(steps) == 1:
            stamps = collect(steps[0], rule)
        else:
            stamps, per_second = collect_parallel(steps, rule)
        wall, own, busy_after = time.perf_counter() - start, time.process_time() - cpu, system_busy_seconds()
        foreign = None if busy is None or busy_after is None else busy_after - busy - own
        reply: dict[str, Any] = {
            "total_ns": [stamp[-1] - stamp[0] for stamp in stamps],
            "per_second": per_second,
            "wall_s": wall,
            "foreign_s": foreign,
        }
        if kind == "end_to_end":
            for index, stage in enumerate(STAGES):
                reply[f"{stage}_ns"] = [stamp[index + 1] - stamp[index] for stamp in stamps]
        reply["idle"] = wait_idle()
        return reply

    def finish(self) -> dict[str, Any]:
        """Peak memory and whether the last outputs are finite; the network is freed."""
        reply = {"peak_mb": peak_memory_mb(), "finite": self._finite()}
        self._forward, self._end_to_end, self._outputs = [], [], {}
        if self._runtime is not None:
            self._runtime.close()
        return reply


def _discard(steps: Sequence[Callable[[], Stamps]], count: int) -> None:
    """Unrecorded calls, `count` for each step, side by side as they will be measured."""
    if len(steps) > 1 and count:
        collect_parallel(steps, StopRule(count * len(steps), 0.0, math.inf))
        return
    for _ in range(count):
        steps[0]()


def _failure(error: HnxError) -> dict[str, Any]:
    return {"error": {"what": error.what, "why": error.why, "fix": error.fix, "code": int(error.code)}}


def main() -> None:
    """Serve commands until standard input ends.

    A thread reads them, so that the end of the parent (which closes the pipe, however it died) ends this process at
    once, even in the middle of a measurement.
    """
    # Ctrl-C goes to the whole terminal: the parent decides what becomes of us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # libraries print to standard output, some of them in C: whatever they say goes to standard error instead
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            commands.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    session = Session()
    while True:
        message = json.loads(commands.get())
        replies.write(json.dumps(session.handle(message), default=str) + "\n")
        replies.flush()


# -- the parent's side ---------------------------------------------------------------------------------------


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
        root = Path(__file__).resolve().parent.parent
        paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # -m puts the current folder first on the path: one of the user's with a file numpy.py would break us
            cwd=root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"},
            # out of the terminal's group: Ctrl-C reaches the parent alone, which then ends us in order
            start_new_session=True,
        )
        self._replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

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
            line = self._replies.get(timeout=timeout)
        except queue.Empty:
            self.close()
            raise WorkerDiedError(
                "The process was silent",
                why=f"no answer to {command!r} within {timeout:.0f} s",
                fix="measure this runtime alone with a larger --max-time",
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
        for stream in (self._process.stdin, self._process.stdout, self._errors):
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


if __name__ == "__main__":
    main()
