"""What a row drew, from readings whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.power.account import MIN_PER_TURN, Account, Record
from benchmarks.power.conditions import State
from benchmarks.power.energy import Slice
from benchmarks.power.reading import Reading

S = 1_000_000_000


def ns(second: float) -> int:
    return round(second * S)


def record(watts: Sequence[float], *, step: float = 0.1, name: str = "board", problem: str = "") -> Record:
    readings = [Reading(ns(index * step), {"VDD_IN": value, "VDD_SOC": value / 4}) for index, value in enumerate(watts)]
    return Record(name, "W", step, ("VDD_IN",), readings, problem)


def turn(start: float, end: float, frames: int = 10) -> Slice:
    return Slice(ns(start), ns(end), frames)


# two seconds of rest at 5 W, then work at 12 W from 2.0 to 6.0 s, then rest
RUN = [5.0] * 20 + [12.0] * 41 + [5.0] * 20


def test_idle_is_subtracted_and_both_figures_are_told() -> None:
    account = Account([record(RUN)], rest=turn(0.2, 1.8))
    found = account.row({"forward": [turn(2.0, 4.0, 20)], "end_to_end": [turn(4.5, 5.5, 5)]})
    assert found is not None
    forward, whole = found["forward"], found["end_to_end"]
    assert forward["watts"] == 12.0
    assert forward["joules"] == 24.0
    assert forward["joules_per_frame"] == 1.2
    assert forward["joules_per_frame_above_idle"] == pytest.approx((12 - 5) * 2 / 20)
    assert forward["rails_w"] == {"VDD_IN": 12.0, "VDD_SOC": 3.0}
    assert forward["readings"] == 20
    assert forward["turns_ns"] == [[2 * S, 4 * S, 20]]
    assert whole["joules_per_frame"] == pytest.approx(12 * 1.0 / 5)
    assert found["throttled"] == []
    assert "temperature_c" not in found


def test_turns_of_a_row_add_up_and_those_of_others_do_not_count() -> None:
    # the row draws 10 W in its turns, another one 90 W between them
    watts = [10.0 if index % 20 < 11 else 90.0 for index in range(81)]
    turns = [turn(0.0, 1.0, 3), turn(2.0, 3.0, 3), turn(4.0, 5.0, 3)]
    found = Account([record(watts)]).row({"forward": turns})
    assert found is not None
    assert found["forward"]["joules"] == pytest.approx(30.0)
    assert found["forward"]["frames"] == 9
    assert found["forward"]["joules_per_frame_above_idle"] is None


def test_sources_are_added_up() -> None:
    counter = Record("cpu", "J", 0.1, ("package-0",), [Reading(ns(i / 10), {"package-0": 2.0 * i}) for i in range(81)])
    found = Account([record(RUN), counter], rest=turn(0.2, 1.8)).row({"forward": [turn(2.0, 4.0, 20)]})
    assert found is not None
    assert found["forward"]["watts"] == pytest.approx(12 + 20)
    assert found["forward"]["joules_per_frame_above_idle"] == pytest.approx(0.7)
    assert set(found["forward"]["rails_w"]) == {"VDD_IN", "VDD_SOC", "package-0"}


def test_a_row_without_a_figure_says_why() -> None:
    gone = record(RUN[:30], problem="tegrastats ended with exit status 1")
    for account, turns, words in (
        (Account([record(RUN)]), [turn(2.0, 2.5)], "only 5 readings of board fell into its 1 turns"),
        (Account([record(RUN)]), [turn(2 + i / 2, 2.2 + i / 2) for i in range(6)], f"at least {6 * MIN_PER_TURN}"),
        (Account([gone]), [turn(2.0, 4.0)], "board: tegrastats ended with exit status 1"),
        (Account([record([])]), [turn(2.0, 4.0)], "board: there was no reading"),
        (Account([record(RUN)]), [], "no recorded time"),
    ):
        found = account.row({"forward": turns})
        assert found is not None
        assert words in found["forward"]["missing"]
        assert "watts" not in found["forward"]


def test_a_rest_that_was_not_read_leaves_the_whole_figure() -> None:
    found = Account([record(RUN)], rest=turn(-3.0, -1.0)).row({"forward": [turn(2.0, 4.0, 20)]})
    assert found is not None
    assert found["forward"]["joules_per_frame"] == 1.2
    assert found["forward"]["joules_per_frame_above_idle"] is None


def test_temperature_and_throttling_of_its_own_turns() -> None:
    states = [
        State(ns(0.5), {"tj-thermal": 80.0}, ("another row's",), None),
        State(ns(2.5), {"tj-thermal": 51.04, "cpu-thermal": 60.0}, (), 1020.0),
        State(ns(3.0), {}, ("cpu alert",), 1020.0),
        State(ns(3.5), {"tj-thermal": 53.0}, ("cpu alert", "gpu alert"), 1020.0),
        State(ns(9.0), {"tj-thermal": 90.0}, ("later",), None),
    ]
    found = Account([record(RUN)], states).row({"forward": [turn(2.0, 4.0)]})
    assert found is not None
    assert found["temperature_c"] == {"sensor": "tj-thermal", "start": 51.0, "max": 53.0}
    assert found["throttled"] == ["cpu alert", "gpu alert"]


def test_a_source_tells_them_where_no_files_do() -> None:
    readings = [Reading(ns(i / 10), {"card": 70.0}, {"card": 40.0 + i}, ("hot",) if i == 25 else ()) for i in range(60)]
    found = Account([Record("nvml", "W", 0.1, ("card",), readings)]).row({"forward": [turn(2.0, 4.0)]})
    assert found is not None
    assert found["temperature_c"]["start"] == 60.0
    assert found["throttled"] == ["hot"]


def test_nothing_read_is_nothing_said() -> None:
    assert Account([]).row({"forward": [turn(0, 1)]}) is None
    only = Account([], [State(ns(0.5), {"tj": 40.0}, (), None)]).row({"forward": [turn(0, 1)]})
    assert only == {"temperature_c": {"sensor": "tj", "start": 40.0, "max": 40.0}, "throttled": []}
