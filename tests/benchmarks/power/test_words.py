"""The power table and its sentences; nothing appears where nothing was read."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.report import Report, csv_text, markdown, print_report, read_report, remarks, write_report
from tests.benchmarks.fakes import report_of, report_row, report_skipped


def figure(watts: float = 12.0, joules: float = 0.25, above: float | None = 0.125) -> dict[str, Any]:
    return {
        "watts": watts,
        "joules_per_frame": joules,
        "joules_per_frame_above_idle": above,
        "readings": 40,
    }


def powered(**changes: Any) -> dict[str, Any]:
    power = {
        "forward": figure(),
        "end_to_end": figure(9.5, 0.5, 0.25),
        "temperature_c": {"sensor": "tj-thermal", "start": 48.0, "max": 61.4},
        "throttled": [],
    }
    return report_row(power={**power, **changes})


def measured(*rows: dict[str, Any], **power: Any) -> Report:
    source = {"name": "ina3221", "total": ["VDD_CPU_CV", "VDD_GPU_SOC"]}
    value = {"asked": "auto", "sources": [source], "missing": {"nvml": "no driver"}, "fixes": {}, **power}
    report = report_of(*rows)
    return Report(report.rows, report.environment, report.settings, report.bundle, value, report.created)


IDLE = {"seconds": 5.0, "watts": 5.0, "watts_at_the_end": 5.2}


def shown(report: Report) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=160, highlight=False))
    return stream.getvalue()


def test_the_table_and_what_it_means() -> None:
    text = shown(measured(powered(), report_skipped(), idle=IDLE))
    lines = [line for line in text.splitlines() if "openvino:fp32" in line and "|" in line]
    assert len(lines) == 3
    assert lines[-1].replace("|", " ").split()[1:] == [
        "12.00",
        "0.2500",
        "0.1250",
        "9.50",
        "0.5000",
        "0.2500",
        "61",
        "40",
    ]
    assert text.isascii()
    assert max(len(line) for line in text.splitlines() if " | " in line) <= 120
    assert "power: ina3221, VDD_CPU_CV + VDD_GPU_SOC" in text
    assert "idle: 5.00 W over 5.0 s before anything was loaded, 5.20 W at the end" in text
    assert "no driver" not in text  # auto: what is not there is no news
    assert "idle power changed" not in text


def test_idle_that_moved_is_doubted() -> None:
    assert any(
        "idle power changed" in line for line in remarks(measured(powered(), idle={**IDLE, "watts_at_the_end": 6.0}))
    )


def test_unknown_idle_leaves_a_gap_in_the_table() -> None:
    text = shown(measured(powered(forward=figure(above=None))))
    assert "0.1250" not in text
    assert "idle:" not in text


def test_nothing_above_idle_is_zero() -> None:
    assert "-0.0000" not in shown(measured(powered(forward=figure(above=-1e-6))))


def test_a_row_without_a_figure_says_why_once() -> None:
    both = powered(forward={"missing": "board: gone"}, end_to_end={"missing": "board: gone"})
    lines = remarks(measured(both, powered(forward={"missing": "only 3 readings"})))
    assert "no power figure for openvino:fp32: board: gone" in lines
    assert "no power figure for openvino:fp32 (forward only): only 3 readings" in lines
    assert "61" not in shown(measured(both)).split("power:")[0]  # no table for nothing but a temperature


def test_nothing_readable_is_nothing_said() -> None:
    plain, power = report_of(report_row()), measured(report_row(), sources=[])
    assert shown(power) == shown(plain)
    assert markdown(power) == markdown(plain)


def test_a_source_asked_for_by_name_says_why_it_is_missing() -> None:
    report = measured(
        report_row(), asked="rapl", sources=[], missing={"rapl": "closed to us"}, fixes={"rapl": "sudo chmod"}
    )
    assert "no power from rapl: closed to us (fix: sudo chmod)" in remarks(report)


def test_cool_downs_that_failed_are_told() -> None:
    step = {"waited_s": 300.0, "from_c": 60.0, "to_c": 52.0, "reached": False}
    cooling = {"limit_c": 45.0, "limit_s": 300.0, "rounds": [step, {**step, "reached": True}, step]}
    assert "cool-down: 2 rounds began above 45 C, after 300 s of waiting" in remarks(measured(cool_down=cooling))
    unknown = {**cooling, "rounds": [{**step, "to_c": None}]}
    assert any("no temperature can be read" in line for line in remarks(measured(cool_down=unknown)))
    fine = {**cooling, "rounds": [{**step, "reached": True}]}
    assert not any("cool-down" in line for line in remarks(measured(cool_down=fine)))


def test_every_form_of_the_report_holds_it(tmp_path: Path) -> None:
    report = measured(powered(), report_row("onnxruntime"), idle=IDLE)
    assert "| 12.00 | 0.2500 | 0.1250 |" in markdown(report)
    records = list(csv.DictReader(io.StringIO(csv_text(report))))
    assert records[0]["forward_joules_per_frame"] == "0.25"
    assert records[0]["end_to_end_watts"] == "9.5"
    assert records[0]["max_celsius"] == "61.4"
    assert records[1]["forward_watts"] == ""
    write_report(report, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json").to_json() == report.to_json()
    assert "power" not in report_of(report_row()).to_json()
