"""What the other commands make of a setting that `hnx tune` kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.config import planned_rows
from hnx.__main__ import main
from hybridnets.bundle import open_bundle
from hybridnets.bundle.tuning import TunedRow, Tuning, store_tuning, tuned_file
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime
from runtimes.predictor import load
from runtimes.registry import entry as runtime_entry
from runtimes.registry import probe
from runtimes.tuned import place_here

# not fp32, so that it shows; every CPU with OpenVINO has one of the two or neither
NATIVE = next((name for name in ("bf16", "fp16") if name in probe(runtime_entry("openvino")).runnable()), "fp32")


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tuned for one thread of OpenVINO."""
    monkeypatch.setenv("HNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(bundle_path, tmp_path / "bundle"))
    opened = open_bundle(folder)
    file = opened.variants[0].file
    row = TunedRow(NATIVE, 1, 1, 1.0, (0.6, 0.6, 0.6), {}, "chosen")
    sha256 = str(opened.manifest["files"][file]["sha256"])
    place = place_here("openvino")
    tuning = Tuning(NATIVE, 1, 1, file, sha256, "latency", "labels", 0.5, 9, "s", place, (row,), "2026-01-01")
    store_tuning(opened, "openvino", tuning)
    return folder


def another_machine(folder: Path) -> None:
    opened = open_bundle(folder)
    tuning = Tuning.from_json(opened.manifest["tuning"]["openvino"])
    store_tuning(opened, "openvino", replace(tuning, place=replace(tuning.place, cpu="another")))


def test_open_runtime_takes_precision_and_threads(bundle: Path) -> None:
    opened = open_bundle(bundle)
    for word in ("openvino", "auto"):
        with open_runtime(word, opened, RuntimeOptions("tuned")) as runtime:
            assert runtime.name == "openvino"
            assert (runtime.execution.precision, runtime.execution.threads) == (NATIVE, 1)
    with load(opened, precision="tuned") as model:
        assert model.runtime.execution.precision == NATIVE
    with pytest.raises(HnxError, match="not tuned for onnxruntime") as caught:
        open_runtime("onnxruntime", opened, RuntimeOptions("tuned"))
    assert caught.value.code == ExitCode.NOTHING_RAN


def test_infer_runs_it_unless_told_otherwise(
    bundle: Path, road_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["infer", str(road_image), "-b", str(bundle), "-o", str(tmp_path / "out"), "--no-draw"]
    assert main(words) == ExitCode.OK
    captured = capsys.readouterr()
    assert f"openvino {NATIVE}" in captured.out
    assert f"as hnx tune found it fastest: {NATIVE}, 1 thread(s)" in captured.err
    assert main([*words, "--runtime", "openvino", "--precision", "fp32"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "openvino fp32" in captured.out
    assert "hnx tune" not in captured.err
    another_machine(bundle)
    assert main([*words, "--runtime", "openvino"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "openvino fp32" in captured.out
    assert "is not used here: CPU: another then" in captured.err


def test_infer_names_the_streams_of_a_throughput(
    bundle: Path, road_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_bundle(bundle)
    kept = Tuning.from_json(opened.manifest["tuning"]["openvino"])
    row = replace(kept.rows[0], streams=2)
    store_tuning(opened, "openvino", replace(kept, streams=2, goal="throughput", rows=(row,)))
    words = ["infer", str(road_image), "-b", str(bundle), "-o", str(tmp_path / "out"), "--no-draw"]
    assert main(words) == ExitCode.OK
    assert f"{NATIVE}, 1 thread(s), 2 streams" in capsys.readouterr().err


def test_rows_of_a_runtime_without_precision(bundle: Path, bundle_path: Path) -> None:
    assert ("openvino", "tuned") in planned_rows("openvino,torch", open_bundle(bundle))
    assert ("torch", "tuned") not in planned_rows("openvino,torch", open_bundle(bundle))
    assert ("openvino", "tuned") not in planned_rows("openvino", open_bundle(bundle_path))
    assert planned_rows("ov:tuned") == [("openvino", "tuned")]


def test_bench_has_a_row_for_it(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "bench.json"
    words = ["bench", str(bundle), "--fast", "--iterations", "4", "--max-time", "5", "--json", str(report)]
    assert main([*words, "--runtime", "openvino:fp32,openvino:tuned"]) == ExitCode.OK
    row = json.loads(report.read_text())["rows"][1]
    assert (row["precision"], row["executed"], row["execution"]["threads"]) == ("tuned", NATIVE, 1)
    assert "was asked for" not in str(row["reasons"])
    another_machine(bundle)
    assert main([*words, "--runtime", "openvino:tuned"]) == ExitCode.NOTHING_RAN
    assert "another then" in capsys.readouterr().out


def test_eval_takes_over_what_the_same_precision_scored(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "eval.json"
    words = ["eval", str(bundle), "--data", str(data / "parity" / "dataset"), "--limit", "2", "--threads", "1"]
    rows = f"openvino:{NATIVE},openvino:tuned"
    assert main([*words, "--draws", "0", "--json", str(report), "--runtime", rows]) == ExitCode.OK
    first, second = json.loads(report.read_text())["rows"]
    assert second["precision"] == "tuned"
    assert second["executed"] == NATIVE
    assert second["resumed_images"] == 2
    assert first["metrics"] == second["metrics"]
    assert "taken over" in capsys.readouterr().err


def test_eval_scores_a_graph_of_its_own_anew(bundle: Path, data: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    kept = Tuning.from_json(opened.manifest["tuning"]["openvino"])
    source = opened.file(kept.file)
    made = replace(
        kept,
        file=tuned_file(opened, kept.sha256),
        rewrites="none",
        rows=(replace(kept.rows[0], rewrites="none"),),
    )
    store_tuning(opened, "openvino", made, source)
    report = tmp_path / "eval.json"
    words = ["eval", str(bundle), "--data", str(data / "parity" / "dataset"), "--limit", "2", "--threads", "1"]
    rows = f"openvino:{NATIVE},openvino:tuned"
    assert main([*words, "--draws", "0", "--json", str(report), "--runtime", rows]) == ExitCode.OK
    first, second = json.loads(report.read_text())["rows"]
    assert second["network"] == {"file": made.file, "sha256": made.sha256, "rewrites": "none"}
    assert "network" not in first
    assert second["resumed_images"] == 0
    assert (second["executed"], second["images"]) == (NATIVE, 2)
    assert first["metrics"] == second["metrics"]  # it is a copy of the same graph


def test_compare_judges_it_by_what_runs(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(bundle), "--runtime", f"openvino:{NATIVE},openvino:tuned"]) == ExitCode.OK
    assert "equal within" in capsys.readouterr().out
