"""Label files: forms, classes, damaged objects, and positions in the input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridnets.dataset.labels import boxes_in_input, class_ids, fault_of, parse_label, read_label
from hybridnets.errors import HnxError
from hybridnets.preprocess import Letterbox
from hybridnets.project import Project


def one(category: Any = "car", **changes: Any) -> dict[str, Any]:
    return {"category": category, "box2d": {"x1": 10.0, "y1": 20, "x2": 30.5, "y2": 40, **changes}}


def old_form(*objects: Any) -> dict[str, Any]:
    return {"name": "x", "frames": [{"objects": list(objects)}]}


def test_objects_without_a_box_are_skipped() -> None:
    area = {"category": "area/drivable", "poly2d": [[1, 2, "L"]]}
    boxes, problems = parse_label(old_form(area, one(), {"category": "car", "box2d": None}))
    assert problems == []
    assert [(b.index, b.category, b.box) for b in boxes] == [(1, "car", (10.0, 20.0, 30.5, 40.0))]


@pytest.mark.parametrize(
    "data",
    [
        {"frames": [{"objects": None}]},
        {"frames": [{}]},
        {"frames": [{"labels": None}]},
        {"labels": None},
        {"labels": []},
    ],
)
def test_nothing_labelled(data: Any) -> None:
    assert parse_label(data) == ([], [])


def test_the_newer_form() -> None:
    assert len(parse_label({"name": "x.jpg", "labels": [one()]})[0]) == 1


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([], "many images in one file"),
        (3, "holds no keys"),
        ({}, "neither 'frames' nor 'labels'"),
        ({"frames": []}, "holds no frame"),
        ({"frames": "x"}, "holds no frame"),
        ({"frames": [None]}, "holds no frame"),
        (old_form("car"), "object 0: it is no group of keys"),
        ({"frames": [{"objects": {}}]}, "no list"),
        (old_form(one(), one(3)), "object 1: it has no category"),
        (old_form({"category": "car", "box2d": [1, 2, 3, 4]}), "object 0: box2d of the car"),
        (old_form(one(x1="10")), "box2d.x1 of the car is no number"),
        (old_form(one(x1=True)), "box2d.x1 of the car is no number"),
        (old_form(one(y2=None)), "box2d.y2 of the car is missing"),
        (old_form(one(y1=float("nan"))), "box2d.y1 of the car is not finite"),
        (old_form(one(y1=float("-inf"))), "box2d.y1 of the car is not finite"),
        (old_form(one(x2=10**400)), "box2d.x2 of the car is far too large"),
        (old_form(one(x2=1e300)), "box2d.x2 of the car is far too large"),
        ({**old_form(one()), "unlabelled": "boxes"}, "'unlabelled' is not a list"),
        ({**old_form(one()), "unlabelled": ["masks"]}, "'unlabelled' is not a list"),
    ],
)
def test_damage_names_file_and_object(tmp_path: Path, data: Any, problem: str) -> None:
    path = tmp_path / "label.json"
    path.write_text(json.dumps(data))
    with pytest.raises(HnxError, match="label") as caught:
        read_label(path)
    assert problem in caught.value.why


def test_every_problem_of_a_file_is_told() -> None:
    boxes, problems = parse_label(old_form(one(x1="a"), one(), one(y1="b")))
    assert [b.index for b in boxes] == [1]
    assert [text.split(":")[0] for text in problems] == ["object 0", "object 2"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "label.json"
    path.write_bytes(content)
    with pytest.raises(HnxError, match="label"):
        read_label(path)


def test_huge_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "label.json"
    with path.open("wb") as stream:
        stream.truncate(33 << 20)
    with pytest.raises(HnxError, match="label") as caught:
        read_label(path)
    assert "more than a file of this kind" in caught.value.why


@pytest.mark.parametrize(
    ("attributes", "category"),
    [
        ({"trafficLightColor": "green"}, "tl_green"),
        ({"trafficLightColor": [0, "NA"]}, "tl_none"),
        ({}, "tl_none"),
        (None, "tl_none"),
    ],
)
def test_traffic_lights_by_colour(attributes: Any, category: str) -> None:
    data = old_form({**one("traffic light"), "attributes": attributes}, one())
    assert [b.category for b in parse_label(data, True)[0]] == [category, "car"]
    assert [b.category for b in parse_label(data, False)[0]] == ["traffic light", "car"]


def test_classes() -> None:
    assert class_ids(Project()) == {"car": 0, "bus": 0, "truck": 0, "train": 0}
    assert class_ids(Project(classes=("car",), combine=())) == {"car": 0}
    # upstream: all of them class 0, because obj_combine is not empty
    assert class_ids(Project(classes=("person", "car"), combine=("bus",))) == {"person": 0, "car": 1}


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((0, 0, 1, 1), ""),
        ((-5, -5, 1, 1), ""),
        ((1279, 719, 3000, 3000), ""),
        ((5, 5, 5, 9), "no area"),
        ((5, 5, 9, 4), "no area"),
        ((-5, 0, 0, 9), "outside the image"),
        ((1280, 0, 1300, 9), "outside the image"),
        ((0, 720, 9, 800), "outside the image"),
    ],
)
def test_what_cannot_be_a_truth(box: tuple[float, float, float, float], fault: str) -> None:
    assert fault_of(box, (720, 1280)) == fault


def test_boxes_are_relative_to_the_labels_size_not_the_images() -> None:
    boxes, _ = parse_label(old_form({"category": "bus", "box2d": {"x1": 0, "y1": 0, "x2": 1280, "y2": 360}}))
    for frame in ((720, 1280), (360, 640), (1080, 1920)):
        found = boxes_in_input(boxes, Project(), Letterbox.fit(frame, (384, 640)))
        assert np.allclose(found, [[0, 12, 640, 192, 0]])
    square = boxes_in_input(boxes, Project(), Letterbox.fit((500, 500), (384, 640)))
    assert np.allclose(square, [[128, 0, 512, 192, 0]])


def test_no_boxes_have_the_shape_of_boxes() -> None:
    found = boxes_in_input([], Project(), Letterbox.fit((720, 1280), (384, 640)))
    assert found.shape == (0, 5)
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("marker", "labelled"), [({}, True), ({"unlabelled": []}, True), ({"unlabelled": ["boxes"]}, False)]
)
def test_a_file_says_that_nobody_looked_for_boxes(tmp_path: Path, marker: dict[str, Any], labelled: bool) -> None:
    path = tmp_path / "label.json"
    path.write_text(json.dumps({**old_form(one()), **marker}))
    assert read_label(path).has_boxes is labelled
