"""Frames through a network with decoding, inference and writing side by side.

One thread decodes and preprocesses, one or more run the network and postprocess, one draws and writes; the caller's
thread waits, so that Ctrl-C always reaches it. Every wait looks at one stop event at least every 50 ms: no
exception, in whatever thread, leaves another one waiting for ever.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import ExitCode, HnxError
from hybridnets.postprocess import Prediction
from hybridnets.preprocess import Letterbox
from hybridnets.sources import Frame

__all__ = [
    "Preprocess",
    "Result",
    "Stages",
    "StopStream",
    "StreamInterrupted",
    "StreamSummary",
    "run_stages",
    "run_stream",
]

Preprocess = Callable[[NDArray[Any]], tuple[NDArray[np.float32], Letterbox]]

QUEUE_SIZE = 4
# pictures waiting anywhere between decoding and writing: 90 frames of 1280x720, but only one of 12000x9000
MEMORY_BUDGET = 256 << 20
_TICK_S = 0.05


class Stages(Protocol):
    """The two stages of a worker; `runtimes.predictor.Pipeline` has them."""

    def network(self, tensor: NDArray[np.float32], /) -> dict[str, NDArray[Any]]:
        """Raw outputs; they may be overwritten by the next call."""

    def postprocess(self, outputs: dict[str, NDArray[Any]], box: Letterbox, /) -> Prediction:
        """Arrays of its own, which outlive the next call."""


class _Runtime(Protocol):
    @property
    def name(self) -> str: ...


class _Bundle(Protocol):
    def preprocessor(self) -> Preprocess: ...


class StreamPredictor(Protocol):
    """What `run_stream` needs of `runtimes.predictor.Predictor`."""

    @property
    def runtime(self) -> _Runtime: ...

    @property
    def bundle(self) -> _Bundle: ...

    def pipeline(self) -> Stages: ...


@dataclass(frozen=True)
class Result:
    """A frame and what the network says about it."""

    frame: Frame
    prediction: Prediction


@dataclass(frozen=True)
class StreamSummary:
    """What a run did.

    Attributes:
        frames: frames that were consumed.
        seconds: from the first read to the last write.
        stage_ms: mean ms per frame of decode, preprocess, network, postprocess and write. The stages overlap: their
            sum is more than the time per frame.
        interrupted: the user stopped it.
    """

    frames: int
    seconds: float
    stage_ms: dict[str, float]
    interrupted: bool = False

    @property
    def fps(self) -> float:
        """Frames per second, everything included."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


class StopStream(Exception):  # noqa: N818 - a request, no error; named as StopIteration is
    """Raised by a consumer that has seen enough: the run ends well."""


class StreamInterrupted(KeyboardInterrupt):
    """Ctrl-C, after all threads have ended; `summary` says how far the run had come."""

    def __init__(self, summary: StreamSummary) -> None:
        super().__init__()
        self.summary = summary


@dataclass
class _Job:
    number: int
    frame: Frame
    tensor: NDArray[np.float32]
    box: Letterbox
    preprocess: Preprocess  # owns the tensor


class _Stopped(Exception):  # noqa: N818
    """Another thread has ended the run."""


@dataclass
class _Run:
    """What the threads share."""

    jobs: queue.Queue[_Job | None]
    results: queue.Queue[tuple[int, Result] | None]
    spare: queue.Queue[Preprocess]
    stop: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    frames: int = 0
    spent_ns: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, source: queue.Queue[Any]) -> Any:
        while not self.stop.is_set():
            with contextlib.suppress(queue.Empty):
                return source.get(timeout=_TICK_S)
        raise _Stopped

    def put(self, target: queue.Queue[Any], item: Any) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(queue.Full):
                return target.put(item, timeout=_TICK_S)
        raise _Stopped

    def fail(self, error: BaseException, *, drain: bool = False) -> None:
        """Keep the first error, and stop all threads unless the frames under way shall be finished."""
        with self.lock:
            if self.error is None and not self.stop.is_set():
                self.error = error
        if not drain:
            self.stop.set()

    def spend(self, stage: str, start_ns: int) -> int:
        """Book the time since `start_ns`; returns now."""
        now = time.perf_counter_ns()
        with self.lock:
            self.spent_ns[stage] = self.spent_ns.get(stage, 0) + now - start_ns
            self.counts[stage] = self.counts.get(stage, 0) + 1
        return now


class _Budget:
    """Limits the frames that are under way, by number and by bytes; one is always allowed."""

    def __init__(self, run: _Run, frames: int, size: int) -> None:
        self._run, self._frames, self._size = run, frames, size
        self._used: dict[int, int] = {}
        self._change = threading.Condition()

    def acquire(self, number: int, size: int) -> None:
        with self._change:
            while self._used and (len(self._used) >= self._frames or sum(self._used.values()) + size > self._size):
                if self._run.stop.is_set():
                    raise _Stopped
                self._change.wait(_TICK_S)
            self._used[number] = size

    def release(self, number: int) -> None:
        with self._change:
            self._used.pop(number, None)
            self._change.notify()


