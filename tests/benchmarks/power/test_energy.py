"""Energy arithmetic, on series whose energy is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.power.energy import Series, Slice
from benchmarks.power.reading import Reading, Unreadable

S = 1_000_000_000
# an hour after boot: differences of large numbers must not lose anything
BOOT = 3_600 * S


def at(*seconds: float) -> list[int]:
    return [BOOT + round(second * S) for second in seconds]


# Orin Nano at rest, under load and back, read every 100 ms as tegrastats told it (mW)
RECORDED_MW = [5080, 5112, 5080, 7430, 11210, 11580, 11540, 11610, 11570, 8890, 5240, 5112]


def recorded() -> Series:
    return Series("W", at(*(0.1 * index for index in range(12))), [mw / 1e3 for mw in RECORDED_MW], 0.1)


def test_constant_power_is_power_times_time() -> None:
    series = Series("W", at(0, 1, 2, 3), [10.0] * 4, 1.0)
    assert series.joules(*at(0.25, 2.75)) == pytest.approx(25.0, rel=1e-12)


def test_a_ramp_is_a_trapezoid_also_between_readings() -> None:
    series = Series("W", at(0, 2), [0.0, 20.0], 2.0)
    assert series.joules(*at(0, 2)) == pytest.approx(20.0)
    assert series.joules(*at(0.5, 1.5)) == pytest.approx(10.0)
    assert series.joules(*at(1.0, 1.5)) == pytest.approx(6.25)


def test_a_recorded_series() -> None:
    # by hand: 0.1 s times the inner readings and half of the outer ones
    inner, ends = sum(RECORDED_MW[4:8]), (RECORDED_MW[3] + RECORDED_MW[8]) / 2
    assert recorded().joules(*at(0.3, 0.8)) == pytest.approx(0.1 * (inner + ends) / 1e3, rel=1e-12)
    assert recorded().readings(*at(0.3, 0.8)) == 5  # the one at the end belongs to what follows
    whole = recorded().joules(*at(0, 1.1))
    parts = recorded().joules(*at(0, 0.333)) + recorded().joules(*at(0.333, 1.1))
    assert parts == pytest.approx(whole, rel=1e-9)


def test_irregular_readings_agree_with_numpy() -> None:
    rng = np.random.default_rng(7)
    seconds = np.cumsum(rng.uniform(0.01, 0.2, 50))
    watts = rng.uniform(3, 60, 50)
    series = Series("W", at(*seconds), watts.tolist(), 0.1)
    dense = np.linspace(seconds[3] + 0.001, seconds[40], 200_001)
    values = np.interp(dense, seconds, watts)
    expected = float(np.mean((values[1:] + values[:-1]) / 2) * (dense[-1] - dense[0]))
    assert series.joules(*at(dense[0], dense[-1])) == pytest.approx(expected, rel=1e-6)


def test_a_counter_is_a_difference() -> None:
    series = Series("J", at(0, 1, 2), [0.0, 30.0, 50.0], 1.0)
    assert series.joules(*at(0.5, 1.5)) == pytest.approx(25.0)
    assert series.joules(*at(0, 2)) == 50.0


def test_both_units_agree_on_the_same_device() -> None:
    power = Series("W", at(0, 1, 2, 3), [20.0] * 4, 1.0)
    counter = Series("J", at(0, 1, 2, 3), [0.0, 20.0, 40.0, 60.0], 1.0)
    assert power.joules(*at(0.3, 2.9)) == pytest.approx(counter.joules(*at(0.3, 2.9)))


def test_rails_are_added_reading_by_reading() -> None:
    readings = [Reading(moment, {"a": 1.0, "b": 2.0, "c": 100.0}) for moment in at(0, 1)]
    assert Series.of("W", readings, ("a", "b"), 1.0).joules(*at(0, 1)) == 3.0


@pytest.mark.parametrize(
    ("seconds", "window", "words"),
    [
        ([], (0, 1), "no reading"),
        ([0.5, 1.0], (0.2, 0.9), "do not reach"),
        ([0.0, 0.5], (0.2, 0.9), "do not reach"),
        ([0.0, 0.1, 2.5, 2.6], (0.05, 2.55), "no reading for 2.4 s"),
    ],
)
def test_what_was_not_read_is_not_made_up(seconds: list[float], window: tuple[float, float], words: str) -> None:
    series = Series("W", at(*seconds), [5.0] * len(seconds), 0.1)
    with pytest.raises(Unreadable, match=words):
        series.joules(*at(*window))


def test_pauses_outside_do_not_matter_and_slow_sources_may_pause_longer() -> None:
    seconds = [0.0, 3.0, 3.1, 3.2, 9.0]
    assert Series("W", at(*seconds), [5.0] * 5, 0.1).joules(*at(3.05, 3.15)) == pytest.approx(0.5)
    assert Series("W", at(*seconds), [5.0] * 5, 2.0).joules(*at(0, 9)) == pytest.approx(45.0)


def test_nothing_takes_nothing() -> None:
    assert Series("W", [], [], 1.0).joules(5, 5) == 0.0
    assert Slice(0, 1_500_000_000, 3).seconds == 1.5
