"""Frames for the end-to-end times: real ones, of every kind of source."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from benchmarks.frames import MAX_FRAMES, decode_jpeg, load_frames
from hybridnets.errors import HnxError


def test_jpeg_bytes_are_taken_as_they_are(road_image: Path, tmp_path: Path) -> None:
    assert load_frames(None)[0].tobytes() == load_frames(road_image)[0].tobytes() == road_image.read_bytes()
    cv2.imwrite(str(tmp_path / "b.png"), cv2.imread(str(road_image)))
    (tmp_path / "a.jpg").write_bytes(road_image.read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    frames = load_frames(tmp_path)
    assert [bytes(frame[:2]) for frame in frames] == [b"\xff\xd8"] * 2
    assert frames[0].tobytes() == road_image.read_bytes()


def test_videos_are_sampled_evenly(road_video: Path) -> None:
    frames = load_frames(road_video)
    assert len(frames) == MAX_FRAMES
    assert decode_jpeg(frames[-1]).shape == (720, 1280, 3)


def test_missing_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match=r"nowhere\.jpg"):
        load_frames(tmp_path / "nowhere.jpg")
