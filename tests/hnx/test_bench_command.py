"""`hnx bench` from the shell's side: exit codes, files and sentences. No time is ever asserted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hnx.__main__ import main

SHORT = ["--iterations", "4", "--duration", "0.05", "--max-time", "20", "--threads", "1", "--fast"]


@pytest.fixture
def bench(bundle_path: Path) -> Callable[..., int]:
    """Run it shortly on the shared bundle."""

    def run(*arguments: object) -> int:
        return main(["bench", str(bundle_path), *SHORT, *map(str, arguments)])

    return run


def refuse_constants(name: str) -> Any:
    raise ValueError(name)


def test_report_of_two_runtimes(bench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "now.json"
    files = [tmp_path / "now.md", tmp_path / "now.csv"]
    assert (
        bench("--runtime", "opencv-dnn,ort,ort:fp16", "--json", path, "--report", files[0], "--report", files[1]) == 0
    )
    out = capsys.readouterr().out
    assert "opencv-dnn:fp32" in out
    assert "skipped onnxruntime:fp16" in out
    assert all(file.stat().st_size for file in files)

    report = json.loads(path.read_text(), parse_constant=refuse_constants)
    assert report["schema_version"] == 1
    assert report.keys() >= {"rows", "environment", "settings", "bundle"}
    assert report["bundle"]["untrained"] is True
    opencv, onnx, half = report["rows"]
    for row in (opencv, onnx):
        assert row["executed"] == "fp32"
        assert isinstance(row["valid"], bool)
        assert row["forward_ms"]["p50"] > 0
        assert row["end_to_end_ms"]["count"] >= 4
        assert row["execution"]["threads"] == 1
    assert half.keys() == {"runtime", "precision", "valid", "skipped"}

    # the gate: against itself with other figures
    for values, code in ((1e6, 0), (1e-6, 3)):
        for row in (opencv, onnx):
            row["forward_ms"]["p50"] = row["end_to_end_ms"]["p50"] = values
        earlier = tmp_path / "earlier.json"
        earlier.write_text(json.dumps(report))
        assert bench("--runtime", "opencv-dnn", "--against", earlier, "--max-regression", "50") == code
    err = capsys.readouterr().err
    assert "opencv-dnn:fp32 forward only: p50 went from 0.000 to" in err


def test_nothing_runnable_is_exit_code_4(
    bench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "now.json"
    assert bench("--runtime", "onnxruntime:fp16", "--json", path) == 4
    captured = capsys.readouterr()
    assert "skipped onnxruntime:fp16" in captured.out
    assert "None of the rows could run here" in captured.err
    assert json.loads(path.read_text())["rows"][0]["skipped"]["reason"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--runtime", "opnvino"], "did you mean 'openvino'"),
        (["--max-regression", "5"], "without --against"),
        (["--report", "table.pdf"], ".json, .md or .csv"),
        (["--streams", "2"], "without --scenario multi"),
        (["--scenario", "server"], "server"),
        (["--iterations", "0"], "iterations"),
        (["--baseline", "torch", "--runtime", "opencv-dnn"], "is not measured"),
    ],
)
def test_usage_errors_come_before_any_work(
    bench: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert bench(*arguments) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert not captured.out


def test_missing_files_are_named(bench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--against", tmp_path / "nothing.json") == 1
    assert bench("--source", tmp_path / "nothing.jpg", "--runtime", "opencv-dnn") == 1
    err = capsys.readouterr().err
    assert "nothing.json" in err
    assert "nothing.jpg" in err


def test_help_has_groups_defaults_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    for part in ("Model and input:", "Measuring:", "Report and gate:", "--fast", "--rigorous", "[default: all]", "-h,"):
        assert part in text
    assert text.count("  hnx bench ") == 2
