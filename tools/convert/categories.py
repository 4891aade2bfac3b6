"""Names of BDD100K: boxes, areas and lanes of its three generations of labels, and what each becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "AREA_NAMES",
    "BOX_NAMES",
    "IGNORED_BOXES",
    "LANE_TYPES",
    "box_name",
    "canonical",
    "kind_of",
    "label_attributes",
    "text_value",
]

# Names of 2020 (and of the official name mapping) -> names of 2018, which upstream's project files use. Names that
# are not here stay as they are.
BOX_NAMES: Mapping[str, str] = {
    "bicycle": "bike",
    "caravan": "car",
    "motorcycle": "motor",
    "pedestrian": "person",
    "van": "car",
}
# the official evaluation counts these for nothing: neither hit nor miss
IGNORED_BOXES = frozenset({"crowd", "other person", "other vehicle", "trailer"})
# bits 0 to 2 of a lane mask are the position in this list
LANE_TYPES = (
    "crosswalk",
    "double other",
    "double white",
    "double yellow",
    "road curb",
    "single other",
    "single white",
    "single yellow",
)
AREA_NAMES: Mapping[str, str] = {
    "alternative": "alternative",
    "direct": "direct",
    "drivable": "direct",  # v0 says area/drivable
    "unknown": "unknown",
}


def canonical(key: object) -> str:
    """A key or category without the differences between exports: `Traffic Light Color` is trafficLightColor.

    >>> canonical("Traffic Light Color"), canonical("trafficLightColor")
    ('trafficlightcolor', 'trafficlightcolor')
    """
    return "".join(c for c in str(key).casefold() if c not in " _-")


def label_attributes(label: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a label by canonical key; {} where they are null or absent."""
    found = label.get("attributes")
    return {canonical(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def text_value(value: Any) -> str:
    """An attribute as a lower-case word; old dumps write lists such as [0, "NA"], whose last entry is the word."""
    if isinstance(value, list):
        value = next((entry for entry in reversed(value) if isinstance(entry, str)), "")
    return value.strip().casefold() if isinstance(value, str) else ""


def kind_of(category: Any, attributes: Mapping[str, Any]) -> tuple[str, str]:
    """What a label is: ("box", name), ("area", direct, alternative or unknown) or ("lane", type).

    v0 writes `area/drivable` and `lane/single white`, v1 `drivable area` and `lane` with attributes, the files of 2020
    `direct` and `single white`. A label without a category is ("", "").
    """
    if not isinstance(category, str) or not category.strip():
        return "", ""
    name = " ".join(category.casefold().split())
    if name == "drivable area":
        return "area", AREA_NAMES.get(text_value(attributes.get("areatype")), "unknown")
    if name.startswith("area/") or name in ("direct", "alternative"):
        return "area", AREA_NAMES.get(name.removeprefix("area/"), "unknown")
    if name == "lane":
        return "lane", text_value(attributes.get("lanetypes"))
    if name.startswith("lane/") or name in LANE_TYPES:
        return "lane", name.removeprefix("lane/")
    return "box", name


def box_name(name: str, names: str) -> str:
    """The name of 2018 for a box, or the name itself where the caller keeps names (`names` is "keep")."""
    return BOX_NAMES.get(name, name) if names == "2018" else name
