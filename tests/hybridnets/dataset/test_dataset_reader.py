"""Masks and whole samples: overlaps, sizes, aspect ratios, damaged files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hybridnets.dataset import SampleReader, open_split
from hybridnets.dataset.masks import combine, letterbox_mask, read_mask
from hybridnets.errors import HnxError
from hybridnets.preprocess import Letterbox
from hybridnets.project import Project

A = np.array([[0, 9, 9, 0]], np.uint8)
B = np.array([[0, 0, 1, 255]], np.uint8)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("road", "lane"), [0, 1, 2, 2]),
        (("lane", "road"), [0, 1, 1, 2]),  # lane wins though it comes first
        (("road", "curb"), [0, 1, 2, 2]),  # the later one wins
    ],
)
def test_multiclass(names: tuple[str, str], expected: list[int]) -> None:
    target = combine([A, B], names, "multiclass")
    assert target.tolist() == [expected]
    assert target.dtype == np.uint8


def test_lane_wins_among_three() -> None:
    assert combine([A, B, A], ["road", "lane", "curb"], "multiclass").tolist() == [[0, 3, 2, 2]]


def test_binary_and_multilabel() -> None:
    assert combine([B], ["road"], "binary").tolist() == [[[0, 0, 1, 1]]]
    assert combine([A, B], ["road", "lane"], "multilabel").tolist() == [[[1, 0, 0, 0]], [[0, 1, 1, 0]], [[0, 0, 1, 1]]]


@pytest.mark.parametrize("frame", [(480, 640), (1000, 700), (200, 1000)])
def test_masks_follow_their_image_at_any_aspect_ratio(frame: tuple[int, int]) -> None:
    place = Letterbox.fit(frame, (384, 640))
    found = letterbox_mask(np.full(frame, 255, np.uint8), place)
    expected = np.zeros((384, 640), np.uint8)
    place.crop(expected)[...] = 255
    assert np.array_equal(found, expected)


def test_thin_lines_survive_shrinking() -> None:
    mask = np.zeros((1080, 1440), np.uint8)
    mask[:, 700] = 255
    found = letterbox_mask(mask, Letterbox.fit(mask.shape, (384, 640)))
    assert ((found > 0).sum(axis=1) >= 1).all()


def write(root: Path, frame: NDArray[np.uint8], masks: list[NDArray[np.uint8]], label: object) -> None:
    for folder, name, data in (
        ("imgs", "x.png", frame),
        ("da_seg_annot", "x.png", masks[0]),
        ("ll_seg_annot", "x.png", masks[1]),
    ):
        (root / folder / "val").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / folder / "val" / name), data)
    (root / "det_annot" / "val").mkdir(parents=True, exist_ok=True)
    (root / "det_annot" / "val" / "x.json").write_text(json.dumps(label))


def good(root: Path, size: tuple[int, int] = (96, 128)) -> SampleReader:
    road, lane = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    road[48:, :], lane[:, 64] = 1, 255
    objects = [
        {"category": "traffic sign", "box2d": {"x1": 0, "y1": 0, "x2": 0, "y2": 0}},
        {"category": "bus", "box2d": {"x1": 640, "y1": 360, "x2": 640, "y2": 400}},
        {"category": "car", "box2d": {"x1": 640, "y1": 360, "x2": 1300, "y2": 720}},
        {"category": "car", "box2d": {"x1": 1300, "y1": 360, "x2": 1400, "y2": 400}},
    ]
    write(root, np.zeros((*size, 3), np.uint8), [road, lane], {"frames": [{"objects": objects}]})
    return SampleReader(open_split(Project(), root), (128, 256), frame_target=True)


def test_a_small_4_to_3_image(tmp_path: Path) -> None:
    sample = good(tmp_path).read("x")
    assert sample.letterbox.content == (128, 171)
    assert sample.target.shape == (128, 256)
    assert sample.frame_target is not None
    assert sample.frame_target[0, 0] == 0
    assert sample.frame_target[95, 0] == 1
    assert (sample.frame_target[:, 64] == 2).all()
    inside = sample.letterbox.crop(sample.target)
    assert (inside.max(axis=1) == 2).all()
    assert (sample.target != 0).sum() == (inside != 0).sum()
    left = sample.letterbox.left
    # the right side reaches out of the image, as upstream has it
    assert np.allclose(sample.boxes, [[left + 171 / 2, 64, left + 171 * 1300 / 1280, 128, 0]])
    assert sample.categories == ("car",)


def test_boxes_that_cannot_be_truths_are_told(tmp_path: Path) -> None:
    dropped = good(tmp_path).read("x").dropped
    label = tmp_path / "det_annot/val/x.json"
    assert dropped == (f"{label}: object 1 (bus): no area", f"{label}: object 3 (car): outside the image")


def test_the_frame_target_is_made_only_when_asked_for(tmp_path: Path) -> None:
    reader = good(tmp_path)
    assert SampleReader(reader.split, reader.target).read("x").frame_target is None


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
def test_other_modes_have_channels(tmp_path: Path, mode: str) -> None:
    split = good(tmp_path).split
    if mode == "binary":
        project, masks = replace(split.project, seg_list=("road",)), split.masks[:1]
    else:
        project, masks = replace(split.project, seg_multilabel=True), split.masks
    sample = SampleReader(replace(split, project=project, masks=masks), (128, 256), frame_target=True).read("x")
    channels = 1 if mode == "binary" else 3
    assert sample.target.shape == (channels, 128, 256)
    assert sample.frame_target is not None
    assert sample.frame_target.shape == (channels, 96, 128)


@pytest.mark.parametrize("folder", ["imgs", "det_annot", "da_seg_annot", "ll_seg_annot"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "folder"])
def test_damage_names_the_file(tmp_path: Path, folder: str, damage: str) -> None:
    reader = good(tmp_path)
    path = next((tmp_path / folder / "val").iterdir())
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    with pytest.raises(HnxError) as caught:
        reader.read("x")
    # of images the ending of a missing one is not known
    assert str(path.with_suffix("")) in str(caught.value)


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    reader = good(tmp_path)
    path = tmp_path / "ll_seg_annot/val/x.png"
    cv2.imwrite(str(path), np.zeros((10, 20), np.uint8))
    with pytest.raises(HnxError, match="20x10 pixels") as caught:
        reader.read("x")
    assert "x.png has 128x96" in caught.value.what


def test_masks_above_the_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    with path.open("wb") as stream:
        stream.truncate((256 << 20) + 1)
    with pytest.raises(HnxError, match="mask"):
        read_mask(path)


def test_input_sides_are_multiples_of_128(tmp_path: Path) -> None:
    split = good(tmp_path).split
    with pytest.raises(HnxError):
        SampleReader(split, (360, 640))
