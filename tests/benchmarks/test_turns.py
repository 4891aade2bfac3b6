"""The order of turns, and which clock reads what."""

from __future__ import annotations

import itertools

from benchmarks.turns import take_turns


def test_forwards_then_backwards_and_one_call_to_wake_up() -> None:
    order: list[str] = []
    wall, cpu = itertools.count(0, 1_000_000), itertools.count(0, 500_000)
    settled: list[int] = []
    sampled: list[str] = []
    found = take_turns(
        {name: lambda name=name: order.append(name) for name in "abc"},  # type: ignore[misc]
        rounds=2,
        samples=2,
        clocks=(lambda: next(wall), lambda: next(cpu)),
        settle=lambda: settled.append(1),
        after=sampled.append,
    )
    turn = [name for name in "abccba" for _ in range(3)]
    assert order == [*"abc", *turn, *turn]
    assert len(settled) == 12
    assert sampled == [name for name in "abccba" * 2 for _ in range(2)]
    assert list(found) == ["a", "b", "c"]
    for timing in found.values():
        assert timing.wall == [[1.0] * 4] * 2  # each clock is read once before and once after a sample
        assert timing.cpu == [[0.5] * 4] * 2


def test_without_waking() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}  # type: ignore[misc]
    take_turns(runs, rounds=2, samples=1, settle=lambda: None, wake=False)
    assert order == [*"ab", *"abba", *"abba"]
