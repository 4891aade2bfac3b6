"""Views of a report, and the gate. Replays a stored shape; nothing is measured."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.report import (
    REPORT_SUFFIXES,
    Report,
    check_output,
    csv_text,
    markdown,
    print_report,
    read_report,
    remarks,
    write_report,
)
from benchmarks.statistics import LONGER, more_samples
from hybridnets.errors import ExitCode, HnxError
from tests.benchmarks.fakes import report_of as make
from tests.benchmarks.fakes import report_row as row
from tests.benchmarks.fakes import report_skipped as skipped


def shown(report: Report, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, force_terminal=terminal, width=160, highlight=False))
    return stream.getvalue()


FULL = (
    row(),
    row("onnxruntime", p50=1234.5, valid=False, reasons=["it is [noisy]"], advice=["close other programs"]),
    skipped(),
)


def test_table_is_plain_ascii_of_120_columns_off_a_terminal() -> None:
    text = shown(make(*FULL))
    assert text.isascii()
    table = [line for line in text.splitlines() if " | " in line]
    assert table
    assert max(map(len, table)) <= 120
    assert "1234.5" in text
    assert "onnxruntime:fp32 is not valid: it is [noisy]" in text
    assert "skipped torch:fp32: no weights (fix: export)" in text
    assert "untrained" in text


def test_table_on_a_terminal_fits_as_well() -> None:
    assert "1234.5" in shown(make(*FULL), terminal=True)


def test_nothing_measured_prints_no_table() -> None:
    text = shown(make(skipped()))
    assert "p50" not in text
    assert "skipped torch:fp32" in text


def test_precision_that_differs_shows_in_the_table() -> None:
    assert "openvino:bf16 ran fp32" in shown(make(row(precision="bf16", executed="fp32")))


def test_one_sentence_says_how_many_samples_serve_all_rows() -> None:
    rows = [
        row(name, valid=False, reasons=["few"], advice=[more_samples(count)], enough_samples=count)
        for name, count in (("openvino", 60), ("onnxruntime", 180))
    ]
    advice = [line for line in remarks(make(*rows)) if line.startswith("advice")]
    assert advice == [f"advice: {more_samples(180)}"]


def test_remarks_are_what_a_glance_takes_in() -> None:
    rows = [
        row(name, valid=False, reasons=[f"{name} {index}" for index in range(4)], advice=advice)
        for name, advice in (
            ("openvino", ["rare", "common"]),
            ("onnxruntime", ["common", "second", LONGER]),
            ("torch", ["common", "second"]),
        )
    ]
    lines = remarks(make(*rows))
    assert "openvino:fp32 is not valid: openvino 0; openvino 1 (+2 in the JSON report)" in lines
    assert [line for line in lines if line.startswith("advice")] == ["advice: common", "advice: second", "advice: rare"]
    rows[0]["enough_samples"] = 60
    rows[0]["advice"].append(more_samples(60))
    assert [line for line in remarks(make(*rows)) if line.startswith("advice")] == [
        "advice: common",
        "advice: second",
        f"advice: {more_samples(60)}",
    ]


def test_json_round_trip(tmp_path: Path) -> None:
    report = make(*FULL)
    write_report(report, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json").to_json() == json.loads(json.dumps(report.to_json()))


def test_nan_never_gets_into_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_report(make(row(load_ms=float("nan"))), tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()


def test_markdown_is_a_table_with_every_row() -> None:
    text = markdown(make(*FULL))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert "| openvino:fp32 |" in text
    assert "- skipped torch:fp32" in text


def test_csv_has_a_line_for_each_row() -> None:
    records = list(csv.DictReader(io.StringIO(csv_text(make(*FULL)))))
    assert [record["runtime"] for record in records] == ["openvino", "onnxruntime", "torch"]
    assert records[0]["forward_p50_ms"] == "10.0"
    assert records[0]["forward_count"] == "30"
    assert records[2]["skipped"] == "no weights"
    assert records[2]["forward_p50_ms"] == ""


def test_unknown_suffix_is_refused() -> None:
    with pytest.raises(HnxError, match=r"\.md or \.csv") as caught:
        check_output(Path("report.pdf"), REPORT_SUFFIXES)
    assert caught.value.code == ExitCode.USAGE


def test_outputs_that_could_not_be_written_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path, word in (
        (tmp_path, "it is a folder"),
        (file / "deep" / "r.json", "is a file, not a folder"),
        (Path("/dev/null"), "not an ordinary file"),
        (tmp_path / ("x" * 300), "name"),
    ):
        with pytest.raises(HnxError, match=word):
            check_output(path)
    check_output(file)
    check_output(tmp_path / "new" / "folder" / "r.json")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_folders_we_may_not_write_to_are_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(HnxError, match="Cannot write"):
        check_output(tmp_path / "r.json")


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", '{"schema_version": 99, "rows": []}', '{"schema_version": 1, "rows": [{"runtime": "a"}]}', "nonsense"],
)
def test_files_that_are_no_reports_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(HnxError):
        read_report(path)
