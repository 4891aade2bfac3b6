"""Reading pictures, folders, patterns and videos, the damaged ones above all."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybridnets.errors import HnxError
from hybridnets.sources import ImageSource, VideoSource, open_source, read_image


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def damaged_files(folder: Path, good: Path) -> dict[str, Path]:
    data = good.read_bytes()
    contents = {
        "empty.jpg": b"",
        "random.jpg": np.random.default_rng(0).bytes(4000),
        "text.jpg": b"this is no picture\n" * 20,
        "half.jpg": data[: len(data) // 2],
        "head.jpg": data[:300],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def test_same_pixels_as_imread(road_image: Path) -> None:
    image = read_image(road_image)
    assert image.shape == (720, 1280, 3)
    assert image.dtype == np.uint8
    assert np.array_equal(image, cv2.imread(str(road_image)))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((4, 6), "uint8"), ((4, 6), "uint16"), ((4, 6, 3), "uint16"), ((4, 6, 4), "uint8"), ((1, 1), "uint8")],
)
def test_every_form_becomes_bgr8(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    path = tmp_path / "picture with spaces ä 图.png"
    top = np.iinfo(dtype).max
    array = np.full(shape, top // 2, dtype)
    ok, data = cv2.imencode(".png", array)
    assert ok
    path.write_bytes(data.tobytes())
    image = read_image(path)
    assert image.shape == (*shape[:2], 3)
    assert image.dtype == np.uint8
    assert abs(int(image[0, 0, 0]) - 127) <= 1


def test_exif_orientation_is_ignored(tmp_path: Path, road_image: Path) -> None:
    data = road_image.read_bytes()
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    rotated = tmp_path / "rotated.jpg"
    rotated.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:])
    assert cv2.imread(str(rotated)).shape == (1280, 720, 3)  # the tag works
    assert read_image(rotated).shape == (720, 1280, 3)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("empty.jpg", "0 bytes"),
        ("random.jpg", "damaged"),
        ("text.jpg", "damaged"),
        ("half.jpg", "cut off"),
        ("head.jpg", "cut off"),
    ],
)
def test_damaged_picture(tmp_path: Path, road_image: Path, name: str, why: str) -> None:
    path = damaged_files(tmp_path, road_image)[name]
    with pytest.raises(HnxError, match=name) as caught:
        read_image(path)
    assert why in caught.value.why
    with open_source(path) as source, pytest.raises(HnxError, match=name):
        list(source)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="gone") as caught:
        read_image(tmp_path / "gone.jpg")
    assert "does not exist" in caught.value.why
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(HnxError) as caught:
        read_image(tmp_path / "x.jpg")
    assert "folder" in caught.value.why


def test_more_pixels_than_opencv_reads(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(60000, 60000))
    with pytest.raises(HnxError, match="huge") as caught:
        read_image(path)
    assert "2^30" in caught.value.why


def test_large_picture(tmp_path: Path) -> None:
    ok, data = cv2.imencode(".png", np.full((9000, 12000), 77, np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert ok
    path = tmp_path / "large.png"
    path.write_bytes(data.tobytes())
    image = read_image(path)
    assert image.shape == (9000, 12000, 3)
    assert (image[0, 0] == 77).all()


def test_folder_goes_on_after_damage(tmp_path: Path, road_image: Path) -> None:
    damaged = damaged_files(tmp_path, road_image)
    shutil.copy(road_image, tmp_path / "b.JPG")
    shutil.copy(road_image, tmp_path / "a b ü.jpg")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "sub").mkdir()
    shutil.copy(road_image, tmp_path / "sub" / "c.jpg")
    with open_source(str(tmp_path)) as source:
        assert isinstance(source, ImageSource)
        assert not source.is_video
        assert source.length == 2 + len(damaged)
        frames = [(frame.name, frame.index) for frame in source]
    names = sorted([*damaged, "b.JPG", "a b ü.jpg"])
    assert frames == [(str(tmp_path / n), names.index(n)) for n in ("a b ü.jpg", "b.JPG")]
    assert sorted(Path(e.what.removeprefix("Cannot read image ")).name for e in source.problems) == sorted(damaged)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="holds no picture"):
        open_source(tmp_path)


def test_pattern(tmp_path: Path, road_image: Path) -> None:
    for folder in ("day 1", "day 2"):
        (tmp_path / folder).mkdir()
        shutil.copy(road_image, tmp_path / folder / "x.jpg")
    with open_source(f"{tmp_path}/day*/*.jpg") as source:
        assert [Path(frame.name).parent.name for frame in source] == ["day 1", "day 2"]
    with pytest.raises(HnxError, match="names no picture"):
        open_source(f"{tmp_path}/*.png")


def test_a_file_whose_name_is_a_pattern(tmp_path: Path, road_image: Path) -> None:
    path = tmp_path / "x[1].jpg"
    shutil.copy(road_image, path)
    with open_source(path) as source:
        assert len(list(source)) == 1


@pytest.mark.parametrize("suffix", ["", ".dat"])
def test_kind_by_content_where_the_suffix_says_nothing(tmp_path: Path, road_image: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    shutil.copy(road_image, path)
    with open_source(path) as source:
        assert not source.is_video
        assert len(list(source)) == 1


def test_video(road_video: Path) -> None:
    with open_source(road_video) as source:
        assert isinstance(source, VideoSource)
        assert (source.is_video, source.live) == (True, False)
        assert (source.fps, source.length, source.size) == (25.0, 38, (720, 1280))
        frames = [(f.index, f.time_ms, f.image.shape) for f in source]
    assert [index for index, _, _ in frames] == list(range(38))
    assert [time for _, time, _ in frames[:3]] == [0.0, 40.0, 80.0]
    assert {shape for _, _, shape in frames} == {(720, 1280, 3)}
    assert not source.problems


def test_video_that_ends_early_keeps_its_frames(tmp_path: Path, road_video: Path) -> None:
    data = road_video.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    with open_source(path) as source:
        count = len(list(source))
    assert 0 < count < 38
    assert [f"ended after {count} of 38 frames" in e.what for e in source.problems] == [True]


def test_fractional_rate_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "slow.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 29.97, (64, 48))
    for _ in range(5):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    with open_source(path) as source:
        assert source.fps == pytest.approx(29.97)


class _Capture:
    """A capture that announces nonsense."""

    def __init__(self, values: dict[int, float], frames: int) -> None:
        self.values, self.left = values, frames

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, key: int) -> float:
        return self.values.get(key, 0.0)

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.zeros((4, 4), np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        pass


@pytest.mark.parametrize("fps", [0.0, float("nan"), -1.0, 90000.0, float("inf")])
def test_a_rate_that_cannot_be_true(monkeypatch: pytest.MonkeyPatch, fps: float) -> None:
    values = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: -2.0e18}
    monkeypatch.setattr("hybridnets.sources._open_capture", lambda target: _Capture(values, 2))
    with open_source("0") as source:
        assert source.fps == 30.0
        assert source.length is None
        assert "frames per second" in source.notes[0]
        frames = list(source)
    assert [f.image.shape for f in frames] == [(4, 4, 3)] * 2  # infrared cameras are grey
    assert [f.name for f in frames] == ["camera 0"] * 2


def test_passwords_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridnets.sources._open_capture", lambda target: _Capture({cv2.CAP_PROP_FPS: 25.0}, 1))
    with open_source("rtsp://user:secret@10.0.0.7:554/front") as source:
        frames = list(source)
    assert source.name == "10.0.0.7_front"
    assert frames[0].name == "rtsp://10.0.0.7:554/front"
    assert not any("secret" in str(problem) for problem in source.problems)


@pytest.mark.parametrize("content", [b"", b"only text\n" * 50])
def test_a_file_that_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fake.mp4"
    path.write_bytes(content)
    with pytest.raises(HnxError, match="Cannot open video"):
        open_source(path)


def test_a_video_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp4"
    path.write_bytes(b"\xff\xd8\xff" + np.random.default_rng(1).bytes(3000))  # looks like motion JPEG
    try:
        with open_source(path) as source, pytest.raises(HnxError, match="no frame"):
            list(source)
    except HnxError as error:  # an OpenCV that does not even open it
        assert "Cannot open video" in error.what  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no such file.mp4", "no source"),
        ("", "no source"),
        ("ftp://host/x.mp4", "ftp://"),
        ("987654", "camera 987654"),
        ("http://127.0.0.1:1/x.mp4", "Cannot open http"),
        ("rtsp://user:secret@127.0.0.1:1/x", "Cannot open rtsp://127"),
        ("rtsp://[bad", "address"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HnxError, match=message) as caught:
        open_source(text)
    assert "secret" not in str(caught.value)
    assert caught.value.fix


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path, road_image: Path) -> None:
    path = tmp_path / "secret.jpg"
    shutil.copy(road_image, path)
    path.chmod(0)
    with pytest.raises(HnxError, match="permission denied"):
        read_image(path)


def test_what_opencv_cannot_take(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")  # reading it would wait for ever
    with pytest.raises(HnxError, match=r"a\.mp4"):
        open_source(tmp_path / "a.mp4")
    with pytest.raises(HnxError, match="no source"):
        open_source("9" * 20)
