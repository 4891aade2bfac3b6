"""A run's sources: opened, read, waited for and closed. Waiting is our own; no time is asserted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.power import meter as meter_module
from benchmarks.power.config import PowerConfig
from benchmarks.power.energy import Slice
from benchmarks.power.meter import Meter
from benchmarks.power.reading import Reading, Unit, Unreadable
from benchmarks.power.registry import Opened
from tests import boards


class Steady:
    """12.5 W for as many readings as it has."""

    name = "steady"
    unit: Unit = "W"
    interval_s = 0.001
    total = ("all",)

    def __init__(self, readings: int = 1_000_000) -> None:
        self.left, self.closed = readings, 0
        self.details: Mapping[str, Any] = {"made of": "paper"}

    def read(self) -> Reading:
        self.left -= 1
        if self.left < 0:
            raise Unreadable("it fell off the board")
        return Reading(time.monotonic_ns(), {"all": 12.5, "part": 2.5}, {"tj": 40.0})

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Steady], Steady]:
    def put(source: Steady) -> Steady:
        monkeypatch.setattr(meter_module, "open_sources", lambda text, tree: Opened([source], {}, {}))
        return source

    return put


def test_a_run(use: Callable[[Steady], Steady], tmp_path: Path) -> None:
    source = use(Steady())
    with Meter(PowerConfig("auto", idle_s=0.05, root=tmp_path)) as meter:
        assert meter.active
        meter.idle()
        start = time.monotonic_ns()
        time.sleep(0.05)
        turn = Slice(start, time.monotonic_ns(), 10)
        meter.idle()
    assert source.closed == 1
    row = meter.account().row({"forward": [turn]})
    assert row is not None
    assert row["forward"]["joules"] == pytest.approx(12.5 * turn.seconds, abs=2e-6)
    assert row["forward"]["joules_per_frame_above_idle"] == 0.0
    assert row["temperature_c"] == {"sensor": "tj", "start": 40.0, "max": 40.0}
    value = meter.to_json()
    assert value is not None
    json.dumps(value, allow_nan=False)
    assert value["idle"]["watts"] == value["idle"]["watts_at_the_end"] == 12.5
    (told,) = value["sources"]
    assert (told["name"], told["unit"], told["rails"], told["total"]) == ("steady", "W", ["all", "part"], ["all"])
    assert set(told["readings"]["total"]) == {12.5}
    assert len(told["readings"]["s"]) == len(told["readings"]["total"])
    assert told["problem"] == ""


def test_a_source_that_vanishes_leaves_its_reason(use: Callable[[Steady], Steady], tmp_path: Path) -> None:
    use(Steady(readings=3))
    with Meter(PowerConfig("auto", idle_s=0.0, root=tmp_path)) as meter:
        meter.idle()
        start = time.monotonic_ns()
        deadline = time.monotonic() + 10
        while not meter.account().records[0].problem and time.monotonic() < deadline:
            time.sleep(0.01)
        turn = Slice(start, time.monotonic_ns(), 1)
    row = meter.account().row({"forward": [turn]})
    assert row is not None
    assert row["forward"] == {"missing": "steady: it fell off the board"}
    value = meter.to_json()
    assert value is not None
    assert "idle" not in value
    assert value["sources"][0]["problem"] == "it fell off the board"


def test_sources_are_closed_after_errors_too(use: Callable[[Steady], Steady], tmp_path: Path) -> None:
    source = use(Steady())
    with pytest.raises(KeyboardInterrupt), Meter(PowerConfig("auto", root=tmp_path)):
        raise KeyboardInterrupt
    assert source.closed == 1


def refuse(seconds: float) -> None:
    raise AssertionError("it waited")


def test_off_opens_and_waits_for_nothing(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path)
    with Meter(PowerConfig(root=tmp_path), refuse) as meter:
        meter.idle()
        meter.cool_down()
    assert not meter.active
    assert meter.account().row({"forward": [Slice(0, 1, 1)]}) is None
    assert meter.to_json() is None


def test_auto_where_nothing_is_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_module, "open_sources", lambda text, tree: Opened([], {"rapl": "no counters"}, {}))
    with Meter(PowerConfig("auto", root=tmp_path), refuse) as meter:
        meter.idle()
    assert meter.account().row({"forward": [Slice(0, 1, 1)]}) is None
    value = meter.to_json()
    assert value is not None
    assert value["missing"] == {"rapl": "no counters"}
    assert value["sources"] == []


# -- cool-down -----------------------------------------------------------------------------------------------


def cooling(root: Path, *degrees: float, limit_s: float = 300.0) -> tuple[Meter, list[str]]:
    """A board whose junction has these temperatures, one after each second of waiting, and what is said of it."""
    zone = root / "sys/class/thermal/thermal_zone2/temp"
    values = iter(degrees[1:])
    said: list[str] = []

    def sleep(seconds: float) -> None:
        zone.write_text(f"{next(values, degrees[-1]) * 1000:.0f}\n")

    boards.orin_nano(root)
    zone.write_text(f"{degrees[0] * 1000:.0f}\n")
    return Meter(PowerConfig("off", cool_down_c=45.0, cool_down_limit_s=limit_s, root=root), sleep), said


def steps(meter: Meter) -> list[dict[str, Any]]:
    value = meter.to_json()
    assert value is not None
    found: list[dict[str, Any]] = value["cool_down"]["rounds"]
    return found


def test_it_waits_until_the_board_is_cool(tmp_path: Path) -> None:
    meter, said = cooling(tmp_path, 52.0, 49.5, 46.0, 44.5)
    with meter:
        meter.cool_down(said.append)
        meter.cool_down(said.append)
    assert steps(meter) == [
        {"waited_s": 3.0, "from_c": 52.0, "to_c": 44.5, "reached": True},
        {"waited_s": 0.0, "from_c": 44.5, "to_c": 44.5, "reached": True},
    ]
    assert said[0] == "cooling down: tj-thermal is at 52.0 C, at most 45 C are asked for"
    assert len(said) == 3


def test_it_gives_up_on_a_board_that_stays_hot(tmp_path: Path) -> None:
    meter, said = cooling(tmp_path, 52.0, limit_s=5.0)
    with meter:
        meter.cool_down(said.append)
    assert steps(meter) == [{"waited_s": 5.0, "from_c": 52.0, "to_c": 52.0, "reached": False}]


def test_without_a_thermometer_it_does_not_wait(tmp_path: Path) -> None:
    with Meter(PowerConfig("off", cool_down_c=45.0, root=tmp_path), refuse) as meter:
        meter.cool_down()
    assert steps(meter) == [{"waited_s": 0.0, "from_c": None, "to_c": None, "reached": False}]


def test_a_source_serves_as_thermometer(use: Callable[[Steady], Steady], tmp_path: Path) -> None:
    use(Steady())
    with Meter(PowerConfig("auto", cool_down_c=45.0, idle_s=0.0, root=tmp_path)) as meter:
        meter.settle()
        meter.cool_down()
    assert steps(meter)[0]["to_c"] == 40.0
