"""Times of settings, all of them loaded into one process and taking turns."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from benchmarks.environment import available_memory_mb
from benchmarks.memory import IMPORTS_MB, estimate_mb, shortage
from benchmarks.statistics import percentile
from benchmarks.tuning.settings import Setting
from benchmarks.turns import take_turns
from hybridnets.bundle import Bundle
from hybridnets.data import read_demo_frame
from hybridnets.errors import HnxError
from runtimes.base import Runtime, RuntimeOptions
from runtimes.opening import open_runtime

__all__ = ["Ratio", "Timed", "ratio", "time_settings"]

# of each stream in one sample: the streams start and end together, so that nearly all of it is side by side
_FRAMES_A_STREAM = 4
_MOST_SAMPLES = 50
# lower quartile, median, upper quartile
Ratio = tuple[float, float, float]


@dataclass(frozen=True)
class Timed:
    """Times of one setting.

    Attributes:
        rounds: median ms of a frame in each round.
        p50_ms: median of all samples.
        executed: what the runtime really ran.
    """

    rounds: tuple[float, ...]
    p50_ms: float
    executed: str


def ratio(timed: Timed, baseline: Timed) -> Ratio:
    """Quartiles over the rounds of the time as a share of another setting's; below 1 is faster."""
    low, middle, high = statistics.quantiles(
        [a / b for a, b in zip(timed.rounds, baseline.rounds, strict=True)], n=4, method="inclusive"
    )
    return low, middle, high


def time_settings(
    bundle: Bundle,
    runtime: str,
    settings: Sequence[Setting],
    *,
    rounds: int,
    seconds: float,
    on_step: Callable[[str], None] = lambda _: None,
) -> dict[Setting, Timed]:
    """Time settings on the frame that ships with the package, forwards and backwards in each round.

    Args:
        seconds: of the slowest setting in one round, about.

    Raises:
        HnxError: a setting cannot run, or there is no memory for all of them.
    """
    needed = IMPORTS_MB + sum(estimate_mb(bundle, setting.streams) - IMPORTS_MB for setting in settings)
    problem = shortage(runtime, needed, available_memory_mb())
    if problem is not None:
        raise HnxError(
            f"{len(settings)} settings cannot be timed side by side", why=problem["reason"], fix="close other programs"
        )
    tensor = bundle.preprocessor()(read_demo_frame())[0].copy()
    with contextlib.ExitStack() as stack:
        opened: dict[Setting, Runtime] = {}
        for setting in settings:
            on_step(f"loading {setting}")
            options = RuntimeOptions(setting.precision, setting.threads, setting.streams)
            opened[setting] = stack.enter_context(open_runtime(runtime, bundle, options))
        runs = {setting: _run(network, setting.streams, tensor, stack) for setting, network in opened.items()}
        on_step(f"timing {', '.join(map(str, settings))}")
        slowest = max(_seconds(run) for run in runs.values())
        samples = max(1, min(_MOST_SAMPLES, math.ceil(seconds / 2 / max(slowest, 1e-6))))
        names = {str(setting): setting for setting in settings}
        timings = take_turns({name: runs[names[name]] for name in names}, rounds=rounds, samples=samples)
        return {
            setting: _timed(timings[name].wall, _frames(setting), opened[setting].execution.precision)
            for name, setting in names.items()
        }


def _frames(setting: Setting) -> int:
    return 1 if setting.streams == 1 else setting.streams * _FRAMES_A_STREAM


def _timed(wall: Sequence[Sequence[float]], frames: int, executed: str) -> Timed:
    each = [[sample / frames for sample in samples] for samples in wall]
    return Timed(
        tuple(percentile(samples, 50) for samples in each),
        percentile([sample for samples in each for sample in samples], 50),
        executed,
    )


def _run(runtime: Runtime, streams: int, tensor: NDArray[Any], stack: contextlib.ExitStack) -> Callable[[], object]:
    """What is timed: one inference, or some on every stream side by side."""
    feed = {runtime.bundle.input.name: tensor}
    if streams == 1:
        return lambda: runtime.infer(feed)
    contexts = [runtime.context() for _ in range(streams)]
    pool = stack.enter_context(ThreadPoolExecutor(streams))

    def several(context: Any, frames: Mapping[str, NDArray[Any]]) -> None:
        for _ in range(_FRAMES_A_STREAM):
            context.infer(frames)

    def run() -> None:
        for future in [pool.submit(several, context, feed) for context in contexts]:
            future.result()

    return run


def _seconds(run: Callable[[], object]) -> float:
    """Of one call, after one that fills caches."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
