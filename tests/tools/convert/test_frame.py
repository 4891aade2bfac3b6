from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hybridnets.errors import HnxError
from tests.tools.convert.builders import det_frame, dump, grey, image
from tools.convert import frame as module
from tools.convert.categories import LANE_TYPES
from tools.convert.frame import FrameTask, Outcome, Recipe, convert_frame, output_files
from tools.convert.index import InlineBoxes, Ref


def make(folder: Path, **changes: Any) -> Outcome:
    """Convert one frame of 128x72 named `a`; keys of FrameTask and of Recipe."""
    refs: dict[str, Ref | None] = {"boxes": None, "drivable": None, "lanes": None}
    refs.update({key: changes.pop(key) for key in list(changes) if key in refs})
    path = changes.pop("image", None) or image(folder / "in/a.jpg")
    common: dict[str, Any] = {
        "alternative": True,
        "lane_types": LANE_TYPES[1:],
        "lane_directions": ("parallel", "vertical"),
        "lane_pairs": True,
        "ignored": "drop",
        "names": "2018",
        "images": "copy",
    }
    recipe = Recipe(target=folder / "out", split="val", width=8, **{**common, **changes})
    return convert_frame(recipe, FrameTask("a", path, **refs))


def label(folder: Path) -> dict[str, Any]:
    return dict(json.loads(output_files(folder / "out", "val", "a")[1].read_text()))


def objects(folder: Path) -> list[tuple[Any, ...]]:
    found = label(folder)["frames"][0]["objects"]
    return [(entry["category"], *entry["box2d"].values()) for entry in found]


def mask(path: Path, values: np.ndarray[Any, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), values)
    return path


def test_without_any_source(tmp_path: Path) -> None:
    outcome = make(tmp_path)
    assert outcome == Outcome("a", counts={"image_copy": 1, "lane_empty": 1, "road_empty": 1})
    _, _, road, lane = output_files(tmp_path / "out", "val", "a")
    for path in (road, lane):
        assert grey(path).shape == (72, 128)
        assert not grey(path).any()
    assert label(tmp_path)["frames"][0]["objects"] == []


def test_yolo_texts(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text(
        "0 0.5 0.5 0.25 0.5\n\n1 0.1 0.1 0.4 0.4 0.9\n7 0.5 0.5 1 1\nx 1 1 1 1\n0 0.5\n0 1 2 3 4 5 6\n0 nan 1 1 1\n"
    )
    outcome = make(tmp_path, boxes=text, class_names=("car", "motorcycle"))
    assert objects(tmp_path) == [("car", 48, 18, 80, 54), ("motor", 0, 0, pytest.approx(38.4), pytest.approx(21.6))]
    assert outcome.counts["boxes_no_number"] == 5
    text.write_bytes(b"\xff\xfe")
    assert make(tmp_path, boxes=text, class_names=("car",)).reason == "labels_broken"


def test_boxes_of_coco(tmp_path: Path) -> None:
    rows = ((10.0, 20.0, 30.0, 40.0, "bicycle", False), (0.0, 0.0, 9.0, 9.0, "person", True))
    outcome = make(tmp_path, boxes=InlineBoxes(rows, (72, 128)))
    assert objects(tmp_path) == [("bike", 10, 20, 40, 60)]
    assert outcome.counts["boxes_ignored"] == 1
    make(tmp_path, boxes=InlineBoxes(rows, None), names="keep")
    assert objects(tmp_path) == [("bicycle", 10, 20, 40, 60)]
    assert make(tmp_path, boxes=InlineBoxes((), (72, 127))).reason == "size_differs"


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"size": {"width": 1280, "height": 720}}, "size_differs", "the image is 128x72, its labels are for 1280x720"),
        ({"labels": "x"}, "labels_broken", "no list of objects"),
    ],
)
def test_frames_that_are_left_out(tmp_path: Path, changes: dict[str, Any], reason: str, detail: str) -> None:
    outcome = make(tmp_path, boxes=dump(tmp_path / "a.json", det_frame("a.jpg", **changes)))
    assert outcome.reason == reason
    assert detail in outcome.detail
    assert not any(path.exists() for path in output_files(tmp_path / "out", "val", "a"))


