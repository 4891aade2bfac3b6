"""The loops, with a clock of our own."""

from __future__ import annotations

import time

import pytest

from benchmarks.sampling import StopRule, WarmUpRule, collect, collect_parallel, peak_memory_mb, unrecorded, warm_up
from hybridnets.errors import HnxError
from tests.benchmarks.fakes import Clock


@pytest.mark.parametrize(
    ("duration", "rule", "count"),
    [
        (0.1, StopRule(10, 0.5, 60), 10),  # the count is reached last
        (0.1, StopRule(3, 2.0, 60), 20),  # the time is reached last
        (3.0, StopRule(10, 1.0, 7.0), 3),  # the limit ends it below both
        (3.0, StopRule(10, 1.0, 0.1), 1),  # one sample is always taken
    ],
)
def test_stops_at_both_minima_or_at_the_limit(duration: float, rule: StopRule, count: int) -> None:
    clock = Clock(duration)
    stamps = collect(clock.step, rule, clock)
    assert len(stamps) == count
    assert all(end - start == round(duration * 1e9) for start, end in stamps)


def test_warm_up_ends_when_two_windows_agree() -> None:
    clock = Clock(9, 5, 3, 2, 1.5, *[1.0] * 100)
    samples, stable = warm_up(clock.step, WarmUpRule(seconds=1e6), clock)
    assert stable
    # medians of the window before the last, from 10 samples on: 3, 2, 1.5, and at 13 samples 1.0
    assert len(samples) == 13
    assert samples[0] == 9_000_000_000


def test_warm_up_gives_up_by_count_and_by_time() -> None:
    growing = [1.3**index for index in range(60)]
    clock = Clock(*growing)
    samples, stable = warm_up(clock.step, WarmUpRule(iterations=20, seconds=1e9), clock)
    assert (len(samples), stable) == (20, False)
    clock = Clock(*growing)
    samples, stable = warm_up(clock.step, WarmUpRule(seconds=100.0), clock)
    assert not stable
    assert sum(samples[:-1]) / 1e9 < 100 <= sum(samples) / 1e9


def test_a_slow_network_may_fill_its_windows() -> None:
    clock = Clock(3.0)
    samples, stable = warm_up(clock.step, WarmUpRule(seconds=10.0), clock)
    assert (len(samples), stable) == (10, True)
    clock = Clock(20.0)
    samples, stable = warm_up(clock.step, WarmUpRule(seconds=10.0), clock)
    assert (len(samples), stable) == (2, False)


def test_parallel_streams_count_what_all_finish_together() -> None:
    def step() -> tuple[int, int]:
        start = time.perf_counter_ns()
        time.sleep(0.002)
        return start, time.perf_counter_ns()

    samples, per_second = collect_parallel([step] * 3, StopRule(30, 0.0, 20.0))
    assert len(samples) >= 30
    assert per_second > 0


def test_an_error_in_one_stream_ends_all() -> None:
    def bad() -> tuple[int, int]:
        raise HnxError("no")

    def good() -> tuple[int, int]:
        time.sleep(0.001)
        return 0, 1

    with pytest.raises(HnxError, match="no"):
        collect_parallel([good, bad], StopRule(10**9, 0.0, 60.0))


def test_memory_is_known_here() -> None:
    peak = peak_memory_mb()
    assert peak is not None
    assert peak > 10


@pytest.mark.parametrize("streams", [1, 3])
def test_unrecorded_calls_reach_every_stream(streams: int) -> None:
    clocks = [Clock(0.0) for _ in range(streams)]
    unrecorded([clock.step for clock in clocks], 2)
    assert sum(clock.calls for clock in clocks) >= 2 * streams
    unrecorded([clocks[0].step], 0)
