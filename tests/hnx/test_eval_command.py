"""`hnx eval` from the shell's side, on the small real bundle: exit codes, files and sentences."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hnx.evaluation
from benchmarks.accuracy import engine
from benchmarks.results import bundle_json
from hnx.__main__ import main
from hnx.commands import quickstart
from hnx.defaults import generated_split, resolve_split
from hybridnets.bundle import open_bundle
from hybridnets.dataset import open_split
from hybridnets.errors import HnxError
from hybridnets.project import load_project
from tests.benchmarks.fakes import report_of, report_row

DATA = Path(__file__).parents[1] / "data" / "parity" / "dataset"
ROOT = Path(engine.__file__).parents[2]
QUICK = ("--runtime", "opencv-dnn,ort:fp32", "--threads", "1", "--draws", "10", "--conf", "0.02")


@pytest.fixture
def evaluate(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run it in a folder of its own, three images of each row."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, limit: int = 3, data: Path | None = DATA) -> int:
        given = ["--data", str(data)] if data is not None else []
        return main(["eval", str(bundle_path), *QUICK, "--limit", str(limit), *given, *map(str, arguments)])

    return run


def load(path: Path) -> dict[str, Any]:
    def refuse(name: str) -> Any:
        raise ValueError(name)

    found: dict[str, Any] = json.loads(path.read_text(), parse_constant=refuse)
    return found


def test_a_report_of_two_runtimes(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "now.json", tmp_path / "now.md", tmp_path / "now.csv"]
    assert evaluate("--json", files[0], "--report", files[1], "--report", files[2], "-v") == 0
    captured = capsys.readouterr()
    assert "byte-identical inputs" in captured.out
    assert "Per class" in captured.out
    assert "untrained" in captured.out
    assert "evaluating opencv-dnn:fp32" in captured.err
    assert max(len(line) for line in captured.out.splitlines() if "|" in line) <= 120
    assert all(file.stat().st_size for file in files)
    report = load(files[0])
    assert report["schema_version"] == 1
    for row in report["rows"]:
        assert row.keys() >= {"runtime", "precision", "executed", "images", "labels", "metrics"}
        assert row["metrics"].keys() >= {"P", "R", "mAP50", "mAP50-95", "mIoU", "mAcc", "seg"}
        assert row["metrics"]["seg"]["road"].keys() == {"mIoU", "IoU", "Acc"}
        assert row["images"] == 3
        assert row["executed"] == "fp32"
    first, second = (row["metrics"] for row in report["rows"])
    assert first["R"] == pytest.approx(second["R"], abs=1e-4)
    assert first["mIoU"] == pytest.approx(second["mIoU"], abs=1e-4)
    assert report["inputs"]["identical"]
    assert report["settings"]["baseline"] == "opencv-dnn:fp32"

    # the same command again takes everything over, and the gate finds no drop
    again = tmp_path / "again.json"
    assert evaluate("--json", again, "--max-drop", "0.5") == 0
    assert "3 of 3 images were scored before" in capsys.readouterr().err
    assert [row["metrics"] for row in load(again)["rows"]] == [row["metrics"] for row in report["rows"]]


def test_shards_are_merged_to_what_one_run_gives(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("--json", "whole.json", "--store", "one") == 0
    for index in (1, 2):
        assert evaluate("--shard", f"{index}/2", "--json", f"{index}.json", "--store", f"s{index}") == 0
    assert "2.records" in capsys.readouterr().err
    assert main(["eval", "--merge", "1.json", "2.json", "--json", "merged.json", "--draws", "10"]) == 0
    whole, merged = load(tmp_path / "whole.json"), load(tmp_path / "merged.json")
    for key in ("metrics", "intervals", "drop", "input_sha256", "images", "labels"):
        assert [row.get(key) for row in merged["rows"]] == [row.get(key) for row in whole["rows"]]
    capsys.readouterr()
    assert main(["eval", "--merge", "1.json", "--json", "merged.json"]) == 2
    assert "2/2 missing" in capsys.readouterr().err
    assert main(["eval", "--merge", "1.json", "2.json", "--data", str(DATA), "--limit", "3"]) == 2
    assert "--merge with --data, --limit" in capsys.readouterr().err
    assert main(["eval", "--merge"]) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--runtime", "opnvino"], "did you mean 'openvino'"),
        (["--report", "table.pdf"], ".json, .md or .csv"),
        (["--protocol", "papr"], "papr"),
        (["--shard", "0/2"], "they count from 1"),
        (["--shard", "half"], "a shard is I/N"),
        (["--conf", "2"], "--conf 2"),
        (["--baseline", "torch", "--runtime", "opencv-dnn"], "is not evaluated"),
        (["--max-drop", "1", "--runtime", "opencv-dnn"], "nothing to compare with"),
        (["-p", "bdd10k"], "There is no project 'bdd10k'"),
        (["another"], "2 bundles are named"),
        (["--split", "../up"], "There is no split"),
        (["-p", str(DATA / "project_nc10_multilabel.yml")], "does not fit bundle"),
        (["-p", str(DATA / "project_nc1_binary.yml")], "seg_list"),
    ],
)
def test_usage_errors_come_before_any_work(
    evaluate: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.setattr(hnx.evaluation, "evaluate", None)
    assert evaluate(*arguments) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert not captured.out


def test_files_are_checked_before_any_work(
    evaluate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hnx.evaluation, "evaluate", None)
    (tmp_path / "file").write_text("")
    assert evaluate("--json", tmp_path) == 2
    assert evaluate("--json", tmp_path / "file" / "a.json") == 2
    assert evaluate("--store", tmp_path / "file") == 2
    assert evaluate(data=tmp_path / "nowhere") == 1
    pictures = tmp_path / "results" / "eval" / "pictures"
    pictures.mkdir(parents=True)
    (pictures / "mine.txt").write_text("")
    assert evaluate("--pictures", "2") == 2
    err = capsys.readouterr().err
    assert "nowhere" in err
    assert "pictures of an earlier evaluation" in err


def test_broken_images_are_a_warning_all_broken_an_error(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(DATA, tmp_path / "data")
    images = tmp_path / "data" / "imgs" / "val"
    (images / "val_01.jpg").write_bytes(b"no image")
    assert evaluate("--json", "a.json", data=tmp_path / "data") == 0
    captured = capsys.readouterr()
    assert "1 of 3 images could not be read" in captured.out
    assert "val_01.jpg" in captured.out
    assert "WARNING: 1 of 3" in captured.err
    assert load(tmp_path / "a.json")["data"]["broken"]["images"][0]["name"] == "val_01"
    for name in ("val_00", "val_02"):
        (images / f"{name}.jpg").write_bytes(b"")
    assert evaluate(data=tmp_path / "data") == 1
    assert "None of the 3 images can be evaluated" in capsys.readouterr().err


def test_nothing_could_run(evaluate: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--runtime", "onnxruntime:fp16") == 4
    captured = capsys.readouterr()
    assert "skipped onnxruntime:fp16" in captured.out
    assert "None of the rows could run here" in captured.err
    # a row that was asked for by name must have run to pass a gate
    assert evaluate("--runtime", "opencv-dnn,onnxruntime:fp16", "--max-drop", "90") == 3
    assert "onnxruntime:fp16 did not run" in capsys.readouterr().err


def test_a_drop_ends_with_three(
    evaluate: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    run = hnx.evaluation.evaluate

    def worse(config: Any) -> Any:
        result = run(config)
        result.report.rows[1]["drop"]["metrics"]["lane IoU"] = {"points": 1.25, "interval": [0.5, 2.0]}
        return result

    monkeypatch.setattr(hnx.evaluation, "evaluate", worse)
    assert evaluate("--max-drop", "1", "--json", "a.json") == 3
    err = capsys.readouterr().err
    assert "lane IoU: 1.25 points below" in err
    assert "+0.50 to +2.00" in err
    assert "untrained" in err
    assert (tmp_path / "a.json").exists()
    assert evaluate("--max-drop", "1.25") == 0


def test_pictures(evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--pictures", "1", "--runtime", "opencv-dnn,ort:fp32", "--protocol", "deploy") == 0
    folder = tmp_path / "results" / "eval" / "pictures"
    assert (folder / "index.html").exists()
    assert list(folder.glob("*worst*.jpg"))
    assert str(folder.relative_to(tmp_path)) in capsys.readouterr().err


def test_it_needs_neither_torch_nor_pycocotools_nor_matplotlib(bundle_path: Path, tmp_path: Path) -> None:
    for name in ("torch", "pycocotools", "matplotlib", "onnx", "safetensors"):
        (tmp_path / "none" / name).mkdir(parents=True)
        (tmp_path / "none" / name / "__init__.py").write_text("raise ImportError('not installed')")
    command = [sys.executable, "-m", "hnx", "eval", str(bundle_path), "--data", str(DATA), "--limit", "2"]
    done = subprocess.run(
        [*command, "--runtime", "opencv-dnn", "--conf", "0.02", "--pictures", "1", "--json", "a.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "none"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "pycocotools is not installed" in done.stdout
    assert "matplotlib is not installed" in done.stderr
    assert load(tmp_path / "a.json")["rows"][0]["metrics"]["coco"] is None


def test_ctrl_c_says_how_to_go_on_and_leaves_nothing(bundle_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hnx", "eval", str(bundle_path), "--data", str(DATA), "--runtime", "opencv-dnn"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = ""
    while "evaluating" not in line:
        line = process.stderr.readline()
    children = _children(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to go on" in err
    assert "Traceback" not in err
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


# -- what it works on when nothing is named ------------------------------------------------------------------


def test_generated_scenes_are_made_once_and_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    few = generated_split(load_project(), 1)
    assert len(few) == 1
    more = generated_split(load_project(), 2)
    assert len(more) == 2
    assert "making 1 labelled scenes" in capsys.readouterr().err
    again = generated_split(load_project(), 1)
    assert again.digest() == few.digest()
    assert "making" not in capsys.readouterr().err


def test_data_that_lie_where_the_project_says_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DATA, tmp_path / "datasets")
    assert len(resolve_split(load_project(), None, None)) == 12
    monkeypatch.setattr("hnx.defaults.generated_split", lambda project, scenes: None)
    shutil.rmtree(tmp_path / "datasets" / "imgs")
    with pytest.raises(HnxError, match="imgs"):
        resolve_split(load_project(), None, None)
    with pytest.raises(HnxError, match="train"):
        resolve_split(load_project(), None, "train")


@pytest.mark.parametrize(("limit", "scenes"), [(None, 64), (8, 8), (200, 64)])
def test_no_more_scenes_are_generated_than_are_used(
    limit: int | None, scenes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[int] = []

    def generated(project: Any, count: int) -> Any:
        asked.append(count)
        return open_split(load_project(), DATA)

    monkeypatch.setattr("hnx.defaults.generated_split", generated)
    resolve_split(load_project(), None, None, limit=limit)
    assert asked == [scenes]


def test_quickstart_evaluates_what_it_measured_in_fp32(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_of(report_row("opencv-dnn"), report_row("onnxruntime"), report_row("torch", "bf16"))
    few = replace(open_split(load_project(), DATA), names=("val_00", "val_01"))
    monkeypatch.setattr("hnx.defaults.generated_split", lambda project, scenes: few)
    bundle, path = open_bundle(bundle_path), tmp_path / "deep" / "eval.json"
    found = quickstart._evaluate(bundle, report, path)
    assert [row["runtime"] for row in load(path)["rows"]] == ["opencv-dnn", "onnxruntime"]
    (line,) = quickstart._agreement(found, path)
    assert "2 runtimes agree within 0.0" in line
    assert "on 2 generated scenes" in line
    assert found is not None
    table = tmp_path / "report.md"
    speed = replace(report, bundle=bundle_json(bundle))
    assert quickstart._join(speed, tmp_path / "bench.json", found, path, table) is not None
    assert "| opencv-dnn:fp32 |" in table.read_text()
    assert "untrained" in capsys.readouterr().out
    assert quickstart._join(report, tmp_path / "bench.json", found, path, table) is None
    assert "different networks" in capsys.readouterr().err

    # a network that the project does not fit is no reason to end
    assert quickstart._evaluate(replace(bundle, classes=("person",)), report, path) is None
    assert "no accuracy" in capsys.readouterr().err
    assert quickstart._evaluate(bundle, report_of(report_row("torch", "bf16")), path) is None
    assert quickstart._agreement(None, path) == []


def test_help_has_sections_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "-h"]) == 0
    text = capsys.readouterr().out
    for part in ("Network and data:", "Measuring:", "Report and gate:", "Long runs:", "--merge", "[default: paper]"):
        assert part in text
    assert text.count("  hnx eval ") >= 4
