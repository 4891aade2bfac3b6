"""Every form of tegrastats' lines, and the program itself in all its moods."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.power import tegrastats
from benchmarks.power.reading import Unreadable, total_rails
from benchmarks.power.tegrastats import Tegrastats, TegrastatsLine, parse_line
from runtimes.sysfs import Tree
from tests import boards

NANO = (
    "RAM 1812/3964MB (lfb 3x2MB) SWAP 191/1982MB (cached 6MB) IRAM 0/252kB(lfb 252kB) "
    "CPU [5%@1224,4%@1224,off,off] EMC_FREQ 0%@1600 GR3D_FREQ 7%@76 APE 25 "
    "PLL@37C CPU@40.5C PMIC@50C GPU@39C AO@45C thermal@40C POM_5V_IN 1750/1628 POM_5V_GPU 0/4 POM_5V_CPU 366/406"
)
TX2 = (
    "RAM 2100/7852MB (lfb 1x4MB) CPU [1%@345,off,off,0%@345,1%@345,2%@345] EMC 3%@665 GR3D 0%@114 APE 150 "
    "MTS fg 0% bg 0% BCPU@34C MCPU@34C GPU@32.5C PLL@34C Tboard@30C Tdiode@31.75C PMIC@100C thermal@33.4C "
    "VDD_IN 1038/1134 VDD_CPU 153/172 VDD_GPU 76/80 VDD_SOC 306/306 VDD_WIFI 0/1 VDD_DDR 241/250"
)
XAVIER = (
    "RAM 2448/15823MB (lfb 2802x4MB) SWAP 0/7912MB (cached 0MB) CPU [2%@1190,0%@1190] EMC_FREQ 0% GR3D_FREQ 35% "
    "AO@38.5C GPU@-256C Tboard@40C Tdiode@42.25C AUX@39C CPU@40.5C thermal@39.9C PMIC@50C "
    "GPU 1155/1155 CPU 385/385 SOC 2504/2503 CV 0/0 VDDRQ 192/192 SYS5V 2692/2692"
)
ORIN_JP5 = (
    "04-11-2024 10:20:30 RAM 3333/30536MB (lfb 11x4MB) SWAP 0/15268MB (cached 0MB) CPU [1%@729,0%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0% CV0@-256C CPU@49.8C Tboard@37C SOC2@45.9C Tdiode@38.25C GPU@-256C tj@49.8C "
    "VDD_GPU_SOC 3205mW/3150mW VDD_CPU_CV 801mW/801mW VIN_SYS_5V0 3532mW/3500mW NC 0mW/0mW VDDQ_VDD2_1V8AO 706mW/706mW "
    "NC 0mW/0mW"
)
ORIN_NANO_JP6 = (
    "11-02-2025 08:00:01 RAM 2222/7620MB (lfb 4x4MB) CPU [9%@1510,off] EMC_FREQ 2%@2133 GR3D_FREQ 10%@[624] "
    "cpu@48.2C soc2@47C soc0@46.9C gpu@49.1C tj@49.1C soc1@47.5C VDD_IN 5080mW/5112mW "
    "VDD_CPU_GPU_CV 700mW/690mW VDD_SOC 1440mW/1441mW"
)
ORIN_JP6 = "RAM 4722/7844MB (lfb 1x512kB) EMC_FREQ 2%@1866 GR3D_FREQ 10%@1300 APE 150"
ORIN_JP7 = (
    "07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) CPU [23%@2201,10%@2201] EMC_FREQ 3%@3199 "
    "GR3D_FREQ 12%@[1300,1275] NVENC0 off NVDEC0 off PVA0_FREQ off APE 174 cpu@52.968C/52.968C "
    "soc2@48.406C/48.406C gpu@47.625C/47.625C VDD_GPU_SOC 5139mW/5000mW/5139mW VDD_CPU_CV 3268mW/3200mW/3268mW "
    "VIN_SYS_5V0 5500mW/5400mW/5500mW"
)
THOR = (
    "RAM 9000/125772MB (lfb 30x4MB) EMC_FREQ 2%@4266 GR3D_FREQ @[1000,1000,999] APE 150 cpu@50C tj@51.5C gpu@-256C "
    "VDD_GPU -392mW/-390mW VDD_CPU_SOC_MSS 6510mW/6500mW VIN_SYS_5V0 6520mW/6500mW VIN 23000mW/22900mW"
)

LINES = {
    "Nano": (NANO, {"POM_5V_IN": 1.75, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.366}, ("POM_5V_IN",), 7, 76),
    "TX2": (
        TX2,
        {"VDD_IN": 1.038, "VDD_CPU": 0.153, "VDD_GPU": 0.076, "VDD_SOC": 0.306, "VDD_WIFI": 0.0, "VDD_DDR": 0.241},
        ("VDD_IN",),
        0,
        114,
    ),
    "Xavier": (
        XAVIER,
        {"GPU": 1.155, "CPU": 0.385, "SOC": 2.504, "CV": 0.0, "VDDRQ": 0.192, "SYS5V": 2.692},
        ("CPU", "CV", "GPU", "SOC", "SYS5V", "VDDRQ"),
        35,
        None,
    ),
    "AGX Orin, JetPack 5": (
        ORIN_JP5,
        {"VDD_GPU_SOC": 3.205, "VDD_CPU_CV": 0.801, "VIN_SYS_5V0": 3.532, "VDDQ_VDD2_1V8AO": 0.706},
        ("VDDQ_VDD2_1V8AO", "VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0"),
        0,
        None,
    ),
    "Orin Nano, JetPack 6": (
        ORIN_NANO_JP6,
        {"VDD_IN": 5.08, "VDD_CPU_GPU_CV": 0.7, "VDD_SOC": 1.44},
        ("VDD_IN",),
        10,
        624,
    ),
    "Orin, JetPack 6, no rails": (ORIN_JP6, {}, (), 10, 1300),
    "AGX Orin, JetPack 7": (
        ORIN_JP7,
        {"VDD_GPU_SOC": 5.139, "VDD_CPU_CV": 3.268, "VIN_SYS_5V0": 5.5},
        ("VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0"),
        12,
        1275,
    ),
    "Thor": (
        THOR,
        {"VDD_GPU": -0.392, "VDD_CPU_SOC_MSS": 6.51, "VIN_SYS_5V0": 6.52, "VIN": 23.0},
        ("VIN",),
        None,
        999,
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_of_each_board(name: str) -> None:
    line, rails, total, percent, mhz = LINES[name]
    found = parse_line(line)
    assert found.rails == rails
    assert total_rails(found.rails) == total
    assert (found.gpu_percent, found.gpu_mhz) == (percent, mhz)


def test_sensors_that_are_off_and_constants_are_no_temperatures() -> None:
    assert parse_line(XAVIER).celsius == {
        "AO": 38.5, "Tboard": 40.0, "Tdiode": 42.25, "AUX": 39.0, "CPU": 40.5, "thermal": 39.9,
    }  # fmt: skip
    assert parse_line(ORIN_JP7).celsius == {"cpu": 52.968, "soc2": 48.406, "gpu": 47.625}
    assert parse_line(NANO).celsius["CPU"] == 40.5


@pytest.mark.parametrize("line", ["", "\0\xff garbage", "VDD_IN 12mW", "RAM 1/2MB", "VDD_IN 1/2x", "GR3D_FREQ"])
def test_what_is_no_line_holds_nothing(line: str) -> None:
    assert parse_line(line) == TegrastatsLine()


# -- the program ---------------------------------------------------------------------------------------------


def printing(root: Path, *lines: str, after: str = "sleep 60") -> Tree:
    boards.program(root, "tegrastats", "\n".join([*(f"echo '{line}'" for line in lines), after]))
    return Tree(root)


def test_its_readings_are_what_is_drawn_now(tmp_path: Path) -> None:
    boards.program(tmp_path, "tegrastats", f'echo "$@" > {tmp_path}/asked\necho "{NANO}"\necho "{NANO}"\nexec sleep 60')
    source = Tegrastats(Tree(tmp_path))
    before = time.monotonic_ns()
    reading = source.read()
    assert before <= reading.time_ns <= time.monotonic_ns()
    assert reading.rails == LINES["Nano"][1]
    assert reading.celsius["GPU"] == 39.0
    assert source.total == ("POM_5V_IN",)
    assert (tmp_path / "asked").read_text().split() == ["--interval", "100"]
    source.close()
    source.close()


def test_it_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="no program"):
        Tegrastats(Tree(tmp_path))


def test_it_prints_no_power_for_this_user(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="no power rails") as caught:
        Tegrastats(printing(tmp_path, ORIN_JP6))
    assert "root" in caught.value.fix


def test_it_cannot_be_started(tmp_path: Path) -> None:
    path = tmp_path / "usr/bin/tegrastats"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x7fELF not a program of this machine")
    path.chmod(0o755)
    with pytest.raises(Unreadable, match="cannot be started"):
        Tegrastats(Tree(tmp_path))


def test_it_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tegrastats, "TIMEOUT_S", 0.2)
    with pytest.raises(Unreadable, match="said nothing"):
        Tegrastats(printing(tmp_path))


def test_it_ends_or_loses_a_rail(tmp_path: Path) -> None:
    source = Tegrastats(printing(tmp_path, THOR, ORIN_JP6, after="exit 3"))
    with pytest.raises(Unreadable, match="lacks VDD_CPU_SOC_MSS, VDD_GPU, VIN, VIN_SYS_5V0"):
        source.read()
    with pytest.raises(Unreadable, match="exit status 3"):
        source.read()
    source.close()
