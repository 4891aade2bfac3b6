"""Frames without labels: where they come from, what is held out, and how they are read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import Project
from hybridnets.training.augment import Augmenter, AugmentSettings
from hybridnets.training.distill.config import DistillConfig
from hybridnets.training.distill.frames import FrameLabels, FrameReader, FrameSplit, frame_splits


def pictures(folder: Path, count: int, name: str = "f{:02d}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(folder / name.format(index)), np.full((90, 160, 3), index, np.uint8))
    return folder


def video(path: Path, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 96))
    for index in range(count):
        writer.write(np.full((96, 160, 3), 2 * index, np.uint8))
    writer.release()
    return path


def config(*sources: Path, **changes: object) -> DistillConfig:
    values: dict[str, object] = {"held_out": 4, **changes}
    return DistillConfig(Path("teacher.pth"), tuple(map(str, sources)), **values)  # type: ignore[arg-type]


def test_no_frame_is_learnt_from_and_measured_on(tmp_path: Path) -> None:
    learnt, held_out = frame_splits(config(pictures(tmp_path / "a", 20)), Project(), tmp_path / "run")
    assert (len(learnt), len(held_out)) == (16, 4)
    assert not set(learnt.paths.values()) & set(held_out.paths.values())
    # spread over the folder, not its end
    assert sorted(held_out.names) == ["f02", "f07", "f12", "f17"]


def test_the_end_of_a_video_is_held_out_and_frames_are_unpacked_once(tmp_path: Path) -> None:
    path = video(tmp_path / "v.avi", 40)
    settings = config(path, every=2)
    learnt, held_out = frame_splits(settings, Project(), tmp_path / "run")
    assert (len(learnt), len(held_out)) == (16, 4)
    assert min(held_out.names) > max(learnt.names)
    files = {p: p.stat().st_mtime_ns for p in held_out.paths.values()}
    again = frame_splits(settings, Project(), tmp_path / "run")[1]
    assert {p: p.stat().st_mtime_ns for p in again.paths.values()} == files
    # as a run that was killed while unpacking
    next(iter(files)).unlink()
    (next(iter(files)).parent / "done").unlink()
    assert set(frame_splits(settings, Project(), tmp_path / "run")[1].paths.values()) == set(files)


def test_held_out_frames_of_their_own(tmp_path: Path) -> None:
    other = pictures(tmp_path / "b", 3)
    settings = config(pictures(tmp_path / "a", 5), other, held_out_sources=(str(other),))
    learnt, held_out = frame_splits(settings, Project(), tmp_path)
    assert (len(learnt), len(held_out)) == (5, 3)  # the second source is measured on only
    # names from different folders are told apart
    both = frame_splits(config(pictures(tmp_path / "a", 5), pictures(tmp_path / "c", 5)), Project(), tmp_path)
    assert len({*both[0].names}) == 8


def test_a_data_set_gives_its_images(tmp_path: Path) -> None:
    pictures(tmp_path / "set" / "imgs" / "train", 6)
    pictures(tmp_path / "set" / "imgs" / "val", 4, "v{:02d}.png")
    learnt, held_out = frame_splits(config(tmp_path / "set", held_out=2), Project(), tmp_path)
    assert len(learnt) + len(held_out) == 10


def test_what_cannot_be(tmp_path: Path) -> None:
    for changes, words in (
        ({"held_out": 0}, "held-out"),
        ({"every": 0}, "every"),
        ({"feature_weight": -1.0}, "weight"),
    ):
        with pytest.raises(HnxError, match=words) as caught:
            config(tmp_path, **changes)
        assert caught.value.code == ExitCode.USAGE
    with pytest.raises(HnxError, match="No frames"):
        config()
    with pytest.raises(HnxError, match="1 frame"):
        frame_splits(config(pictures(tmp_path / "one", 1)), Project(), tmp_path)
    with pytest.raises(HnxError):
        frame_splits(config(tmp_path / "nowhere"), Project(), tmp_path)


@pytest.mark.parametrize(
    ("seg_list", "multilabel"), [(("road", "lane"), False), (("road",), False), (("a", "b"), True)]
)
def test_frames_are_read_as_samples(seg_list: tuple[str, ...], multilabel: bool, tmp_path: Path) -> None:
    project = dataclasses.replace(Project(), seg_list=seg_list, seg_multilabel=multilabel)
    folder = pictures(tmp_path / "a", 2)
    split = FrameSplit.of(project, "learnt", {"x": folder / "f01.png"})
    sample = FrameReader(split, (128, 256)).read("x")
    assert (sample.frame.shape, sample.has_boxes, len(sample.boxes)) == ((90, 160, 3), False, 0)
    settings = AugmentSettings.from_dataset(project.dataset)
    item = Augmenter(settings)(FrameReader(split, (128, 256)), "x", np.random.default_rng(0))
    assert item.image.shape == (128, 256, 3)
    assert item.target.shape == sample.target.shape
    labels = FrameLabels(np.array([[1.0, 2, 30, 40, 0]]), sample.target + 0)
    told = FrameReader(split, (128, 256), {"x": labels}).read("x")
    assert told.has_boxes
    assert told.categories == (project.classes[0],)
    (folder / "f01.png").write_bytes(b"no picture")
    with pytest.raises(HnxError):
        FrameReader(split, (128, 256)).read("x")
