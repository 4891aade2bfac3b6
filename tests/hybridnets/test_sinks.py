"""Files that are whole or absent, and run lengths."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from hybridnets.errors import HnxError
from hybridnets.postprocess import Detections, Prediction
from hybridnets.preprocess import Letterbox
from hybridnets.sinks import (
    JsonLinesSink,
    OutputNames,
    VideoSink,
    frame_record,
    rle_decode,
    rle_encode,
    write_image,
)
from hybridnets.sources import Frame


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (item := capture.read())[0]:
        frames.append(item[1])
    return frames


def naive_rle(mask: np.ndarray) -> list[int]:
    counts, current, run = [], 0, 0
    for value in mask.T.ravel().tolist():
        if value != current:
            counts.append(run)
            current, run = value, 0
        run += 1
    return [*counts, run]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (13, 9), (64, 48)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_rle_equals_a_loop(size: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(3).random(size) < share
    rle = rle_encode(mask)
    assert rle == {"size": list(size), "counts": naive_rle(mask.astype(int))}
    assert np.array_equal(rle_decode(rle), mask)
    assert rle_encode(mask.astype(np.uint8) * 7) == rle
    assert rle_encode(np.asfortranarray(mask)) == rle


def test_rle_of_cocos_documentation() -> None:
    # the API's own example, "[0 0 1 1 1 0 1] -> [2 3 1 1]" and "[1 1 1 1 1 1 0] -> [0 6 1]"
    assert rle_encode(np.array([[0, 0, 1, 1, 1, 0, 1]]).T)["counts"] == [2, 3, 1, 1]
    assert rle_encode(np.array([[1, 1, 1, 1, 1, 1, 0]]).T)["counts"] == [0, 6, 1]


@pytest.mark.parametrize("counts", [[3], [2, 3], [5, -1], []])
def test_rle_that_does_not_fit(counts: list[int]) -> None:
    with pytest.raises(HnxError, match="Run lengths"):
        rle_decode({"size": [2, 2], "counts": counts})


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1), (3, 200)])
@pytest.mark.parametrize("fps", [25.0, 29.97, 240.1234])
def test_video(tmp_path: Path, size: tuple[int, int], fps: float) -> None:
    path = tmp_path / "new folder" / "a video ü.mp4"
    with VideoSink(path, fps, size) as sink:
        for level in (10, 100, 200):
            sink.write(np.full((*size, 3), level, np.uint8))
        assert not path.exists()
    frames = frames_of(path)
    assert [round(float(f.mean()), -1) for f in frames] == [10, 100, 200]
    assert frames[0].shape[:2] == tuple(v + v % 2 for v in size)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == pytest.approx(fps, abs=0.01)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_frames_of_another_size_are_fitted(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "v.mp4", 25, (48, 64)) as sink:
        sink.write(np.zeros((48, 64, 3), np.uint8))
        sink.write(np.zeros((96, 100, 3), np.uint8))
    assert len(frames_of(tmp_path / "v.mp4")) == 2


@pytest.mark.parametrize("kind", ["video", "json"])
def test_nothing_is_left_after_an_error(tmp_path: Path, kind: str) -> None:
    with pytest.raises(RuntimeError), _sink(tmp_path, kind) as sink:
        sink.write(np.zeros((48, 64, 3), np.uint8) if kind == "video" else {"frame": 0})
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())
    sink.close()
    sink.discard()
    assert not list(tmp_path.iterdir())


def _sink(folder: Path, kind: str) -> VideoSink | JsonLinesSink:
    return VideoSink(folder / "v.mp4", 25, (48, 64)) if kind == "video" else JsonLinesSink(folder / "v.jsonl")


def test_an_existing_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text("old")
    with pytest.raises(RuntimeError), JsonLinesSink(path) as sink:
        sink.write({"frame": 0})
        raise RuntimeError("stop")
    assert path.read_text() == "old"


def test_a_full_disk_is_seen_before_it_is_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = VideoSink(tmp_path / "v.mp4", 25, (48, 64))
    sink.write(np.zeros((48, 64, 3), np.uint8))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(HnxError, match="after 1 frames") as caught:
        sink.write(np.zeros((48, 64, 3), np.uint8))
    assert "full" in caught.value.why
    sink.close()
    assert len(frames_of(tmp_path / "v.mp4")) == 1  # what fitted is kept


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("kind", ["video", "json"])
def test_writes_that_fail_are_reported(tmp_path: Path, kind: str) -> None:
    """A limit on the size of files stands for a full disk; it needs a process of its own."""
    code = f"""
