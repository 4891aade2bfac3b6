"""Rails from files, of both drivers and every generation of boards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.power.ina3221 import Ina3221
from benchmarks.power.reading import Unreadable
from runtimes.sysfs import Tree
from tests import boards

BOARDS: dict[str, tuple[Callable[[Path], Path], dict[str, float], tuple[str, ...]]] = {
    "Nano": (boards.nano, {"POM_5V_IN": 2.45, "POM_5V_GPU": 0.04, "POM_5V_CPU": 0.61}, ("POM_5V_IN",)),
    "AGX Xavier": (
        boards.xavier,
        {"GPU": 1.14, "CPU": 0.38, "SOC": 2.47, "CV": 0.0, "VDDRQ": 0.19, "SYS5V": 2.69},
        ("CPU", "CV", "GPU", "SOC", "SYS5V", "VDDRQ"),
    ),
    "Orin Nano": (boards.orin_nano, {"VDD_IN": 5.08, "VDD_CPU_GPU_CV": 0.75, "VDD_SOC": 1.45}, ("VDD_IN",)),
    "AGX Orin": (
        boards.agx_orin,
        {"VDD_GPU_SOC": 3.14, "VDD_CPU_CV": 0.8, "VIN_SYS_5V0": 4.97, "VDDQ_VDD2_1V8AO": 0.4},
        ("VDDQ_VDD2_1V8AO", "VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0"),
    ),
    "Thor": (
        boards.thor,
        {"VDD_GPU": -0.4, "VDD_CPU_SOC_MSS": 6.5, "VIN_SYS_5V0": 6.52, "VIN": 23.0},
        ("VIN",),
    ),
}


@pytest.mark.parametrize("name", BOARDS)
def test_rails_of_each_board(name: str, tmp_path: Path) -> None:
    build, rails, total = BOARDS[name]
    source = Ina3221(Tree(build(tmp_path)))
    assert source.read().rails == pytest.approx(rails)
    assert source.total == total
    assert all(str(tmp_path) in folder for folder in source.details["folders"])


def test_the_old_driver_without_power_multiplies(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/i2c/devices/1-0040/iio:device1"
    boards.write(folder, {"rail_name_0": "VDD_IN\n", "in_voltage0_input": "19000\n", "in_current0_input": "250 ma\n"})
    assert Ina3221(Tree(tmp_path)).read().rails == pytest.approx({"VDD_IN": 4.75})


def test_a_chip_found_by_two_ways_counts_once_and_two_rails_of_one_name_twice(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path)
    real = tmp_path / "sys/bus/i2c/devices/1-0040/hwmon/hwmon1"
    (tmp_path / "sys/class/hwmon").mkdir(parents=True)
    (tmp_path / "sys/class/hwmon/hwmon1").symlink_to(real)
    other = tmp_path / "sys/class/hwmon/hwmon9"
    boards.write(other, {"name": "ina3221\n", "in1_label": "VDD_SOC\n", "in1_input": "5000\n", "curr1_input": "100\n"})
    rails = Ina3221(Tree(tmp_path)).read().rails
    assert set(rails) == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC", "VDD_SOC hwmon9"}
    assert rails["VDD_SOC hwmon9"] == pytest.approx(0.5)


def test_other_monitors_are_not_rails(tmp_path: Path) -> None:
    boards.write(
        tmp_path / "sys/class/hwmon/hwmon0",
        {"name": "nvme\n", "in1_label": "VDD_IN\n", "in1_input": "1\n", "curr1_input": "1\n"},
    )
    with pytest.raises(Unreadable, match="no INA3221"):
        Ina3221(Tree(tmp_path))


def test_a_rail_that_vanishes_or_talks_nonsense_is_a_reason(tmp_path: Path) -> None:
    source = Ina3221(Tree(boards.orin_nano(tmp_path)))
    current = tmp_path / "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input"
    for text in ("", "nonsense\n"):
        current.write_text(text)
        with pytest.raises(Unreadable, match="VDD_IN"):
            source.read()
    current.unlink()
    with pytest.raises(Unreadable, match="VDD_IN"):
        source.read()
    current.write_text("1000\n")
    assert source.read().rails["VDD_IN"] == 5.0


def test_closed_files_say_how_to_open_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boards.nano(tmp_path)

    def closed(self: Tree, path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Tree, "read", lambda self, path: closed(self, path) if "power" in str(path) else "POM_5V_IN")
    with pytest.raises(Unreadable, match="may not be read") as caught:
        Ina3221(Tree(tmp_path))
    assert "chmod" in caught.value.fix
