from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tools.convert.labels import FrameError, boxes_of, frame_attributes, frame_size, labels_of, v0_frame

SIZE = (720, 1280)


def box(x1: Any = 10, y1: Any = 20, x2: Any = 30, y2: Any = 40, **extra: Any) -> dict[str, Any]:
    return {"category": "car", "attributes": {}, "box2d": {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, **extra}


def convert(*labels: dict[str, Any], **options: str) -> tuple[list[dict[str, Any]], Counter[str]]:
    counts: Counter[str] = Counter()
    found = boxes_of(labels, SIZE, names="2018", ignored=options.get("ignored", "drop"), counts=counts)
    return found, +counts


def test_labels_of_all_generations() -> None:
    assert labels_of({"name": "a", "frames": [{"objects": [{"id": 1}]}]}) == [{"id": 1}]
    assert labels_of({"name": "a", "labels": [{"id": 1}]}) == [{"id": 1}]
    for empty in ({"labels": None}, {}, {"frames": []}, {"frames": [{"objects": None}]}, {"frames": [{}]}):
        assert labels_of(empty) == []


@pytest.mark.parametrize("frame", [[], None, {"labels": 5}, {"labels": [5]}, {"frames": 5}, {"frames": ["x"]}])
def test_frames_that_are_none(frame: Any) -> None:
    with pytest.raises(FrameError) as caught:
        labels_of(frame)
    assert caught.value.reason == "labels_broken"


def test_boxes_are_clipped_and_counted() -> None:
    found, counts = convert(box(), box(-5, -5, 2000, 800), box(1279.5, 0, 1281, 5))
    assert [list(entry["box2d"].values()) for entry in found] == [
        [10, 20, 30, 40],
        [0, 0, 1280, 720],
        [1279.5, 0, 1280, 5],
    ]
    assert counts == {"boxes": 3, "boxes_clipped": 2}


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (box(30, 20, 10, 40), "boxes_empty"),
        (box(10, 20, 10, 40), "boxes_empty"),
        (box(1300, 20, 1400, 40), "boxes_outside"),
        (box(-10, 20, 0, 40), "boxes_outside"),
        (box(json.loads("NaN")), "boxes_no_number"),
        (box(json.loads("-Infinity")), "boxes_no_number"),
        (box("10"), "boxes_no_number"),
        (box(True), "boxes_no_number"),
        (box(None), "boxes_no_number"),
        (box(10**400), "boxes_no_number"),
        (box(box2d=[1, 2, 3, 4]), "boxes_no_number"),
        (box(box2d={}), "boxes_no_number"),
        (box(box2d=None), "boxes_without_corners"),
        (box(category=None), "labels_no_category"),
        (box(category="other vehicle"), "boxes_ignored"),
        (box(category="trailer"), "boxes_ignored"),
        (box(category="Other Person"), "boxes_ignored"),
        (box(attributes={"crowd": True}), "boxes_ignored"),
    ],
)
def test_boxes_that_are_dropped(label: dict[str, Any], reason: str) -> None:
    if reason == "labels_no_category":
        label["box2d"] = None
    found, counts = convert(label)
    assert found == []
    assert counts == {reason: 1}


def test_huge_coordinates_are_clipped() -> None:
    found, _ = convert(box(-1e300, -1e300, 1e300, 1e300))
    assert list(found[0]["box2d"].values()) == [0, 0, 1280, 720]


def test_attributes_are_kept_in_the_spelling_of_v0() -> None:
    capital = {
        "Occluded": True,
        "Truncated": False,
        "Traffic Light Color": [0, "G"],
        "extra": "x",
        "list": [1],
        "n": None,
    }
    found, _ = convert(box(attributes=capital, category="traffic light"))
    assert found[0]["attributes"] == {
        "occluded": True,
        "truncated": False,
        "trafficLightColor": "green",
        "extra": "x",
    }


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("G", "green"),
        ("R", "red"),
        ("Y", "yellow"),
        ("NA", "none"),
        ("yellow", "yellow"),
        ([0, "NA"], "none"),
        (5, "none"),
    ],
)
def test_traffic_light_colours(value: Any, word: str) -> None:
    found, _ = convert(box(attributes={"trafficLightColor": value}))
    assert found[0]["attributes"] == {"trafficLightColor": word}


def test_marked_ones_keep_a_name_that_no_project_lists() -> None:
    crowd = box(attributes={"crowd": True}, category="pedestrian")
    found, counts = convert(box(category="trailer"), crowd, box(category="motorcycle"), ignored="mark")
    assert [entry["category"] for entry in found] == ["trailer", "crowd", "motor"]
    assert [entry["attributes"].get("ignored") for entry in found] == [True, True, None]
    assert counts == {"boxes": 3, "boxes_marked_ignored": 2}


def test_frame_attributes_and_sizes() -> None:
    frame = {"attributes": {"Weather": "rainy", "timeofday": "night", "x": float("nan"), "y": [1]}}
    assert frame_attributes(frame) == {"weather": "rainy", "timeofday": "night"}
    assert frame_attributes({"attributes": None}) == frame_attributes(None) == {}
    assert frame_size({"size": {"width": 128, "height": 72}}) == (72, 128)
    assert frame_size({"imageSize": {"width": 128, "height": 72}}) == (72, 128)
    for bad in (None, {}, {"size": 3}, {"size": {"width": "a", "height": 2}}, {"size": {"width": 0, "height": 2}}):
        assert frame_size(bad) is None


def test_form_of_v0() -> None:
    found, _ = convert(box(), box(category="bus"))
    label = v0_frame("a", {"weather": "clear"}, found)
    assert label["name"] == "a"
    assert [entry["id"] for entry in label["frames"][0]["objects"]] == [0, 1]
    assert label["frames"][0]["timestamp"] == 10000
    json.dumps(label, allow_nan=False)
