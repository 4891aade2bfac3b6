"""Detection of Jetson boards from files, JetPack 4 to 7."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from runtimes import jetson
from runtimes.jetpack import JETPACKS, exact_name, jetpack_of
from runtimes.jetson import detect, gpu_clock
from runtimes.sysfs import Tree
from tests import boards

BOARDS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "Nano, JetPack 4": (
        boards.nano,
        {
            "model": "NVIDIA Jetson Nano Developer Kit", "chip": "tegra210", "l4t": "32.7.1", "jetpack": "4.6.1",
            "cpu_clock_locked": False, "gpu_clock_locked": False, "clocks_locked": False, "dla_cores": 0,
        },
    ),
    "AGX Xavier, JetPack 5": (
        boards.xavier,
        {
            "model": "Jetson-AGX", "chip": "tegra194", "l4t": "35.4.1", "jetpack": "5.1.2", "tensorrt_package": "8.5.2",
            "power_mode": "15W (2)", "cpu_clock_locked": False, "gpu_clock_locked": False, "clocks_locked": False,
            "dla_cores": 2,
        },
    ),
    "Orin Nano, JetPack 6": (
        boards.orin_nano,
        {
            "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "chip": "tegra234",
            "l4t": "36.4.3", "jetpack": "6.2", "tensorrt_package": "10.3.0.30", "tensorrt_python_package": "10.3.0.30",
            "power_mode": "MAXN_SUPER (2)", "cpu_clock_locked": True, "gpu_clock_locked": True, "clocks_locked": True,
            "dla_cores": 0,
        },
    ),
    "AGX Orin, JetPack 6": (
        boards.agx_orin,
        {
            "model": "NVIDIA Jetson AGX Orin Developer Kit", "chip": "tegra234", "l4t": "36.4.0", "jetpack": "6.1",
            "dla_cores": 2,
        },
    ),
    "Thor, JetPack 7": (
        boards.thor,
        {
            "model": "NVIDIA Jetson AGX Thor Developer Kit", "chip": "tegra264", "l4t": "38.2.0", "jetpack": "7.0",
            "cpu_clock_locked": False, "gpu_clock_locked": False, "clocks_locked": False, "dla_cores": 0,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOARDS)
def test_each_board(name: str, tmp_path: Path) -> None:
    build, expected = BOARDS[name]
    found = detect(Tree(build(tmp_path)))
    assert found is not None
    assert found.to_json() == expected


def test_another_machine_is_none(tmp_path: Path) -> None:
    assert detect(Tree(tmp_path)) is None
    assert gpu_clock(Tree(tmp_path)) is None
    boards.write(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B\0"})
    assert detect(Tree(tmp_path)) is None


def test_a_container_tells_little_and_nothing_fails(tmp_path: Path) -> None:
    boards.write(tmp_path, {"etc/nv_tegra_release": "# R36 (release), REVISION: 5.9, GCID: 1\n"})
    found = detect(Tree(tmp_path))
    assert found is not None
    assert found.jetpack == "6.1 and later"  # newer than its table of exact numbers
    assert found.clocks_locked is None
    assert found.dla_cores is None
    assert found.power_mode == ""
    (tmp_path / "etc/nv_tegra_release").write_text("something else\n")
    found = detect(Tree(tmp_path))
    assert found is not None
    assert (found.l4t, found.jetpack, found.line) == ("", "", None)


def test_disabled_dla_nodes_are_no_cores(tmp_path: Path) -> None:
    boards.xavier(tmp_path)
    node = tmp_path / "proc/device-tree/host1x/nvdla1@158c0000/status"
    node.write_text("disabled\0")
    found = detect(Tree(tmp_path))
    assert found is not None
    assert found.dla_cores == 1


def test_dla_from_platform_devices(tmp_path: Path) -> None:
    boards.agx_orin(tmp_path)
    for path in sorted(tmp_path.glob("proc/device-tree/bus@0/*/*/*"), reverse=True):
        path.unlink()
        path.parent.rmdir()
    place = "sys/devices/platform/bus@0/13e00000.host1x/15880000.nvdla0"
    boards.write(tmp_path, {f"{place}/power/runtime_status": "suspended\n"})
    found = detect(Tree(tmp_path))
    assert found is not None
    assert found.dla_cores == 1


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "kill -9 $$"])
def test_nvpmodel_in_a_bad_mood_leaves_its_files(tmp_path: Path, script: str) -> None:
    boards.xavier(tmp_path)
    boards.program(tmp_path, "nvpmodel", script)
    found = detect(Tree(tmp_path))
    assert found is not None
    assert found.power_mode == "15W (2)"


def test_a_mode_without_a_name_keeps_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetson, "NVPMODEL_TIMEOUT_S", 0.05)
    boards.xavier(tmp_path)
    boards.program(tmp_path, "nvpmodel", "exec sleep 5")
    (tmp_path / "etc/nvpmodel.conf").unlink()
    found = detect(Tree(tmp_path))
    assert found is not None
    assert found.power_mode == "mode (2)"


@pytest.mark.parametrize(
    ("l4t", "name", "tensorrt"),
    [("32.7.1", "4", "7.1 to 8.2"), ("34.1.1", "5", "8.5"), ("35.6.4", "5", "8.5"), ("36.3.0", "6.0", "8.6"),
     ("36.4.7", "6.1 and later", "10.3"), ("36.5.0", "6.1 and later", "10.3"), ("38.4", "7", "10.13 to 10.16"),
     ("39.2.1", "7", "10.13 to 10.16")],
)  # fmt: skip
def test_the_line_of_a_release(l4t: str, name: str, tensorrt: str) -> None:
    line = jetpack_of(l4t)
    assert line is not None
    assert (line.name, line.tensorrt) == (name, tensorrt)


def test_the_document_lists_what_the_table_says() -> None:
    text = (Path(__file__).parents[2] / "docs" / "jetson.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| [4-7]\.", line)]
    assert len(rows) == len(JETPACKS)
    for written, row in zip(rows, JETPACKS, strict=True):
        cells = [cell.strip() for cell in written.strip("|").split("|")]
        assert cells[2].split(".")[0] == row.cuda.split(".")[0]
        assert (cells[3], cells[4], cells[5]) == (row.tensorrt, row.python, str(row.opset))
        assert (cells[6] == "FP16") == row.dla.startswith("FP16")
        assert cells[7].startswith("yes") == row.supported


def test_releases_outside_the_table() -> None:
    assert [jetpack_of(text) for text in ("", "36", "nonsense", "28.2.1", "37.0", "99.1")] == [None] * 6
    assert exact_name("99.1.0") == ""
    assert exact_name("38.2") == "7.0"
    ranges = [(row.first, row.last) for row in JETPACKS]
    assert all(last < first for (_, last), (first, _) in pairwise(ranges))