import resource
import numpy as np
from pathlib import Path
from hybridnets.errors import HnxError
from hybridnets.sinks import JsonLinesSink, VideoSink
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
noise = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
try:
    if {kind!r} == "video":
        with VideoSink(Path("v.mp4"), 25, (360, 640)) as sink:
            for _ in range(20):
                sink.write(noise)
    else:
        with JsonLinesSink(Path("v.jsonl")) as sink:
            for _ in range(200):
                sink.write({{"values": noise[0].tolist()}})
except HnxError as error:
    print(error)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert "Cannot write" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    code = """
import resource
from pathlib import Path
from hybridnets.errors import HnxError
from hybridnets.sinks import JsonLinesSink
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sink = JsonLinesSink(Path("v.jsonl"))
try:
    for number in range(200):
        sink.write({"frame": number, "values": [0] * 999})
except HnxError:
    sink.close()
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, check=True)
    lines = (tmp_path / "v.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(len(lines)))
    assert len(lines) > 10


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for make in (
        lambda: VideoSink(blocked / "v.mp4", 25, (48, 64)),
        lambda: JsonLinesSink(blocked / "v.jsonl"),
        lambda: write_image(blocked / "v.jpg", np.zeros((4, 4, 3), np.uint8)),
    ):
        with pytest.raises(HnxError, match="Cannot write"):
            make()
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(HnxError, match="Cannot write"):
        write_image(tmp_path / "x.jpg", np.zeros((4, 4, 3), np.uint8))


def test_picture(tmp_path: Path) -> None:
    path = tmp_path / "ä b" / "x.jpg"
    write_image(path, np.full((1, 1, 3), 200, np.uint8))
    assert cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), 1).shape == (1, 1, 3)
    with pytest.raises(HnxError, match="Cannot write") as caught:
        write_image(tmp_path / "wide.jpg", np.zeros((1, 70000, 3), np.uint8))
    assert "65535" in caught.value.why


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    records = [{"source": "ü\udcff.jpg", "frame": i} for i in range(3)]
    with JsonLinesSink(path) as sink:
        for record in records:
            sink.write(record)
        assert not path.exists()
        with pytest.raises(HnxError, match="frame 7"):
            sink.write({"source": "x", "frame": 7, "boxes": [[float("nan")]]})
    lines = path.read_bytes().decode("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == records
    assert "ü" in lines[0]


def test_record() -> None:
    segmentation = np.array([[0, 1], [2, 1]], np.uint8)
    found = Detections(
        np.array([[0.123456, 1, 2, 3]], np.float32), np.array([0.87654], np.float32), np.array([0], np.int64)
    )
    prediction = Prediction(found, segmentation, Letterbox.fit((2, 2), (128, 128)))
    frame = Frame(np.zeros((2, 2, 3), np.uint8), "a.mp4", 5, 200.0)
    record = json.loads(json.dumps(frame_record(frame, prediction, ("car",), ("road", "lane"))))
    assert record == {
        "source": "a.mp4",
        "frame": 5,
        "width": 2,
        "height": 2,
        "time_ms": 200.0,
        "boxes": [[0.12, 1.0, 2.0, 3.0]],
        "scores": [0.8765],
        "classes": ["car"],
        "class_ids": [0],
        "segmentation": {
            "road": {"size": [2, 2], "counts": [2, 2]},
            "lane": {"size": [2, 2], "counts": [1, 1, 2]},
        },
    }
    bare = frame_record(Frame(frame.image, "a.jpg", 0), Prediction(found, None, prediction.letterbox), (), ())
    assert "time_ms" not in bare
    assert (bare["segmentation"], bare["classes"]) == ({}, ["class 0"])


def test_names_are_unique_and_never_the_source(tmp_path: Path) -> None:
    names = OutputNames(tmp_path)
    elsewhere = tmp_path / "in"
    found = [names(n[0], ".jpg", elsewhere / n).name for n in ("x.jpg", "x.png", "X.bmp")]
    assert found == ["x.jpg", "x_2.jpg", "X_3.jpg"]
    assert names("x_2", ".jpg", elsewhere / "x_2.jpg").name == "x_2_2.jpg"
    assert names("y", ".jpg", tmp_path / "y.png").name == "y_hnx.jpg"
    assert names("z", ".jpg", tmp_path / "sub" / ".." / "z.jpg").name == "z_hnx.jpg"
    assert names("camera0", ".mp4").name == "camera0.mp4"
