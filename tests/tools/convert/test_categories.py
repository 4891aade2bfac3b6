from __future__ import annotations

from typing import Any

import pytest

from tools.convert.categories import box_name, canonical, kind_of, label_attributes, text_value


@pytest.mark.parametrize(
    ("category", "attributes", "kind"),
    [
        ("car", {}, ("box", "car")),
        ("Traffic  Light", {}, ("box", "traffic light")),
        ("area/drivable", {}, ("area", "direct")),
        ("area/alternative", {}, ("area", "alternative")),
        ("area/unknown", {}, ("area", "unknown")),
        ("drivable area", {"areaType": "direct"}, ("area", "direct")),
        ("drivable area", {"areaType": "alternative"}, ("area", "alternative")),
        ("drivable area", {}, ("area", "unknown")),
        ("direct", {}, ("area", "direct")),
        ("alternative", {}, ("area", "alternative")),
        ("lane/road curb", {}, ("lane", "road curb")),
        ("lane", {"laneTypes": "single white"}, ("lane", "single white")),
        ("lane", {"Lane Types": [3, "single white"]}, ("lane", "single white")),
        ("lane", {}, ("lane", "")),
        ("crosswalk", {}, ("lane", "crosswalk")),
        ("", {}, ("", "")),
        (None, {}, ("", "")),
        (7, {}, ("", "")),
    ],
)
def test_kinds_of_all_generations(category: Any, attributes: dict[str, Any], kind: tuple[str, str]) -> None:
    assert kind_of(category, label_attributes({"attributes": attributes})) == kind


def test_names_of_2020_become_those_of_2018() -> None:
    new = ["pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "van"]
    old = ["person", "rider", "car", "truck", "bus", "train", "motor", "bike", "car"]
    assert [box_name(name, "2018") for name in new] == old
    assert [box_name(name, "keep") for name in new] == new


def test_spelling() -> None:
    assert canonical("Traffic Light Color") == canonical("traffic_light-color") == canonical("trafficLightColor")
    assert text_value([0, "NA"]) == text_value(" na ") == "na"
    assert text_value([]) == text_value(None) == text_value(3) == text_value({"a": 1}) == ""
    assert label_attributes({"attributes": None}) == label_attributes({}) == label_attributes({"attributes": [1]}) == {}