def run_stream(
    predictor: StreamPredictor,
    frames: Iterable[Frame],
    consume: Callable[[Result], object],
    *,
    workers: int = 1,
) -> StreamSummary:
    """Run frames through a predictor and hand each result, in order, to `consume`.

    Args:
        predictor: open; every worker gets a pipeline of its own.
        frames: read in one thread, for example a `hybridnets.sources.Source`.
        consume: called in one other thread, never twice at a time; may raise `StopStream`.
        workers: inferences side by side. One is right on a CPU that a single inference fills; two fill the gaps
            of an accelerator.

    Returns:
        Counts and times.

    Raises:
        StreamInterrupted: Ctrl-C; all threads have ended and every result so far is consumed.
        Exception: whatever reading, the network or `consume` raised, first come; all threads have ended.
    """
    if workers < 1:
        raise HnxError(f"{workers} workers", why="it counts from 1", fix="use --workers 1", code=ExitCode.USAGE)
    # Decoding, drawing and preprocessing take a few ms per frame: their OpenCV helper threads would only push the
    # network's off the cores. The DNN module of OpenCV has no other threads than these.
    limit = predictor.runtime.name != "opencv-dnn"
    with _opencv_threads(1) if limit else contextlib.nullcontext():
        pipelines = [predictor.pipeline() for _ in range(workers)]
        return run_stages(frames, predictor.bundle.preprocessor, pipelines, consume)


def run_stages(
    frames: Iterable[Frame],
    preprocessor: Callable[[], Preprocess],
    pipelines: Sequence[Stages],
    consume: Callable[[Result], object],
    *,
    queue_size: int = QUEUE_SIZE,
) -> StreamSummary:
    """`run_stream` in parts: one worker for each of `pipelines`, whatever they are.

    Args:
        preprocessor: makes objects that turn a frame into a tensor of their own buffer and its geometry.
    """
    run = _Run(queue.Queue(queue_size), queue.Queue(queue_size), queue.Queue())
    # one tensor being filled, those waiting, and one in every worker: a ring of buffers spares a copy of 3 MB a frame
    for _ in range(1 + queue_size + len(pipelines)):
        run.spare.put(preprocessor())
    # a worker that is slow with one frame must not let the others pile up results behind it
    budget = _Budget(run, 2 * queue_size + len(pipelines), MEMORY_BUDGET)
    bodies: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (_read, (frames, budget, len(pipelines))),
        *((_work, (pipeline,)) for pipeline in pipelines),
        (_write, (consume, budget, len(pipelines))),
    ]
    # Events of our own: a Thread.join or is_alive that Ctrl-C interrupts marks the running thread as ended
    # (bpo-45274 up to Python 3.12), and the caller would close the files that it still writes
    ends = [threading.Event() for _ in bodies]
    threads = [
        threading.Thread(target=_guard, args=(run, end, body, *args), name=f"hnx{body.__name__}", daemon=True)
        for end, (body, args) in zip(ends, bodies, strict=True)
    ]
    start = time.perf_counter_ns()
    interrupted = False
    try:
        for thread in threads:
            thread.start()
        for end in ends:
            # in steps: on some systems Ctrl-C does not wake a wait without a limit
            while not end.wait(_TICK_S):
                pass
    except KeyboardInterrupt:
        interrupted = True
    finally:
        run.stop.set()
        for thread, end in zip(threads, ends, strict=True):
            if thread.ident is not None:
                # a second Ctrl-C leaves here: the threads are daemons and do not hold the process
                while not end.wait(_TICK_S):
                    pass
                thread.join()
    seconds = (time.perf_counter_ns() - start) / 1e9
    stages = ("decode", "preprocess", "network", "postprocess", "write")
    means = {stage: run.spent_ns.get(stage, 0) / 1e6 / max(1, run.counts.get(stage, 0)) for stage in stages}
    summary = StreamSummary(run.frames, seconds, means, interrupted)
    if run.error is not None:
        raise run.error
    if interrupted:
        raise StreamInterrupted(summary)
    return summary


def _guard(run: _Run, end: threading.Event, body: Callable[..., None], *args: Any) -> None:
    try:
        body(run, *args)
    except (_Stopped, StopStream):
        run.stop.set()
    except BaseException as error:
        run.fail(error)
    finally:
        end.set()


def _read(run: _Run, frames: Iterable[Frame], budget: _Budget, workers: int) -> None:
    try:
        start = time.perf_counter_ns()
        for number, frame in enumerate(frames):
            run.spend("decode", start)
            budget.acquire(number, frame.image.nbytes)
            preprocess = run.get(run.spare)
            start = time.perf_counter_ns()
            tensor, box = preprocess(frame.image)
            run.spend("preprocess", start)
            run.put(run.jobs, _Job(number, frame, tensor, box, preprocess))
            start = time.perf_counter_ns()
    except _Stopped:
        raise
    except BaseException as error:
        run.fail(error, drain=True)  # what was decoded before it is kept
    finally:
        for _ in range(workers):
            with contextlib.suppress(_Stopped):
                run.put(run.jobs, None)


def _work(run: _Run, pipeline: Stages) -> None:
    try:
        while (job := run.get(run.jobs)) is not None:
            start = time.perf_counter_ns()
            outputs = pipeline.network(job.tensor)
            start = run.spend("network", start)
            run.spare.put(job.preprocess)
            # here and not in the writer: the outputs are views that this context's next call overwrites
            prediction = pipeline.postprocess(outputs, job.box)
            run.spend("postprocess", start)
            run.put(run.results, (job.number, Result(job.frame, prediction)))
    finally:
        with contextlib.suppress(_Stopped):
            run.put(run.results, None)


def _write(run: _Run, consume: Callable[[Result], object], budget: _Budget, workers: int) -> None:
    for number, result in enumerate(_in_order(run, workers)):
        start = time.perf_counter_ns()
        consume(result)
        run.spend("write", start)
        run.frames += 1
        budget.release(number)


def _in_order(run: _Run, workers: int) -> Iterator[Result]:
    waiting: dict[int, Result] = {}
    expected = 0
    while workers:
        item = run.get(run.results)
        if item is None:
            workers -= 1
            continue
        waiting[item[0]] = item[1]
        while expected in waiting:
            yield waiting.pop(expected)
            expected += 1


@contextlib.contextmanager
def _opencv_threads(count: int) -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
