"""Box labels: one JSON file for each image, in the form BDD100K had in 2018 and upstream reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import HnxError
from hybridnets.files import read_json
from hybridnets.preprocess import Letterbox
from hybridnets.project import Project

__all__ = [
    "MAX_BYTES",
    "UNLABELLED",
    "LabelBox",
    "LabelFile",
    "boxes_in_input",
    "class_ids",
    "fault_of",
    "has_boxes",
    "parse_label",
    "read_label",
]

MAX_BYTES = 32 << 20  # the largest of BDD100K has about 100 kB
_MAX_PIXEL = 1e6  # no camera has such a position; sums and products of larger ones would overflow
_SIDES = ("x1", "y1", "x2", "y2")

# Key of a label file for what nobody has labelled in its image: `"unlabelled": ["boxes"]`. No box then says nothing,
# where in other files it says that there is no object. Readers that do not know the key see an image without objects.
UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class LabelBox:
    """One object that has a box.

    Attributes:
        index: its place in the file's list of objects.
        category: as written; with `traffic_light_color` a "traffic light" is "tl_" and its colour.
        box: x1, y1, x2, y2 in pixels of `org_img_size`, finite.
    """

    index: int
    category: str
    box: tuple[float, float, float, float]


class LabelFile(NamedTuple):
    """What a label file says.

    Attributes:
        boxes: its objects that have a box, in its order.
        has_boxes: whether somebody looked for objects; without, no box means nothing.
    """

    boxes: list[LabelBox]
    has_boxes: bool


def class_ids(project: Project) -> dict[str, int]:
    """Category to class number, for every category that is kept.

    One class in `obj_list`: it and everything in `obj_combine` are class 0. Several: their places in `obj_list`, and
    `obj_combine` means nothing. (Upstream then calls everything class 0 as soon as `obj_combine` is not empty, which
    leaves all classes but the first without a single label.)
    """
    if len(project.classes) == 1:
        return dict.fromkeys((*project.classes, *project.combine), 0)
    return {name: index for index, name in enumerate(project.classes)}


def read_label(path: Path, traffic_light_color: bool = False) -> LabelFile:
    """A label file.

    Raises:
        HnxError: unreadable, above 32 MiB, no JSON, of another form, or an object is damaged; names file and object.
    """
    data = read_json(path, limit=MAX_BYTES)
    boxes, problems = parse_label(data, traffic_light_color)
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise HnxError(f"Cannot use label {path}", why=problems[0] + more, fix="correct the file, or remove the sample")
    return LabelFile(boxes, has_boxes(data))


def has_boxes(data: Any) -> bool:
    """Whether the boxes of parsed JSON are all there are; its form is `parse_label`'s to judge."""
    missing = data.get(UNLABELLED) if isinstance(data, dict) else None
    return not (isinstance(missing, list) and "boxes" in missing)


def parse_label(data: Any, traffic_light_color: bool = False) -> tuple[list[LabelBox], list[str]]:
    """The boxes of parsed JSON and a sentence for each problem.

    Objects are `frames[0].objects`; where `frames` is absent, `labels` as in the newer form. Absent and null lists are
    empty. Objects without `box2d` (drawn areas and lines) are skipped.
    """
    try:
        objects = _objects(data)
        _check_unlabelled(data)
    except ValueError as error:
        return [], [str(error)]
    boxes: list[LabelBox] = []
    problems: list[str] = []
    for index, entry in enumerate(objects):
        try:
            found = _box(index, entry, traffic_light_color)
        except ValueError as error:
            problems.append(f"object {index}: {error}")
            continue
        if found is not None:
            boxes.append(found)
    return boxes, problems


def _check_unlabelled(data: Mapping[str, Any]) -> None:
    missing = data.get(UNLABELLED, [])
    if not isinstance(missing, list) or any(item != "boxes" for item in missing):
        raise ValueError(f"'{UNLABELLED}' is not a list that holds \"boxes\" or nothing")


