"""Functions that are timed in turns, so that a machine whose speed drifts slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.sampling import wait_idle

__all__ = ["Timing", "take_turns"]


@dataclass(frozen=True)
class Timing:
    """Samples of one function by round, in ms.

    Attributes:
        wall: elapsed.
        cpu: of all threads of this process; other programs on the machine do not count in it.
    """

    wall: list[list[float]]
    cpu: list[list[float]]


def take_turns(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    samples: int,
    clocks: tuple[Callable[[], int], Callable[[], int]] = (time.perf_counter_ns, time.process_time_ns),
    settle: Callable[[], object] = wait_idle,
    after: Callable[[str], object] = lambda _: None,
    wake: bool = True,
) -> dict[str, Timing]:
    """Time functions in turns: each round goes through all of them forwards and then backwards.

    Args:
        samples: of each function on each way.
        clocks: of elapsed and of CPU time, in ns.
        settle: called before each turn.
        after: told the name of a function after each of its samples, while no clock runs.
        wake: call a function once, unrecorded, at the beginning of each turn, which wakes its threads; before the first
            round each is called once in any case.
    """
    found = {name: Timing([], []) for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for timing in found.values():
            timing.wall.append([])
            timing.cpu.append([])
        for name in (*runs, *reversed(list(runs))):
            settle()
            if wake:
                runs[name]()
            for _ in range(samples):
                start = [clock() for clock in clocks]
                runs[name]()
                wall, cpu = (clock() - begun for clock, begun in zip(clocks, start, strict=True))
                found[name].wall[-1].append(wall / 1e6)
                found[name].cpu[-1].append(cpu / 1e6)
                after(name)
    return found
