"""What `hnx doctor` says of a Jetson, from boards made of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtimes.board import Finding, look_over
from runtimes.jetson import Jetson, detect
from runtimes.machine import diagnose
from runtimes.sysfs import Tree
from tests import boards


def found(build: Callable[[Path], Path], root: Path, python: str) -> dict[str, Finding]:
    board = detect(Tree(build(root)))
    assert board is not None
    findings = look_over(board, python)
    assert [row.what for row in findings] == [
        "JetPack", "TensorRT", "TensorRT in Python", "DLA", "power mode", "clocks",
    ]  # fmt: skip
    return {row.what: row for row in findings}


def test_jetpack_4_cannot_run_tensorrt(tmp_path: Path) -> None:
    rows = found(boards.nano, tmp_path, "3.10")
    assert "needs 8.5" in rows["TensorRT"].found
    assert "--opset 13" in rows["TensorRT"].fix
    assert rows["DLA"].found == "this board has none"


def test_jetpack_5_needs_a_module_for_a_newer_python(tmp_path: Path) -> None:
    rows = found(boards.xavier, tmp_path, "3.10")
    assert rows["JetPack"].found.startswith("5.1.2 (L4T 35.4.1): CUDA 11.4, TensorRT 8.5, Python 3.8")
    assert rows["TensorRT"] == Finding("TensorRT", "8.5.2 is installed")
    assert "for Python 3.8, this is 3.10" in rows["TensorRT in Python"].found
    assert "build the module for 3.10" in rows["TensorRT in Python"].fix
    assert rows["DLA"].found == "2 cores; FP16 through hnx build-trt --device dla:0"
    assert rows["power mode"].found == "15W (2)"
    assert "nvpmodel -m 0" in rows["power mode"].fix
    assert "jetson_clocks" in rows["clocks"].fix


def test_jetpack_6_as_it_should_be(tmp_path: Path) -> None:
    rows = found(boards.orin_nano, tmp_path, "3.10")
    assert "TensorRT 10.3" in rows["JetPack"].found
    assert [row.fix for row in rows.values()] == [""] * 6
    assert rows["clocks"].found == "CPU fixed, GPU fixed"
    other = {row.what: row for row in look_over(detect(Tree(tmp_path)) or Jetson(""), "3.12")}
    assert "use python3.10" in other["TensorRT in Python"].fix


def test_jetpack_7_on_thor(tmp_path: Path) -> None:
    rows = found(boards.thor, tmp_path, "3.12")
    assert "TensorRT 10.13 to 10.16" in rows["JetPack"].found
    assert rows["TensorRT"].fix == "sudo apt install nvidia-jetpack"
    assert rows["TensorRT in Python"].fix == "sudo apt install python3-libnvinfer"
    assert rows["DLA"].found == "this board has none"


def test_dla_cores_that_a_tensorrt_cannot_use(tmp_path: Path) -> None:
    boards.agx_orin(tmp_path)
    (tmp_path / "etc/nv_tegra_release").write_text("# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic\n")
    board = detect(Tree(tmp_path))
    assert board is not None
    dla = {row.what: row for row in look_over(board)}["DLA"].found
    assert dla.startswith("2 cores; none: TensorRT 10.13 to 10.16 has no DLA")


@pytest.mark.parametrize(
    ("board", "words"),
    [(Jetson("somewhere"), "not told"), (Jetson("future", l4t="99.1.0"), "L4T 99.1.0, of no JetPack known")],
)
def test_what_is_not_told_is_said_so(board: Jetson, words: str) -> None:
    rows = {row.what: row for row in look_over(board)}
    assert words in rows["JetPack"].found
    assert rows["DLA"].found == "not told"
    assert rows["clocks"].found == "CPU not told, GPU not told"


def test_the_diagnosis_holds_it(tmp_path: Path) -> None:
    nothing = {"version": "", "runnable": [], "precisions": {}, "reason": "no", "fix": "none"}
    here = diagnose(lambda row: nothing, Tree(boards.thor(tmp_path)))
    assert here["hardware"]["Jetson"] == "NVIDIA Jetson AGX Thor Developer Kit"
    assert here["jetson"][0]["what"] == "JetPack"
    elsewhere = diagnose(lambda row: nothing, Tree(tmp_path / "nothing"))
    assert elsewhere["hardware"]["Jetson"] == "no"
    assert elsewhere["jetson"] == []
