"""Taking samples: when to stop, when a network is warm, one stream or several, and what it costs in memory."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = [
    "KINDS",
    "STAGES",
    "Clock",
    "Stamps",
    "StopRule",
    "WarmUpRule",
    "collect",
    "collect_parallel",
    "peak_memory_mb",
    "unrecorded",
    "wait_idle",
    "warm_up",
]

Clock = Callable[[], int]
Stamps = tuple[int, ...]
KINDS = ("forward", "end_to_end")
STAGES = ("decode", "preprocess", "network", "postprocess")


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


def unrecorded(steps: Sequence[Callable[[], Stamps]], count: int) -> None:
    """Unrecorded calls, `count` for each step, side by side as they will be measured."""
    if len(steps) > 1 and count:
        collect_parallel(steps, StopRule(count * len(steps), 0.0, math.inf))
        return
    for _ in range(count):
        steps[0]()


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
