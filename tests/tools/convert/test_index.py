from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridnets.errors import HnxError
from tests.tools.convert.builders import FIXTURES, det_frame, dump, image
from tools.convert.coco import CocoIndex
from tools.convert.index import FolderIndex, JsonIndex, stem_of
from tools.convert.jsonstream import read_place


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("0000f77c-6257be58.jpg", "0000f77c-6257be58"),
        ("0000f77c-6257be58", "0000f77c-6257be58"),
        ("a.PNG", "a"),
        ("a.b.jpg", "a.b"),
        ("v1.5", "v1.5"),
        ("straße 日本.jpg", "straße 日本"),
        ("../../x.jpg", None),
        ("..", None),
        ("..jpg", None),
        ("/etc/passwd", None),
        ("a/b.jpg", None),
        ("a\\b.jpg", None),
        (".hidden.jpg", None),
        (".jpg", None),
        ("", None),
        (" a.jpg", None),
        ("a\0b.jpg", None),
        ("a\nb.jpg", None),
        ("\ud800.jpg", None),
        ("x" * 300, None),
        (None, None),
        (7, None),
        (["a.jpg"], None),
    ],
)
def test_names(name: Any, stem: str | None) -> None:
    assert stem_of(name) == stem


def test_names_with_folders_where_they_are_usual() -> None:
    assert stem_of("val2017/0001.jpg", folders=True) == "0001"
    for bad in ("a/../b.jpg", "..", "/", ""):
        assert stem_of(bad, folders=True) is None


def test_frames_in_any_order_duplicates_and_bad_names(tmp_path: Path) -> None:
    frames = [det_frame("b.jpg"), det_frame("a.jpg"), det_frame("b.jpg", ()), det_frame("../x.jpg"), 5, {"labels": []}]
    index = JsonIndex(dump(tmp_path / "det_val.json", frames))
    assert sorted(index) == ["a", "b"]
    assert index.duplicates == ["b"]
    assert index.unsafe == ["'../x.jpg'", "None", "None"]
    assert read_place(index.ref("b")) == frames[0]
    assert index.holds == {"box"}


@pytest.mark.parametrize(
    ("path", "description", "holds"),
    [
        ("v2020/labels/det_20/det_train.json", "det_20 (2020)", {"box"}),
        ("v1/labels/bdd100k_labels_images_train.json", "single JSON (v1, 2018-08-28)", {"box", "area", "lane"}),
        ("v2020/labels/drivable/polygons/drivable_val.json", "polygons (2020)", {"area"}),
        ("v2020/labels/drivable/rles/drivable_val.json", "run lengths (2020)", {"area", "rle"}),
        ("v2020/labels/lane/polygons/lane_val.json", "polygons (2020)", {"lane"}),
    ],
)
def test_generations(path: str, description: str, holds: set[str]) -> None:
    index = JsonIndex(FIXTURES / path)
    assert (index.description, index.holds, len(index)) == (description, holds, 2)


def test_size_from_the_config() -> None:
    assert JsonIndex(FIXTURES / "v2020/labels/drivable/polygons/drivable_val.json").size == (720, 1280)


def test_other_files_are_recognised() -> None:
    with pytest.raises(HnxError, match="v0"):
        JsonIndex(next((FIXTURES / "v0/labels/100k/train").iterdir()))


def test_folders(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png", "b.jpeg", "c.txt", "d_drivable_id.png"):
        (tmp_path / name).touch()
    index = FolderIndex(tmp_path, (".jpg", ".jpeg", ".png"), "images", "_drivable_id")
    assert sorted(index) == ["a", "b", "d"]
    assert index.with_ending == 1
    assert index.duplicates == ["b"]
    assert index.ref("d") == tmp_path / "d_drivable_id.png"
    with pytest.raises(HnxError, match="Cannot read folder"):
        FolderIndex(tmp_path / "missing", (".png",), "masks")


def test_a_folder_of_v0_says_what_it_holds(tmp_path: Path) -> None:
    index = FolderIndex(FIXTURES / "v0/labels/100k/train", (".json",), "v0")
    index.look_inside()
    assert index.holds == {"box", "area", "lane"}


def coco(path: Path, **changes: Any) -> Path:
    whole: dict[str, Any] = {
        "annotations": [
            {"image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4]},
            {"image_id": 1, "category_id": 7, "bbox": [5, 6, 7, 8], "iscrowd": 1},
            {"image_id": 2, "category_id": 9, "bbox": [0, 0, 1, 1]},
            {"image_id": 2, "category_id": 9, "bbox": None},
            {"image_id": 5, "category_id": 9, "bbox": [0, 0, 1, 1]},
            {"image_id": 1, "category_id": 3, "bbox": [0, "x", 1]},
        ],
        "images": [
            {"id": 1, "file_name": "val/a.jpg", "width": 128, "height": 72},
            {"id": 2, "file_name": "b ü.jpg"},
            {"id": 3, "file_name": "../c.jpg"},
            {"id": 4, "file_name": "a.jpg"},
        ],
        "categories": [{"id": 7, "name": "car"}, {"id": 9, "name": "bus"}],
        "info": {},
    }
    return dump(path, {**whole, **changes})


def test_coco_joins_arrays_in_any_order(tmp_path: Path) -> None:
    index = CocoIndex(coco(tmp_path / "a.json"))
    assert sorted(index) == ["a", "b ü"]
    assert index.unsafe == ["'../c.jpg'"]
    assert index.duplicates == ["a"]
    assert index.ref("b ü").boxes == ((1, 2, 3, 4, "car", False), (0, 0, 1, 1, "bus", False))
    first = index.ref("a")
    assert first.size == (72, 128)
    assert first.boxes[0] == (5, 6, 7, 8, "car", True)
    assert str(first.boxes[1][:5]) == "(nan, nan, nan, nan, '')"


def test_coco_without_its_parts(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="no COCO JSON"):
        CocoIndex(dump(tmp_path / "a.json", {"images": []}))
    with pytest.raises(HnxError, match="--boxes coco"):
        JsonIndex(coco(tmp_path / "b.json"))


def test_images_of_a_folder_are_found_once(tmp_path: Path) -> None:
    image(tmp_path / "x.jpg")
    assert list(FolderIndex(tmp_path, (".jpg",), "images")) == ["x"]
