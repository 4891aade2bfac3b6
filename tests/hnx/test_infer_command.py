"""`hnx infer` as users call it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hnx.__main__ import main
from hnx.commands import infer
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.postprocess import Detections, Prediction
from hybridnets.preprocess import Letterbox
from hybridnets.sinks import rle_decode
from runtimes.base import Execution


class FakePredictor:
    """A predictor without a network: two boxes and half a picture of road on every frame."""

    def __init__(self, bundle: Bundle, fail_at: int | None = None) -> None:
        self.bundle, self.runtime, self.name = bundle, self, "fake"
        self.execution = Execution("fp32", "CPU", 1, "none")
        self.fail_at, self.calls = fail_at, 0

    def pipeline(self) -> FakePredictor:
        return self

    def network(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        if self.calls == self.fail_at:
            raise RuntimeError("the device is gone")
        self.calls += 1
        return {}

    def postprocess(self, outputs: dict[str, np.ndarray], box: Letterbox) -> Prediction:
        h, w = box.frame
        mask = np.zeros((h, w), np.uint8)
        mask[h // 2 :] = 1
        boxes = np.array([[0, 0, w / 2, h / 2], [w / 4, h / 4, w, h]], np.float32)
        found = Detections(boxes, np.array([0.9, 0.5], np.float32), np.zeros(2, np.int64))
        return Prediction(found, mask, box)

    def __enter__(self) -> FakePredictor:
        return self

    def __exit__(self, *args: object) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> dict[str, Any]:
    """`hnx infer` without a network; holds what the command asked for."""
    asked: dict[str, Any] = {"fail_at": None}

    def make(bundle: Bundle, *rest: object) -> FakePredictor:
        asked["rest"] = rest
        return FakePredictor(bundle, asked["fail_at"])

    monkeypatch.setattr(infer, "_predictor", make)
    asked["bundle"] = str(bundle_path)
    return asked


def run(fake: dict[str, Any], *arguments: str | Path) -> int:
    return main(["infer", "-b", fake["bundle"], *map(str, arguments)])


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def frames_in(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def test_the_real_thing(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--runtime", "opencv-dnn", "--save-json", "-o", str(tmp_path), "--conf", "0"]
    assert main(["infer", "-b", str(bundle_path), *arguments]) == 0
    assert names(tmp_path) == ["highway.jpg", "highway.jsonl"]
    record = json.loads((tmp_path / "highway.jsonl").read_text())
    bundle = open_bundle(bundle_path)
    assert (record["width"], record["height"], record["frame"]) == (1280, 720, 0)
    assert len(record["boxes"]) == len(record["scores"]) == len(record["classes"]) > 0
    assert list(record["segmentation"]) == list(bundle.seg_classes)
    masks = [rle_decode(rle) for rle in record["segmentation"].values()]
    assert {m.shape for m in masks} == {(720, 1280)}
    captured = capsys.readouterr()
    assert "highway.jpg" in captured.out or "2 files" in captured.out
    assert "frames/s" in captured.out
    assert "untrained" in captured.err


def test_shipped_frame(fake: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "-o", tmp_path / "new") == 0
    assert names(tmp_path / "new") == ["highway.jpg"]
    out = capsys.readouterr().out
    assert "1 image (2 × car)" in out
    assert "highway.jpg" in out


def test_video(fake: dict[str, Any], tmp_path: Path, road_video: Path) -> None:
    assert run(fake, road_video, "-o", tmp_path, "--save-json") == 0
    assert names(tmp_path) == ["highway_1280x720.jsonl", "highway_1280x720.mp4"]
    assert frames_in(tmp_path / "highway_1280x720.mp4") == 38
    assert cv2.VideoCapture(str(tmp_path / "highway_1280x720.mp4")).get(cv2.CAP_PROP_FPS) == 25.0
    lines = (tmp_path / "highway_1280x720.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(38))
    assert json.loads(lines[2])["time_ms"] == 80.0


def test_video_without_pictures(fake: dict[str, Any], tmp_path: Path, road_video: Path) -> None:
    for option in ("--no-draw", "--no-images"):
        assert run(fake, road_video, "-o", tmp_path / option, option) == 0
        assert names(tmp_path / option) == ["highway_1280x720.jsonl"]


def test_folder_with_damage(
    fake: dict[str, Any], tmp_path: Path, road_image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in put ü"
    source.mkdir()
    shutil.copy(road_image, source / "x.jpg")
    (source / "x.png").write_bytes(cv2.imencode(".png", np.zeros((5, 7), np.uint16))[1].tobytes())
    (source / "bad.jpg").write_bytes(b"")
    assert run(fake, source, "-o", tmp_path / "out", "--save-json") == 1
    assert names(tmp_path / "out") == ["in put ü.jsonl", "x.jpg", "x_2.jpg"]
    captured = capsys.readouterr()
    assert "2 images (4 × car)" in captured.out
    assert "bad.jpg" in captured.err
    assert "1 of 3 images could not be read" in captured.err


def test_nothing_could_be_read(fake: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"noise")
    assert run(fake, tmp_path, "-o", tmp_path / "out", "--save-json") == 1
    assert run(fake, tmp_path / "a.jpg", "-o", tmp_path / "out", "--save-json") == 1
    assert not (tmp_path / "out").exists() or not names(tmp_path / "out")
    assert "2 of 2 images could not be read" in capsys.readouterr().err


def test_cut_video(fake: dict[str, Any], tmp_path: Path, road_video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = road_video.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    assert run(fake, tmp_path / "cut.mp4", "-o", tmp_path / "out") == 1
    count = frames_in(tmp_path / "out" / "cut.mp4")
    assert 0 < count < 38
    assert f"ended after {count} of 38 frames" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["image", "video"])
def test_the_source_is_never_overwritten(
    fake: dict[str, Any], tmp_path: Path, road_image: Path, road_video: Path, kind: str
) -> None:
    original = road_image if kind == "image" else road_video
    source = tmp_path / original.name
    shutil.copy(original, source)
    assert run(fake, source, "-o", tmp_path) == 0
    assert source.read_bytes() == original.read_bytes()
    assert names(tmp_path) == sorted([source.name, f"{source.stem}_hnx{source.suffix}"])


def test_a_failing_device_keeps_what_was_written(
    fake: dict[str, Any], tmp_path: Path, road_video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake["fail_at"] = 20
    assert run(fake, road_video, "-o", tmp_path) == 1
    assert 0 < frames_in(tmp_path / "highway_1280x720.mp4") <= 20
    assert names(tmp_path) == ["highway_1280x720.mp4"]
    err = capsys.readouterr().err
    assert "the device is gone" in err
    assert "kept" in err


def test_upstreams_spellings(fake: dict[str, Any], tmp_path: Path, road_image: Path) -> None:
    options = ["--source", road_image, "--conf_thresh", "0.4", "--iou_thresh", "0.2", "--threads", "2"]
    assert run(fake, *options, "--workers", "2", "--precision", "bf16", "--compile", "-o", tmp_path) == 0
    runtime, options, *thresholds = fake["rest"]
    assert (runtime, options.precision, options.threads, options.streams, options.compile) == (
        "auto",
        "bf16",
        2,
        2,
        True,
    )
    assert thresholds == [0.4, 0.2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--conf", "1.5"],
        ["--iou", "-0.1"],
        ["--threads", "0"],
        ["--workers", "0"],
        ["a.jpg", "--source", "b.jpg"],
        ["-o", __file__],
    ],
)
def test_usage_errors(
    fake: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(fake, *arguments) == 2


@pytest.mark.parametrize("arguments", [["missing.mp4"], ["."], ["*.jpg"], ["rtsp://127.0.0.1:1/x"]])
def test_sources_that_fail(
    fake: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(fake, *arguments) == 1
    assert "fix:" in capsys.readouterr().err
    assert not names(tmp_path)


def test_output_that_cannot_be_made(fake: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(fake, "-o", tmp_path / "file" / "out") == 1
    assert "not a folder" in capsys.readouterr().err


def test_help() -> None:
    done = subprocess.run([sys.executable, "-m", "hnx", "infer", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.count("  hnx infer ") == 2
    assert "conf_thresh" not in done.stdout


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs signals")
def test_ctrl_c_finishes_the_video(bundle_path: Path, tmp_path: Path, road_video: Path) -> None:
    """A video repeated for long enough that the signal comes while frames are written."""
    long = tmp_path / "long.mp4"
    writer = cv2.VideoWriter(str(long), cv2.VideoWriter.fourcc(*"mp4v"), 25, (256, 128))
    for level in range(1000):
        writer.write(np.full((128, 256, 3), level % 250, np.uint8))
    writer.release()
    out = tmp_path / "out"
    command = [sys.executable, "-m", "hnx", "infer", str(long), "-b", str(bundle_path), "-o", str(out), "--save-json"]
    process = subprocess.Popen(
        [*command, "--runtime", "opencv-dnn"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        # the temporary file grows once some frames are written
        if any(p.stat().st_size for p in (out.glob(".*.jsonl") if out.is_dir() else ())):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert names(out) == ["long.jsonl", "long.mp4"]
    count = frames_in(out / "long.mp4")
    assert 0 < count < 1000
    lines = (out / "long.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(count))
    assert f"{count} frame" in output
    assert "stopped by Ctrl-C" in errors
