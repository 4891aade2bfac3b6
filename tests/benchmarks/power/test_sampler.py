"""Readings in a thread: they go on over failures, and end with a reason."""

from __future__ import annotations

import threading
import time

import pytest

from benchmarks.power import sampler
from benchmarks.power.reading import Unreadable
from benchmarks.power.sampler import Sampler


def wait_for(condition: threading.Event) -> None:
    assert condition.wait(10)


def test_it_reads_until_it_is_stopped() -> None:
    enough = threading.Event()
    count = 0

    def read() -> int:
        nonlocal count
        count += 1
        if count == 5:
            enough.set()
        return count

    running = Sampler(read, 0.001)
    running.start()
    wait_for(enough)
    running.stop()
    taken = list(running.taken)
    assert taken == list(range(1, len(taken) + 1))
    assert len(taken) >= 5
    assert not running.problem
    assert running.cpu_s > 0
    time.sleep(0.01)
    assert running.taken == taken


def test_a_few_failures_are_survived_and_many_are_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "PAUSE_S", 0.0)
    over = threading.Event()
    calls = 0

    def read() -> int:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise OSError("a moment away")
        if calls > 6:
            if calls == 6 + sampler.FAILURES:
                over.set()
            raise Unreadable("the sensor is gone")
        return calls

    running = Sampler(read, 0.0)
    running.start()
    wait_for(over)
    running.stop()
    assert running.taken == [1, 4, 5, 6]
    assert running.problem == "the sensor is gone"


def test_one_that_hangs_is_left_alone_and_one_never_started_stops() -> None:
    hold = threading.Event()
    running = Sampler(lambda: hold.wait(10), 0.0)
    running.start()
    running.stop(0.01)
    hold.set()
    running.stop()
    Sampler(lambda: 1, 1.0).stop()