def test_damaged_files_leave_the_frame_out(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"name": ')
    assert make(tmp_path, boxes=broken).reason == "labels_broken"
    assert make(tmp_path, boxes=tmp_path / "missing.json").reason == "labels_broken"
    (tmp_path / "cut.jpg").write_bytes(image(tmp_path / "b.jpg").read_bytes()[:300])
    assert make(tmp_path, image=tmp_path / "cut.jpg").reason == "image_broken"
    cut = mask(tmp_path / "m/a.png", np.full((72, 128), 2, np.uint8))
    cut.write_bytes(cut.read_bytes()[:-20])
    assert make(tmp_path, drivable=cut, mask_ids="2020").reason == "mask_broken"
    assert make(tmp_path, lanes=cut).reason == "mask_broken"


def test_pipes_and_devices_leave_the_frame_out(tmp_path: Path) -> None:
    folder = tmp_path / "masks"  # the name of a folder decides nothing
    folder.mkdir()
    found = {}
    for suffix, target in ((".jpg", "/dev/zero"), (".json", "pipe"), (".txt", "pipe"), (".png", "pipe")):
        found[suffix] = folder / f"a{suffix}"
        found[suffix].symlink_to(target)
    os.mkfifo(folder / "pipe")
    assert make(tmp_path, image=found[".jpg"]).reason == "image_broken"
    assert make(tmp_path, boxes=found[".json"]).reason == "labels_broken"
    assert make(tmp_path, boxes=found[".txt"], class_names=("car",)).reason == "labels_broken"
    assert make(tmp_path, drivable=found[".png"], mask_ids="2020").reason == "mask_broken"
    assert make(tmp_path, lanes=found[".png"]).reason == "mask_broken"


def test_masks_of_another_size_or_kind(tmp_path: Path) -> None:
    small = mask(tmp_path / "m/small.png", np.full((36, 64), 2, np.uint8))
    outcome = make(tmp_path, drivable=small, mask_ids="2020")
    assert outcome.reason == "size_differs"
    assert "64x36" in outcome.detail
    assert make(tmp_path, lanes=small).reason == "size_differs"
    odd = mask(tmp_path / "m/odd.png", np.full((72, 128), 100, np.uint8))
    assert make(tmp_path, drivable=odd, mask_ids="2020").reason == "mask_broken"
    assert make(tmp_path, lanes=mask(tmp_path / "m/c.png", np.zeros((72, 128, 3), np.uint8))).reason == "mask_broken"


def test_an_rle_of_another_size_leaves_the_frame_out(tmp_path: Path) -> None:
    frame = det_frame("a.jpg", labels=[{"category": "direct", "rle": {"counts": [9216], "size": [128, 72]}}])
    outcome = make(tmp_path, drivable=dump(tmp_path / "a.json", frame))
    assert outcome.reason == "mask_broken"
    assert "[128, 72]" in outcome.detail


def test_an_older_label_does_not_survive_damage(tmp_path: Path) -> None:
    make(tmp_path)
    assert make(tmp_path, boxes=tmp_path / "missing.json").reason
    assert not output_files(tmp_path / "out", "val", "a")[1].exists()


def test_output_that_cannot_be_written_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(HnxError, match="Cannot write"):
        make(tmp_path)
    (tmp_path / "out").unlink()
    monkeypatch.setattr(module, "write_bytes", _full)
    with pytest.raises(HnxError, match="disk is full"):
        make(tmp_path)


def _full(path: Path, _: bytes) -> None:
    raise HnxError(f"Cannot write {path}", why="the disk is full")
