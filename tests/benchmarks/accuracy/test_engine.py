"""The evaluation's orchestration, with runtimes of our own: in this process, and in real ones that die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import hybridnets.bundle
from benchmarks.accuracy import engine, place
from benchmarks.accuracy.engine import EvalProgress, run_eval
from benchmarks.accuracy.predictions import predictor
from benchmarks.accuracy.summary import EvalResult
from benchmarks.children import ChildWorker, WorkerDiedError
from hybridnets.dataset import open_split
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import load_project
from runtimes import registry
from tests.benchmarks.accuracy.eval_fakes import CHILD, DATA, LocalWorker, config, use
from tests.benchmarks.fakes import alive, fake_bundle


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = cv2.getNumThreads()
    monkeypatch.setattr(hybridnets.bundle, "open_bundle", lambda path, verify=True: fake_bundle())
    monkeypatch.setattr(registry, "REGISTRY", use("seeing"))
    monkeypatch.setattr(engine, "CHUNK", 5)
    yield
    cv2.setNumThreads(threads)


def run(store: Path, *, start: Callable[[], Any] = LocalWorker, **changes: Any) -> tuple[EvalResult, list[str]]:
    notes: list[str] = []
    return run_eval(config(store, **changes), None, notes.append, start=start), notes


def row_of(result: EvalResult, name: str) -> dict[str, Any]:
    return next(dict(row) for row in result.report.rows if f"{row['runtime']}:{row['precision']}" == name)


def figures(result: EvalResult) -> str:
    """Everything that must not depend on how the run was cut."""
    keys = ("metrics", "intervals", "drop", "input_sha256", "images", "labels", "skipped")
    rows = [{key: row.get(key) for key in ("runtime", "precision", *keys)} for row in result.report.rows]
    return json.dumps([rows, result.report.inputs, result.report.data["broken"]])


def test_a_report_holds_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "REGISTRY", use("seeing", "blurred", precisions=("fp32", "bf16", "fp16")))
    steps: list[EvalProgress] = []
    result = run_eval(config(tmp_path), steps.append, start=LocalWorker)
    report = result.report
    json.dumps(report.to_json(), allow_nan=False)
    assert report.to_json().keys() >= {
        "schema_version",
        "rows",
        "data",
        "protocol",
        "bundle",
        "environment",
        "settings",
    }
    row = row_of(result, "seeing:fp32")
    assert (row["executed"], row["images"], row["labels"]) == ("fp32", 12, 189)
    assert row["execution"] == {"device": "CPU", "threads": 1, "library": "seeing 1", "details": {"answer": 42}}
    assert 0 < row["metrics"]["seg"]["road"]["IoU"] < 1
    assert row["metrics"]["R"] > 0
    low, high = row["intervals"]["road mIoU"]
    assert low <= row["metrics"]["seg"]["road"]["mIoU"] <= high
    assert "drop" not in row
    # the baseline is the first fp32 row; the same network has no drop, the blurred one does
    assert report.baseline == "seeing:fp32"
    assert row_of(result, "blurred:fp32")["drop"]["metrics"]["road mIoU"] == {"points": 0.0, "interval": [0.0, 0.0]}
    lost = row_of(result, "blurred:bf16")["drop"]["metrics"]["road IoU"]
    expected = row["metrics"]["seg"]["road"]["IoU"] - row_of(result, "blurred:bf16")["metrics"]["seg"]["road"]["IoU"]
    assert lost["points"] == pytest.approx(100 * expected)
    assert lost["interval"][0] <= lost["points"] <= lost["interval"][1]
    assert lost["points"] != 0
    assert "fp16" in row_of(result, "seeing:fp16")["skipped"]["reason"]
    assert not row_of(result, "seeing:fp16")["skipped"]["failed"]
    assert report.inputs["identical"]
    assert report.inputs["sha256"] == row["input_sha256"]
    assert report.data["images"] == 12
    assert report.data["path"] == str(DATA)
    assert report.protocol == {"name": "paper", "conf": 0.001, "iou": 0.6, "at": "input"}
    done = [step.done for step in steps if step.row]
    assert done == sorted(done)
    assert max(done) <= steps[0].total == 72


def test_inputs_are_those_of_the_one_preprocessing(tmp_path: Path) -> None:
    from benchmarks.frames import tensor_sha256
    from hybridnets.sources import read_image

    result, _ = run(tmp_path)
    tensor = fake_bundle().preprocessor()(read_image(DATA / "imgs" / "val" / "val_07.jpg"))[0]
    assert result.rows[0].inputs["val_07"] == tensor_sha256(tensor)


def test_the_frame_protocol_and_reading_processes(tmp_path: Path) -> None:
    thread, _ = run(tmp_path / "a", protocol="deploy", workers=0)
    processes, _ = run(tmp_path / "b", protocol="deploy", workers=2)
    assert figures(thread) == figures(processes)
    paper, _ = run(tmp_path / "c")
    assert figures(paper) != figures(thread)


# -- going on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["score", "save"])
def test_an_interrupted_run_goes_on_and_gives_the_same(tmp_path: Path, command: str) -> None:
    whole, _ = run(tmp_path / "whole")
    calls = 0

    def interrupt(name: str) -> None:
        nonlocal calls
        calls += name == command
        if name == command and calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", start=lambda: LocalWorker(interrupt))
    again, notes = run(tmp_path / "cut")
    assert figures(again) == figures(whole)
    assert again.rows[0].resumed > 0 or command == "score"
    if command == "save":
        assert again.rows[0].resumed == 10
        assert "10 of 12 images were scored before" in notes[0]


def test_a_finished_run_starts_no_process(tmp_path: Path) -> None:
    whole, _ = run(tmp_path)

    def never() -> Any:
        raise AssertionError("a process was started")

    again, notes = run(tmp_path, start=never)
    assert figures(again) == figures(whole)
    assert row_of(again, "seeing:fp32")["execution"]["library"] == "seeing 1"
    assert "12 of 12" in notes[0]
    assert row_of(again, "seeing:fp32")["resumed_images"] == 12
    fresh, notes = run(tmp_path, fresh=True)
    assert fresh.rows[0].resumed == 0
    assert not notes
    assert figures(fresh) == figures(whole)


def test_other_conditions_start_anew(tmp_path: Path) -> None:
    run(tmp_path, limit=2)
    for changes in ({"conf": 0.01}, {"iou": 0.5}, {"protocol": "deploy"}, {"threads": 2}):
        again, notes = run(tmp_path, limit=2, **changes)
        assert again.rows[0].resumed == 0, changes
        assert not notes


def test_changed_data_start_anew(tmp_path: Path) -> None:
    shutil.copytree(DATA, tmp_path / "data")
    split = open_split(load_project(), tmp_path / "data")
    run(tmp_path / "store", split=split, limit=2)
    label = tmp_path / "data" / "det_annot" / "val" / "val_04.json"
    label.write_text(label.read_text() + "\n")
    again, notes = run(tmp_path / "store", split=split, limit=2)
    assert again.rows[0].resumed == 0
    assert not notes


def test_what_a_part_scored_is_taken_over_by_the_whole(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "parts", limit=3)
    again, notes = run(tmp_path / "parts")
    assert "3 of 12" in notes[0]
    assert figures(again) == figures(whole)
    few, _ = run(tmp_path / "parts", limit=4)
    assert row_of(few, "seeing:fp32")["images"] == 4


# -- trouble -------------------------------------------------------------------------------------------------


def damaged(folder: Path, *names: str) -> Any:
    shutil.copytree(DATA, folder)
    for name in names:
        (folder / "imgs" / "val" / f"{name}.jpg").write_bytes(b"no image")
    return open_split(load_project(), folder)


def test_broken_images_are_counted_and_named(tmp_path: Path) -> None:
    split = damaged(tmp_path / "data", "val_02", "val_09")
    result, _ = run(tmp_path / "store", split=split)
    assert row_of(result, "seeing:fp32")["images"] == 10
    broken = result.report.data["broken"]
    assert broken["count"] == 2
    assert [item["name"] for item in broken["images"]] == ["val_02", "val_09"]
    assert "val_02.jpg" in broken["images"][0]["reason"]
    again, _ = run(tmp_path / "store", split=split)
    assert figures(again) == figures(result)


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    split = damaged(tmp_path / "data", *(f"val_{number:02d}" for number in range(12)))
    with pytest.raises(HnxError, match="None of the 12 images") as error:
        run(tmp_path / "store", split=split)
    assert error.value.code == ExitCode.FAILED
    assert "val_00.jpg" in error.value.why


def test_nan_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "REGISTRY", use("broken"))
    result, _ = run(tmp_path)
    assert row_of(result, "broken:fp32")["nonfinite"]["count"] == 12
    json.dumps(result.report.to_json(), allow_nan=False)


def test_a_row_that_cannot_load_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "REGISTRY", use("refusing", "seeing"))
    result, _ = run(tmp_path)
    assert row_of(result, "refusing:fp32")["skipped"]["failed"]
    assert "no such engine" in row_of(result, "refusing:fp32")["skipped"]["reason"]
    assert row_of(result, "seeing:fp32")["images"] == 12


def test_rows_that_saw_other_images_are_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "REGISTRY", use("seeing", "blurred"))
    shutil.copytree(DATA, tmp_path / "data")
    split = open_split(load_project(), tmp_path / "data")
    opened = 0

    def swap(command: str) -> None:
        nonlocal opened
        opened += command == "open"
        if command == "open" and opened == 2:
            image = np.zeros((720, 1280, 3), np.uint8)
            cv2.imwrite(str(tmp_path / "data" / "imgs" / "val" / "val_05.jpg"), image)

    result, _ = run(tmp_path / "store", split=split, start=lambda: LocalWorker(swap))
    assert result.report.inputs == {"identical": False, "sha256": None, "differing": ["val_05"]}


def test_a_full_disk_ends_the_run_with_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*arguments: Any) -> str:
        raise HnxError("Cannot write the store", why="the disk is full", fix="free some space")

    monkeypatch.setattr("benchmarks.accuracy.worker.write_chunk", full)
    with pytest.raises(HnxError, match="the disk is full"):
        run(tmp_path)


@pytest.mark.parametrize("number", [13, 30])
def test_a_store_that_cannot_be_written_is_no_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    def refuse(dir: Path) -> Any:
        raise OSError(number, os.strerror(number), str(dir))

    monkeypatch.setattr(place.tempfile, "TemporaryFile", refuse)
    result, notes = run(tmp_path / "store")
    assert row_of(result, "seeing:fp32")["images"] == 12
    assert "cannot go on after an interruption" in notes[0]
    assert not (tmp_path / "store").exists()


def test_a_file_in_the_place_of_the_store_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(HnxError, match="store"):
        run(tmp_path / "store")


# -- real processes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deaths", "restarts"), [(1, 1), (9, 1)])
def test_a_killed_process_is_started_again_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deaths: int, restarts: int
) -> None:
    counter = tmp_path / "deaths"
    counter.write_text(str(deaths))
    monkeypatch.setenv("DEATHS", str(counter))
    monkeypatch.setattr(registry, "REGISTRY", use("mortal", "seeing"))
    started: list[ChildWorker] = []

    def start() -> ChildWorker:
        started.append(ChildWorker(CHILD))
        return started[-1]

    result, notes = run(tmp_path / "store", start=start, limit=6)
    assert "SIGKILL" in notes[0]
    assert "starting it again" in notes[0]
    row = row_of(result, "mortal:fp32")
    if deaths == 1:
        expected, _ = run(tmp_path / "other", limit=6, runtimes="seeing")
        assert row["metrics"] == row_of(expected, "seeing:fp32")["metrics"]
        assert row["restarts"] == restarts
    else:
        assert row["skipped"]["failed"]
        assert "SIGKILL" in row["skipped"]["reason"]
    assert row_of(result, "seeing:fp32")["images"] == 6
    assert not any(alive(child.pid) for child in started)


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    started: list[ChildWorker] = []

    def start() -> ChildWorker:
        started.append(ChildWorker(CHILD))
        return started[-1]

    def interrupt(progress: EvalProgress) -> None:
        if progress.text == "evaluating":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_eval(config(tmp_path, workers=1), interrupt, start=start)
    assert started
    assert not any(alive(child.pid) for child in started)


def test_a_killed_parent_takes_its_processes_along_and_the_next_goes_on(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from benchmarks.accuracy import engine
from benchmarks.accuracy.engine import run_eval
from benchmarks.children import ChildWorker
from runtimes import registry
from tests.benchmarks.accuracy.eval_fakes import CHILD, config, use
registry.REGISTRY = use("seeing")
engine.CHUNK = 2
def start():
    child = ChildWorker(CHILD)
    print(child.pid, flush=True)
    return child
def kill(progress):
    if progress.done >= 5:
        os.kill(os.getpid(), signal.SIGKILL)
run_eval(config(Path({str(tmp_path)!r})), kill, start=start)
"""
    root = Path(engine.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout.splitlines()[0])
    end = time.monotonic() + 30
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(pid)
    again, notes = run(tmp_path)
    assert again.rows[0].resumed >= 4
    assert "taken over" in notes[0]
    assert row_of(again, "seeing:fp32")["images"] == 12


