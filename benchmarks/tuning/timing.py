"""Times of settings, all of them loaded into one process and taking turns."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
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

__all__ = ["Ratio", "Timed", "crowded", "ratio", "time_networks", "time_settings"]

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
    graphs: Mapping[str, Bundle],
    runtime: str,
    settings: Sequence[Setting],
    *,
    rounds: int,
    seconds: float,
    on_step: Callable[[str], None] = lambda _: None,
) -> dict[Setting, Timed]:
    """`time_networks` for settings of one network.

    Args:
        graphs: `Setting.rewrites` -> bundle with that graph.

    Raises:
        HnxError: a setting cannot run, or there is no memory for all of them.
    """
    networks = {str(setting): (graphs[setting.rewrites], setting) for setting in settings}
    found = time_networks(networks, runtime, rounds=rounds, seconds=seconds, on_step=on_step)
    return {setting: found[str(setting)] for setting in settings}


def time_networks(
    networks: Mapping[str, tuple[Bundle, Setting]],
    runtime: str,
    *,
    rounds: int,
    seconds: float,
    on_step: Callable[[str], None] = lambda _: None,
) -> dict[str, Timed]:
    """Time networks on the frame that ships with the package, forwards and backwards in each round.

    Args:
        networks: name -> bundle, and how it is run; all take the same input.
        seconds: of the slowest one in one round, about.

    Raises:
        HnxError: one cannot run, or there is no memory for all of them.
    """
    if problem := crowded(networks.values(), runtime):
        raise HnxError(
            f"{len(networks)} settings cannot be timed side by side", why=problem, fix="close other programs"
        )
    first, _ = next(iter(networks.values()))
    tensor = first.preprocessor()(read_demo_frame())[0].copy()
    with contextlib.ExitStack() as stack:
        opened: dict[str, Runtime] = {}
        for name, (bundle, setting) in networks.items():
            on_step(f"loading {name}")
            options = RuntimeOptions(setting.precision, setting.threads, setting.streams)
            opened[name] = stack.enter_context(open_runtime(runtime, bundle, options))
        streams = {name: setting.streams for name, (_, setting) in networks.items()}
        runs = {name: _run(network, streams[name], tensor, stack) for name, network in opened.items()}
        on_step(f"timing {len(networks)} settings" if len(networks) > 4 else f"timing {', '.join(networks)}")
        slowest = max(_seconds(run) for run in runs.values())
        samples = max(1, min(_MOST_SAMPLES, math.ceil(seconds / 2 / max(slowest, 1e-6))))
        timings = take_turns(runs, rounds=rounds, samples=samples)
        return {
            name: _timed(timings[name].wall, _frames(streams[name]), opened[name].execution.precision)
            for name in networks
        }


def crowded(networks: Collection[tuple[Bundle, Setting]], runtime: str) -> str:
    """Why there is no memory for all of these networks at once; "" where there is."""
    needed = IMPORTS_MB + sum(estimate_mb(bundle, setting.streams) - IMPORTS_MB for bundle, setting in networks)
    problem = shortage(runtime, needed, available_memory_mb())
    return "" if problem is None else problem["reason"]


def _frames(streams: int) -> int:
    return 1 if streams == 1 else streams * _FRAMES_A_STREAM


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
