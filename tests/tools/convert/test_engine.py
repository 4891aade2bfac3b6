from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hybridnets.dataset import open_split
from hybridnets.errors import HnxError
from hybridnets.project import load_project
from tests.processes import children
from tests.tools.convert.builders import det_frame, dump, grey, image, outputs, overlap, own_frames, run, unpack
from tools.convert import ConvertConfig, convert, make_plan
from tools.convert import engine as module
from tools.convert.engine import read_back
from tools.convert.journal import JOURNAL, MANIFEST


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same scene from every generation and form."""
    root = tmp_path_factory.mktemp("downloads")
    made = {}
    for name, generation, options in (
        ("polygons", "v2020", {"drivable_from": "polygons"}),
        ("masks", "v2020", {"drivable_from": "masks", "lanes_from": "masks"}),
        ("rles", "v2020", {"drivable_from": "rles"}),
        ("v1", "v1", {"drivable_from": "labels"}),
        ("v1 masks", "v1", {"drivable_from": "masks"}),
        ("v0", "v0", {}),
        ("direct", "v2020", {"drivable_from": "masks", "drivable": "direct"}),
        ("direct polygons", "v0", {"drivable": "direct"}),
        ("single lines", "v0", {"lane_pairs": False}),
    ):
        folder = root / name
        made[name] = folder / "out"
        run(unpack(folder / "in", generation), made[name], **options)
    return made


@pytest.mark.parametrize("other", ["v1", "v0"])
def test_three_generations_give_the_same_bytes(converted: dict[str, Path], other: str) -> None:
    first, second = outputs(converted["polygons"]), outputs(converted[other])
    assert len(first) == 4 * 4
    assert first == second


def test_labels_are_those_of_the_scene(converted: dict[str, Path]) -> None:
    label = read_back(converted["polygons"], "train", "a0000002-00000002")
    assert label["attributes"] == {"weather": "clear", "scene": "highway", "timeofday": "daytime"}
    objects = label["frames"][0]["objects"]
    assert [entry["category"] for entry in objects] == ["car", "person", "bike", "motor", "truck", "traffic light"]
    assert objects[0]["box2d"] == {"x1": 544.0, "y1": 380.0, "x2": 634.5, "y2": 452.25}
    assert objects[4]["box2d"]["x2"] == 1280.0
    assert objects[1]["attributes"] == {"occluded": True, "truncated": False, "trafficLightColor": "none"}
    light = read_back(converted["polygons"], "val", "b0000002-00000002")["frames"][0]["objects"][5]
    assert light["attributes"]["trafficLightColor"] == "yellow"


@pytest.mark.parametrize("folder", ["train", "val"])
def test_drivable_forms_agree(converted: dict[str, Path], folder: str) -> None:
    for path in sorted((converted["masks"] / "da_seg_annot" / folder).iterdir()):
        roads = {name: grey(made / "da_seg_annot" / folder / path.name) for name, made in converted.items()}
        assert set(np.unique(roads["masks"]).tolist()) == {0, 255}
        for same in ("rles", "v1 masks"):
            np.testing.assert_array_equal(roads["masks"], roads[same])
        # drawn by matplotlib, and by us: on slanted edges matplotlib takes half a pixel more (17,800 of 17,500 px)
        assert overlap(roads["masks"], roads["polygons"]) > 0.99
        assert overlap(roads["direct"], roads["direct polygons"]) > 0.99
        assert 0.4 < overlap(roads["masks"], roads["direct"]) < 0.9
        assert not (roads["direct"] & ~roads["masks"]).any()


def test_lane_forms_agree(converted: dict[str, Path]) -> None:
    name = "ll_seg_annot/train/a0000001-00000001.png"
    masks, single, pairs = (grey(converted[key] / name) for key in ("masks", "single lines", "polygons"))
    assert overlap(masks, single) > 0.85  # dilated 3 px against drawn 8 px
    assert not masks[600:612, 500:700].any()  # the crosswalk
    assert 1.5 < (single[600:] > 0).sum() / (pairs[600:] > 0).sum() < 2.3  # two edges each, one centre line each
    left, right = (x0 + (x1 - x0) * (719 - 700.5) / (719 - 362) for x0, x1 in ((820, 690), (848, 694)))
    centre = np.flatnonzero(pairs[700, 780:900]).mean() + 780.5
    assert centre == pytest.approx((left + right) / 2, abs=0.7)


@pytest.mark.parametrize(("split", "width"), [("train", 8), ("val", 2)])
def test_lanes_have_their_width(converted: dict[str, Path], split: str, width: int) -> None:
    # the right edge of the ego lane is straight: across = pixels of a row times the cosine of its slant
    shift = {"train": 0, "val": -20}[split]
    bottom, top = np.array([834.0, 719.0]), np.array([692.0 + shift, 362.0])
    cosine = (bottom[1] - top[1]) / np.hypot(*(bottom - top))
    (path, *_) = sorted((converted["polygons"] / "ll_seg_annot" / split).iterdir())
    rows = grey(path)[500:700, 700:900] > 0
    assert rows.sum(axis=1).mean() * cosine == pytest.approx(width, abs=0.05)


def test_the_data_set_opens(converted: dict[str, Path]) -> None:
    project = load_project("bdd100k")
    split = open_split(project, converted["v0"], "val")
    assert split.names == ("b0000001-00000001", "b0000002-00000002")


def test_manifest(converted: dict[str, Path]) -> None:
    manifest = json.loads((converted["masks"] / MANIFEST).read_text())
    assert manifest["options"]["drivable"] == "direct+alternative"
    val = manifest["splits"]["val"]
    assert (val["frames"], val["lane_width"]) == (2, 2)
    assert manifest["splits"]["train"]["lane_width"] == 8
    assert val["counts"]["boxes"] == 12
    assert val["counts"]["boxes_ignored"] == 2
    assert "numbering of 2020" in val["sources"]["drivable"]["kind"]
    assert val["dropped"] == {}


def test_frames_that_lack_a_part_are_listed(tmp_path: Path) -> None:
    root = unpack(tmp_path / "in", "v2020", base="")
    image(root / "images/100k/val/extra.jpg", (720, 1280))
    (root / "labels/drivable/masks/val/b0000001-00000001.png").unlink()
    det = root / "labels/det_20/det_val.json"
    frames = json.loads(det.read_text())
    dump(det, [*frames, {**frames[0], "name": "gone.jpg"}, frames[0], {**frames[0], "name": "../../evil.jpg"}])
    report = run(root, tmp_path / "out", splits=("val",))["val"]
    assert {reason: list(names) for reason, names in report.dropped.items()} == {
        "duplicate": [frames[0]["name"].removesuffix(".jpg")],
        "unsafe_name": ["'../../evil.jpg'"],
        "no_boxes": ["extra"],
        "no_drivable": ["b0000001-00000001"],
        "no_image": ["gone"],
    }
    assert report.frames == 1
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["splits"]["val"]["dropped"]["no_image"]["count"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    more = run(root, tmp_path / "more", splits=("val",), empty_boxes=True, empty_masks=True)["val"]
    assert more.frames == 3
    assert read_back(tmp_path / "more", "val", "extra")["frames"][0]["objects"] == []


def test_null_labels_are_a_frame_without_boxes(tmp_path: Path) -> None:
    root = own_frames(tmp_path / "in", ["a", "b"])
    frames = [det_frame("b.jpg", labels=None), det_frame("a.jpg")]
    dump(root / "labels/det_20/det_val.json", {"frames": frames, "groups": None})
    assert run(root, tmp_path / "out", empty_masks=True)["val"].frames == 2
    assert read_back(tmp_path / "out", "val", "b")["frames"][0]["objects"] == []


def test_sources_without_labels_of_their_kind_are_refused(tmp_path: Path) -> None:
    root = unpack(tmp_path / "in", "v2020", base="")
    det = str(root / "labels/det_20/det_{split}.json")
    with pytest.raises(HnxError, match="holds no lanes") as caught:
        run(root, tmp_path / "out", lanes_from=det)
    assert "they hold: box" in caught.value.why
    own = own_frames(tmp_path / "own", ["a"])
    with pytest.raises(HnxError, match="lacks drivable and lanes"):
        run(own, tmp_path / "out")
    stripped = tmp_path / "stripped"
    run(unpack(tmp_path / "v0", "v0"), stripped)  # our own output holds boxes only
    with pytest.raises(HnxError, match="holds no drivable"):
        run(unpack(tmp_path / "v0", "v0"), tmp_path / "out", drivable_from=str(stripped / "det_annot"))
    assert not (tmp_path / "out").exists()


def test_mixed_masks_are_refused(tmp_path: Path) -> None:
    root = unpack(tmp_path / "in", "v1", base="")
    folder = root / "drivable_maps/labels/val"
    shutil.copy(folder / "b0000001-00000001_drivable_id.png", folder / "b0000003-00000003.png")
    with pytest.raises(HnxError, match="mixes masks"):
        run(root, tmp_path / "out")


def test_the_numbering_can_be_said(tmp_path: Path) -> None:
    root = unpack(tmp_path / "in", "v2020", base="")
    for path in (root / "labels/drivable/masks/val").iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[:90] = 1  # as if the camera looked at a wall
        cv2.imwrite(str(path), mask)
    with pytest.raises(HnxError, match="not clear"):
        run(root, tmp_path / "out", splits=("val",))
    report = run(root, tmp_path / "out", splits=("val",), drivable_ids="2020")["val"]
    assert report.sources["drivable"]["kind"].endswith("numbering of 2020 (as you say)")


def test_names_that_do_not_meet(tmp_path: Path) -> None:
    root = own_frames(tmp_path / "in", ["a"])
    dump(root / "labels/det_20/det_val.json", [det_frame("b.jpg")])
    with pytest.raises(HnxError, match="No image of the val split") as caught:
        run(root, tmp_path / "out", empty_masks=True)
    assert "images: a; boxes: b" in caught.value.why


def test_nothing_that_could_be_converted(tmp_path: Path) -> None:
    root = own_frames(tmp_path / "in", ["a"])
    dump(root / "labels/det_20/det_val.json", [{**det_frame("a.jpg"), "size": None}])
    with pytest.raises(HnxError, match="No frame of the val split") as caught:
        run(root, tmp_path / "out", empty_masks=True)
    assert "the image is 128x72, its labels are for 1280x720" in caught.value.why


def test_own_frames_with_coco_and_yolo(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        image(tmp_path / "in" / name)
    images = [{"id": 1, "file_name": "a.jpg", "width": 128, "height": 72}, {"id": 2, "file_name": "b.png"}]
    whole = {"images": images, "annotations": [{"image_id": 1, "category_id": 1, "bbox": [8, 9, 16, 18]}]}
    coco = dump(tmp_path / "boxes.json", {**whole, "categories": [{"id": 1, "name": "car"}]})
    common: dict[str, Any] = {"splits": ("train",), "empty_masks": True}
    report = run(tmp_path / "in", tmp_path / "coco", boxes_kind="coco", boxes=str(coco), **common)["train"]
    assert report.counts["image_encode"] == 1
    (box,) = read_back(tmp_path / "coco", "train", "a")["frames"][0]["objects"]
    assert box["box2d"] == {"x1": 8, "y1": 9, "x2": 24, "y2": 27}
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("1 0.125 0.25 0.125 0.25\n")
    (tmp_path / "data.yaml").write_text("names: {0: bus, 1: car}\n")
    yolo = {"boxes_kind": "yolo", "boxes": str(tmp_path / "labels"), "class_names": tmp_path / "data.yaml"}
    report = run(tmp_path / "in", tmp_path / "yolo", **yolo, **common)["train"]
    assert list(report.dropped["no_boxes"]) == ["b"]
    assert read_back(tmp_path / "yolo", "train", "a")["frames"][0]["objects"] == [box]


@pytest.mark.parametrize("text", ["", "names: 5", "names: {a: b}", "names: [1, 2]", ": ["])
def test_class_names_that_are_none(tmp_path: Path, text: str) -> None:
    image(tmp_path / "in/a.jpg")
    names = tmp_path / "data.yaml"
    names.write_text(text)
    options = {"boxes_kind": "yolo", "boxes": str(tmp_path), "class_names": names, "splits": ("val",)}
    with pytest.raises(HnxError, match=r"data\.yaml"):
        run(tmp_path / "in", tmp_path / "out", **options)


def test_workers_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    root = own_frames(tmp_path / "in", [f"{i:03}" for i in range(9)])
    run(root, tmp_path / "one", empty_masks=True)
    config = ConvertConfig(root, tmp_path / "two", empty_masks=True, workers=1)
    told: list[tuple[str, int, int]] = []
    convert(config, make_plan(config), lambda *args: told.append(args))
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    assert told[-1] == ("val", 9, 9)
    assert len(told) == 5


def test_a_worker_that_dies_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    root = own_frames(tmp_path / "in", [f"{i:03}" for i in range(90)])
    config = ConvertConfig(root, tmp_path / "out", empty_masks=True, workers=1)

    def kill(split: str, done: int, total: int) -> None:
        for child in children():
            os.kill(child, signal.SIGKILL)

    with pytest.raises(HnxError, match=r"died while it was working on \d+ to \d+") as caught:
        convert(config, make_plan(config), kill)
    assert "run it again" in caught.value.fix
    report = run(root, tmp_path / "out", empty_masks=True)["val"]
    assert report.kept >= 2
    assert report.frames == 90


def test_output_that_cannot_be_read_back(tmp_path: Path) -> None:
    run(own_frames(tmp_path / "in", ["a"]), tmp_path / "out", empty_masks=True)
    cv2.imwrite(str(tmp_path / "out/ll_seg_annot/val/a.png"), np.full((72, 128), 7, np.uint8))
    with pytest.raises(HnxError, match="cannot be read back"):
        read_back(tmp_path / "out", "val", "a")
    assert (tmp_path / "out" / JOURNAL).exists()