def _objects(data: Any) -> Sequence[Any]:
    if isinstance(data, list):
        raise ValueError("it is a list: the labels of many images in one file; one file for each image is needed")
    if not isinstance(data, dict):
        raise ValueError("it holds no keys")
    frames = data.get("frames")
    if frames is not None:
        if not isinstance(frames, list) or not frames or not isinstance(frames[0], dict):
            raise ValueError("'frames' holds no frame")
        objects = frames[0].get("objects", frames[0].get("labels"))
    elif "labels" in data:
        objects = data["labels"]
    else:
        raise ValueError("it has neither 'frames' nor 'labels'")
    if objects is None:
        return []
    if not isinstance(objects, list):
        raise ValueError("the objects are no list")
    return objects


def _box(index: int, entry: Any, traffic_light_color: bool) -> LabelBox | None:
    if not isinstance(entry, dict):
        raise ValueError("it is no group of keys")
    box = entry.get("box2d")
    if box is None:
        return None
    category = entry.get("category")
    if not isinstance(category, str) or not category:
        raise ValueError("it has no category")
    if not isinstance(box, dict):
        raise ValueError(f"box2d of the {category} is no group of keys")
    x1, y1, x2, y2 = (_pixel(box, side, category) for side in _SIDES)
    if traffic_light_color and category == "traffic light":
        category = f"tl_{_light(entry)}"
    return LabelBox(index, category, (x1, y1, x2, y2))


def _pixel(box: Mapping[str, Any], side: str, category: str) -> float:
    value = box.get(side)
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = "missing" if value is None else "no number"
        raise ValueError(f"box2d.{side} of the {category} is {kind}")
    # whole numbers beyond the range of floats compare well, too
    if not (-_MAX_PIXEL <= value <= _MAX_PIXEL):
        raise ValueError(f"box2d.{side} of the {category} is {'not finite' if _infinite(value) else 'far too large'}")
    return float(value)


def _infinite(value: float) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _light(entry: Mapping[str, Any]) -> str:
    attributes = entry.get("attributes")
    colour = attributes.get("trafficLightColor") if isinstance(attributes, dict) else None
    return colour if isinstance(colour, str) else "none"


def fault_of(box: Sequence[float], size: tuple[int, int]) -> str:
    """Why a box cannot be a truth, or "": it has no area, or lies wholly outside (height, width) `size`.

    Upstream keeps both; no prediction can match them, so they only lower the recall.
    """
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return "no area"
    if x2 <= 0 or y2 <= 0 or x1 >= size[1] or y1 >= size[0]:
        return "outside the image"
    return ""


def boxes_in_input(boxes: Sequence[LabelBox], project: Project, place: Letterbox) -> NDArray[np.float64]:
    """float64 (n, 5): x1, y1, x2, y2, class in input pixels, of boxes whose category is kept.

    Upstream's steps in its order, so that the numbers are equal to the last bit: centre and size as fractions of
    `org_img_size` whatever the image's size, then times the size of the content, then moved by the padding. Nothing
    is clipped.
    """
    classes = class_ids(project)
    height, width = project.dataset.org_img_size
    corners = np.array([b.box for b in boxes], np.float64).reshape(-1, 4)
    x1, y1, x2, y2 = corners.T
    cx, cy = (x1 + x2) / 2.0 * (1.0 / width), (y1 + y2) / 2.0 * (1.0 / height)
    w, h = (x2 - x1) * (1.0 / width), (y2 - y1) * (1.0 / height)
    content_h, content_w = place.content
    out = np.empty((len(boxes), 5), np.float64)
    out[:, 0] = content_w * (cx - w / 2) + place.left
    out[:, 1] = content_h * (cy - h / 2) + place.top
    out[:, 2] = content_w * (cx + w / 2) + place.left
    out[:, 3] = content_h * (cy + h / 2) + place.top
    out[:, 4] = [classes[b.category] for b in boxes]
    return out
