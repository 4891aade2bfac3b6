"""Temperatures, throttling and clocks of boards made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.power.conditions import Conditions, hottest
from runtimes.sysfs import Tree
from tests import boards


def test_a_board_at_rest(tmp_path: Path) -> None:
    conditions = Conditions(Tree(boards.orin_nano(tmp_path)))
    assert conditions.known
    state = conditions.read()
    assert state.celsius == {"cpu-thermal": 49.25, "tj-thermal": 50.125}  # the GPU's is off
    assert state.throttled == ()  # its fan turns, which is no throttling
    assert state.gpu_mhz == 1020.0


def test_alerts_and_a_fixed_clock_that_falls_are_throttling(tmp_path: Path) -> None:
    conditions = Conditions(Tree(boards.orin_nano(tmp_path)))
    boards.write(
        tmp_path,
        {
            "sys/class/thermal/cooling_device1/cur_state": "1\n",
            "sys/class/devfreq/17000000.gpu/cur_freq": "918000000\n",
        },
    )
    assert conditions.read().throttled == (
        "cpu alert of the thermal driver",
        "the GPU's clock fell below the 1020 MHz it was fixed to",
    )


def test_a_clock_that_may_move_is_not_throttled(tmp_path: Path) -> None:
    boards.thor(tmp_path)
    boards.write(tmp_path, {"sys/class/devfreq/gpu-gpc-0/cur_freq": "315000000\n"})
    state = Conditions(Tree(tmp_path)).read()
    assert (state.throttled, state.gpu_mhz) == ((), 315.0)


def test_constants_and_other_chips_are_left_out(tmp_path: Path) -> None:
    boards.nano(tmp_path)
    boards.write(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone7/type": "iwlwifi_1\n",
            "sys/class/thermal/thermal_zone7/temp": "80000\n",
            "sys/class/hwmon/hwmon0/name": "k10temp\n",
            "sys/class/hwmon/hwmon0/temp1_input": "61250\n",
            "sys/class/hwmon/hwmon1/name": "nvme\n",
            "sys/class/hwmon/hwmon1/temp1_input": "70000\n",
        },
    )
    assert Conditions(Tree(tmp_path)).read().celsius == {"CPU-therm": 41.5, "k10temp": 61.25}


def test_zones_of_one_name_are_all_read(tmp_path: Path) -> None:
    zones = {f"sys/class/thermal/thermal_zone{index}/type": "acpitz\n" for index in range(2)}
    temps = {f"sys/class/thermal/thermal_zone{index}/temp": f"{40 + index}000\n" for index in range(2)}
    boards.write(tmp_path, zones | temps)
    assert Conditions(Tree(tmp_path)).read().celsius == {"acpitz": 40.0, "acpitz thermal_zone1": 41.0}


def test_what_vanishes_is_left_out_and_nothing_at_all_is_known(tmp_path: Path) -> None:
    conditions = Conditions(Tree(boards.orin_nano(tmp_path)))
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").unlink()
    (tmp_path / "sys/class/devfreq/17000000.gpu/cur_freq").write_text("0\n")
    state = conditions.read()
    assert set(state.celsius) == {"tj-thermal"}
    assert state.gpu_mhz is None
    empty = Conditions(Tree(tmp_path / "nothing"))
    assert not empty.known
    assert empty.read().celsius == {}


@pytest.mark.parametrize(
    ("celsius", "zone"),
    [
        ({}, None),
        ({"cpu-thermal": 50.0, "soc0-thermal": 55.0}, ("soc0-thermal", 55.0)),
        ({"Tboard": 70.0, "tj-thermal": 55.0}, ("tj-thermal", 55.0)),
    ],
)
def test_the_junction_decides(celsius: dict[str, float], zone: tuple[str, float] | None) -> None:
    assert hottest(celsius) == zone