def test_predictions_are_those_of_the_pipeline(tmp_path: Path) -> None:
    from runtimes.opening import open_runtime
    from runtimes.predictor import Pipeline

    chosen = config(tmp_path)
    found = list(predictor(chosen, "seeing", "fp32", start=LocalWorker)(["val_03", "val_01"]))
    pipeline = Pipeline(open_runtime("seeing", fake_bundle()), conf=0.25, iou=0.6)
    for name, prediction in zip(["val_03", "val_01"], found, strict=True):
        expected = pipeline(cv2.imread(str(DATA / "imgs" / "val" / f"{name}.jpg")))
        np.testing.assert_array_equal(prediction.detections.boxes, expected.detections.boxes)
        np.testing.assert_array_equal(prediction.detections.scores, expected.detections.scores)
        assert expected.segmentation is not None
        assert prediction.segmentation is not None
        np.testing.assert_array_equal(prediction.segmentation, expected.segmentation)
        assert prediction.letterbox == expected.letterbox


def test_a_process_that_dies_while_loading_is_tried_twice(tmp_path: Path) -> None:
    opened = 0

    def die(command: str) -> None:
        nonlocal opened
        opened += command == "open"
        if command == "open":
            raise WorkerDiedError("The process died", why="signal SIGSEGV")

    result, notes = run(tmp_path, start=lambda: LocalWorker(die))
    assert opened == 2
    assert "loading" in notes[0]
    assert row_of(result, "seeing:fp32")["skipped"]["failed"]
