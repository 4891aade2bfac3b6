"""`hnx bench` and `hnx quickstart` from the shell's side: exit codes, files and sentences. No time is ever asserted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import latency
from benchmarks.latency import Progress
from benchmarks.report import Report, write_report
from hnx.__main__ import main
from hnx.commands import quickstart
from hybridnets.bundle import open_bundle
from tests.benchmarks.fakes import report_of, report_row

SHORT = ["--iterations", "4", "--duration", "0.05", "--max-time", "20", "--threads", "1", "--fast", "--power", "off"]


def no_sysfs(glob: Callable[..., Any]) -> Callable[..., Any]:
    """`Path.glob` on a machine that shows nothing below /sys."""
    return lambda self, pattern: iter(()) if pattern.startswith("sys/") else glob(self, pattern)


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
        bench("--runtime", "opencv-dnn,ort:fp32,ort:fp16", "--json", path, "--report", files[0], "--report", files[1])
        == 0
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


def test_power_that_is_not_there_is_one_line_and_no_failure(
    bench: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "glob", no_sysfs(Path.glob))
    path = tmp_path / "now.json"
    assert bench("--runtime", "opencv-dnn", "--power", "rapl", "--idle", "0", "--json", path) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if "power" in line] == [
        "no power from rapl: no RAPL energy counters in /sys/class/powercap"
    ]
    report = json.loads(path.read_text())
    assert report["power"]["missing"] == {"rapl": "no RAPL energy counters in /sys/class/powercap"}
    assert "forward" not in report["rows"][0].get("power", {})


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
        (["--power", "raple"], "did you mean 'rapl'"),
        (["--power", "off", "--idle", "3"], "--idle with --power off"),
        (["--power", "auto", "--idle", "-1"], "--idle -1.0"),
        (["--cool-down", "0"], "--cool-down 0.0"),
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


@pytest.fixture
def never_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring is a bug here."""

    def measured(*arguments: object) -> None:
        raise AssertionError("it was measured")

    monkeypatch.setattr(latency, "run_bench", measured)


@pytest.mark.usefixtures("never_measure")
@pytest.mark.parametrize(
    ("option", "name", "sentence"),
    [
        ("--json", "", "it is a folder"),
        ("--json", "file/now.json", "is a file, not a folder"),
        ("--report", "file/deep/now.md", "is a file, not a folder"),
        ("--report", "folder.csv", "it is a folder"),
    ],
)
def test_impossible_outputs_are_refused_before_measuring(
    bench: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    name: str,
    sentence: str,
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    assert bench(option, tmp_path / name) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert not captured.out


@pytest.mark.usefixtures("never_measure")
def test_reports_that_cannot_be_compared_are_refused_before_measuring(
    bench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = tmp_path / "earlier.json"
    write_report(report_of(report_row(), threads=64), earlier)
    assert bench("--against", earlier) == 1
    assert "threads was 64, now it is 1" in capsys.readouterr().err
    write_report(report_of(report_row("torch"), threads=1), earlier)
    assert bench("--against", earlier, "--runtime", "openvino") == 1
    assert "no row measured then" in capsys.readouterr().err


def test_quickstart_says_one_line_for_each_phase_off_a_terminal(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: object, on_progress: Callable[[Progress], None]) -> Report:
        for phase in ("loading", "measuring", "going on"):
            for step in range(5):
                on_progress(Progress(phase, f"step {step}", step, 5))
        return report_of(report_row())

    monkeypatch.setattr(latency, "run_bench", run)
    quickstart._measure(open_bundle(bundle_path))
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.usefixtures("never_measure")
def test_quickstart_refuses_an_impossible_folder_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["quickstart", "-o", str(tmp_path / "file" / "deep")]) == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def test_help_has_groups_defaults_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    for part in (
        "Model and input:",
        "Measuring:",
        "Power and",
        "Report and gate:",
        "--fast",
        "--rigorous",
        "[default: all]",
        "-h,",
    ):
        assert part in text
    assert text.count("  hnx bench ") == 3
