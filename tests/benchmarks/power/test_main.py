"""The check of a board's sources from the shell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.power.__main__ import main
from tests import boards


def test_sources_of_a_board_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pynvml", "jtop"):
        monkeypatch.setitem(sys.modules, name, None)
    boards.orin_nano(tmp_path)
    line = "VDD_IN 5080mW/5080mW VDD_CPU_GPU_CV 750mW/1mW VDD_SOC 1450mW/1mW"
    boards.program(tmp_path, "tegrastats", f"while :; do echo '{line}'; sleep 0.02; done")
    main(["0.3", "--root", str(tmp_path)])
    lines = dict(text.split(": ", 1) for text in capsys.readouterr().out.splitlines())
    for name in ("ina3221", "tegrastats"):
        assert lines[name].startswith("5.080 W (VDD_IN); rails VDD_CPU_GPU_CV 0.750, VDD_IN 5.080, VDD_SOC 1.450;")
    assert lines["jtop"].startswith("no, jtop could not be imported")
    assert lines["rapl"] == "no, no RAPL energy counters in /sys/class/powercap"
    assert lines["temperature"] == "50.1 C, tj-thermal"
    assert lines["throttled"] == "no"


def test_a_machine_without_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pynvml", "jtop"):
        monkeypatch.setitem(sys.modules, name, None)
    main(["0.01", "--root", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert all(": no, " in line for line in lines[:5])
    assert lines[5:] == ["temperature: none can be read", "throttled: no"]
