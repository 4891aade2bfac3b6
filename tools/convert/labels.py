"""Frames of labels of every generation: their list of labels, and boxes in upstream's form (v0)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tools.convert.categories import (
    IGNORED_BOXES,
    box_name,
    canonical,
    kind_of,
    label_attributes,
    text_value,
)
from tools.convert.geometry import number

__all__ = ["FrameError", "boxes_of", "frame_attributes", "frame_size", "labels_of", "make_box", "v0_frame"]

_LIGHTS = {"g": "green", "green": "green", "r": "red", "red": "red", "y": "yellow", "yellow": "yellow"}
_FLAGS = ("occluded", "truncated")


class FrameError(ValueError):
    """Why a frame is left out; the converter lists it and goes on.

    Args:
        detail: in words.
        reason: a key of `tools.convert.report.REASONS`.
    """

    def __init__(self, detail: str, *, reason: str = "labels_broken") -> None:
        super().__init__(detail)
        self.reason = reason


def labels_of(frame: Any) -> list[dict[str, Any]]:
    """The labels of a frame: `labels` (v1, 2020), `frames[0].objects` (v0); [] where they are null or absent.

    Raises:
        FrameError: something else stands there.
    """
    if not isinstance(frame, dict):
        raise FrameError("its labels are no JSON object")
    labels = frame.get("labels")
    if "frames" in frame and "labels" not in frame:
        inner = frame["frames"]
        if not isinstance(inner, list) or (inner and not isinstance(inner[0], dict)):
            raise FrameError("its `frames` is no list of objects")
        labels = inner[0].get("objects") if inner else None
    if labels is None:
        return []
    if not isinstance(labels, list) or not all(isinstance(label, dict) for label in labels):
        raise FrameError("its labels are no list of objects")
    return labels


def frame_size(frame: Any) -> tuple[int, int] | None:
    """(height, width) where a frame (or the config of its file) says it, else None."""
    size = frame.get("size", frame.get("imageSize")) if isinstance(frame, dict) else None
    if not isinstance(size, dict):
        return None
    height, width = number(size.get("height")), number(size.get("width"))
    return (int(height), int(width)) if height and width and min(height, width) >= 1 else None


def frame_attributes(frame: Any) -> dict[str, Any]:
    """weather, scene, timeofday and other plain values of a frame."""
    found = frame.get("attributes") if isinstance(frame, dict) else None
    if not isinstance(found, dict):
        return {}
    known = {name: name for name in ("weather", "scene", "timeofday")}
    return {known.get(canonical(key), str(key)): value for key, value in found.items() if _plain(value)}


def _plain(value: Any) -> bool:
    """A value that JSON can hold and a reader can use: no NaN, no lists."""
    return isinstance(value, (str, bool)) or number(value) is not None


def make_box(
    corners: tuple[Any, Any, Any, Any],
    name: str,
    attributes: dict[str, Any],
    size: tuple[int, int],
    counts: Counter[str],
) -> dict[str, Any] | None:
    """One object of v0, clipped to the picture; None (and a count) where nothing of it is left.

    Args:
        corners: x1, y1, x2, y2 in pixels, not yet known to be numbers.
        name: category to write.
        attributes: by canonical key, as `label_attributes` gives them.
        size: (height, width).
    """
    values = [number(value) for value in corners]
    x1, y1, x2, y2 = values
    if x1 is None or y1 is None or x2 is None or y2 is None:
        counts["boxes_no_number"] += 1
        return None
    height, width = size
    clipped = [min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height)]
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        counts["boxes_empty" if x1 >= x2 or y1 >= y2 else "boxes_outside"] += 1
        return None
    counts["boxes_clipped"] += clipped != values
    counts["boxes"] += 1
    return {
        "category": name,
        "attributes": _box_attributes(attributes),
        "box2d": dict(zip(("x1", "y1", "x2", "y2"), map(float, clipped), strict=True)),
    }


def _box_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes in the spelling of v0; unknown plain ones are kept under their canonical key."""
    kept: dict[str, Any] = {flag: attributes[flag] is True for flag in _FLAGS if flag in attributes}
    if "trafficlightcolor" in attributes:
        kept["trafficLightColor"] = _LIGHTS.get(text_value(attributes["trafficlightcolor"]), "none")
    others = {key: value for key, value in sorted(attributes.items()) if key != "trafficlightcolor" and key not in kept}
    return {**kept, **{key: value for key, value in others.items() if _plain(value)}}


def boxes_of(
    labels: Sequence[dict[str, Any]], size: tuple[int, int], *, names: str, ignored: str, counts: Counter[str]
) -> list[dict[str, Any]]:
    """The boxes among labels of any generation as objects of v0 (without ids)."""
    found = []
    for label in labels:
        attributes = label_attributes(label)
        kind, name = kind_of(label.get("category"), attributes)
        box = label.get("box2d")
        if kind != "box" or box is None:
            counts["labels_no_category"] += not kind
            counts["boxes_without_corners"] += kind == "box"
            continue
        if not isinstance(box, dict):
            counts["boxes_no_number"] += 1
            continue
        skip = name in IGNORED_BOXES or attributes.get("crowd") is True or attributes.get("ignored") is True
        if skip and ignored == "drop":
            counts["boxes_ignored"] += 1
            continue
        # marked ones keep their own name, which no project lists: upstream knows no mark and would learn from them
        if skip:
            attributes, name = {**attributes, "ignored": True}, name if name in IGNORED_BOXES else "crowd"
        corners = (box.get("x1"), box.get("y1"), box.get("x2"), box.get("y2"))
        made = make_box(corners, name if skip else box_name(name, names), attributes, size, counts)
        if made is not None:
            counts["boxes_marked_ignored"] += skip
            found.append(made)
    return found


def v0_frame(name: str, attributes: dict[str, Any], objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The JSON of one image as upstream reads it."""
    numbered = [
        {"category": entry["category"], "id": index, "attributes": entry["attributes"], "box2d": entry["box2d"]}
        for index, entry in enumerate(objects)
    ]
    return {"name": name, "attributes": attributes, "frames": [{"timestamp": 10000, "objects": numbered}]}
