"""One frame: labels and masks from its sources to the four files of upstream's layout. Runs in worker processes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.dataset.layout import check_regular
from hybridnets.errors import HnxError, from_os_error
from hybridnets.files import read_json, write_bytes
from tools.convert.drivable import MASK_IDS, draw_areas, mask_area, read_grey
from tools.convert.geometry import GeometryError
from tools.convert.index import InlineBoxes, Ref
from tools.convert.jsonstream import MAX_ELEMENT, Place, read_place
from tools.convert.labels import FrameError, boxes_of, frame_attributes, frame_size, labels_of, v0_frame
from tools.convert.lanes import draw_lanes, lane_bits, lanes_of, mask_lanes
from tools.convert.pictures import image_size, place_image

__all__ = ["BDD_SIZE", "FOLDERS", "FrameTask", "Outcome", "Recipe", "convert_frame", "output_files"]

BDD_SIZE = (720, 1280)  # of every image of 100k, and so of every label that does not say otherwise
# upstream's folders and suffixes: image, label, road, lane
FOLDERS: Mapping[str, str] = {"imgs": ".jpg", "det_annot": ".json", "da_seg_annot": ".png", "ll_seg_annot": ".png"}
# run lengths instead of matches: the same time, 3.0 kB instead of 7.7 for a road of 1280x720
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)


@dataclass(frozen=True)
class Recipe:
    """What all frames of a split have in common; see ConvertConfig for the options.

    Attributes:
        target: folder of the data set.
        split: name of the split.
        width: of lane lines, px.
        mask_ids: numbering of drivable masks, None where there are none.
        sizes: (height, width) that the labels of a role are made for; roles without one fit any image.
        class_names: of YOLO labels.
    """

    target: Path
    split: str
    width: int
    alternative: bool
    lane_types: tuple[str, ...]
    lane_directions: tuple[str, ...]
    lane_pairs: bool
    ignored: str
    names: str
    images: str
    mask_ids: str | None = None
    sizes: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrameTask:
    """One frame to convert; a role without a source is empty."""

    name: str
    image: Path
    boxes: Ref | None
    drivable: Ref | None
    lanes: Ref | None


@dataclass(frozen=True)
class Outcome:
    """What became of a frame.

    Attributes:
        name: of the frame.
        reason: "" when it was written, else a key of `tools.convert.report.REASONS`.
        detail: more about the reason.
        counts: see `tools.convert.report.COUNTS`.
    """

    name: str
    reason: str = ""
    detail: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


def output_files(target: Path, split: str, name: str) -> tuple[Path, ...]:
    """The four files of a frame, in the order of FOLDERS."""
    return tuple(target / folder / split / (name + suffix) for folder, suffix in FOLDERS.items())


def convert_frame(recipe: Recipe, task: FrameTask) -> Outcome:
    """Read, draw and write one frame. The label is written last: upstream's index is the folder of labels.

    Returns:
        Its outcome; input that is broken leaves the frame out.

    Raises:
        HnxError: the output cannot be written.
    """
    counts: Counter[str] = Counter()
    image, annotation, road_file, lane_file = output_files(recipe.target, recipe.split, task.name)
    outcome = _draw(recipe, task, counts)
    if isinstance(outcome, Outcome):
        try:
            annotation.unlink(missing_ok=True)  # of a run that was killed, before the input was damaged
        except OSError as error:
            raise from_os_error(f"Cannot remove {annotation}", error) from error
        return outcome
    label, road, lane = outcome
    counts["road_empty"] += not road.any()
    counts["lane_empty"] += not lane.any()
    counts[f"image_{place_image(task.image, image, recipe.images)}"] += 1
    for path, mask in ((road_file, road), (lane_file, lane)):
        write_bytes(path, _png(mask))
    write_bytes(annotation, json.dumps(label, allow_nan=False).encode())
    return Outcome(task.name, counts={key: count for key, count in sorted(counts.items()) if count})


def _draw(
    recipe: Recipe, task: FrameTask, counts: Counter[str]
) -> tuple[dict[str, Any], NDArray[np.bool_], NDArray[np.bool_]] | Outcome:
    """Label, road and lane of a frame, or why it is left out."""
    stage = "image_broken"
    try:
        size = image_size(task.image)
        stage = "labels_broken"
        read = _Reader(recipe, size)
        label = _label(recipe, task, read, size, counts)
        road = _road(recipe, task.drivable, read, size, counts)
        lane = _lane(recipe, task.lanes, read, size, counts)
    except FrameError as error:
        return Outcome(task.name, error.reason, str(error))
    except GeometryError as error:
        return Outcome(task.name, "mask_broken", str(error))
    except HnxError as error:
        # folders may be called masks, too
        reason = "mask_broken" if error.what.startswith(("Cannot read mask", "Cannot use mask")) else stage
        return Outcome(task.name, reason, f"{error.what}: {error.why}")
    return label, road, lane


def _png(mask: NDArray[np.bool_]) -> bytes:
    ok, data = cv2.imencode(".png", mask.astype(np.uint8) * 255, _PNG)
    if not ok:
        raise HnxError("OpenCV cannot write PNG", fix="reinstall opencv-python-headless")
    return bytes(data)


class _Reader:
    """The label frames of one image, each decoded once even where boxes, areas and lanes share it."""

    def __init__(self, recipe: Recipe, size: tuple[int, int]) -> None:
        self._recipe, self._size = recipe, size
        self._seen: dict[Place | Path, Any] = {}

    def frame(self, ref: Place | Path, role: str) -> Any:
        """The decoded frame.

        Raises:
            FrameError: it is made for pictures of another size.
        """
        if ref not in self._seen:
            if isinstance(ref, Path):
                check_regular(ref)
            self._seen[ref] = read_json(ref, limit=MAX_ELEMENT) if isinstance(ref, Path) else read_place(ref)
        frame = self._seen[ref]
        _check_size(frame_size(frame) or self._recipe.sizes.get(role), self._size, "its labels are")
        return frame


def _check_size(found: tuple[int, int] | None, wanted: tuple[int, int], what: str) -> None:
    if found is not None and found != wanted:
        sizes = f"the image is {wanted[1]}x{wanted[0]}, {what} for {found[1]}x{found[0]}"
        raise FrameError(sizes, reason="size_differs")


def _label(
    recipe: Recipe, task: FrameTask, read: _Reader, size: tuple[int, int], counts: Counter[str]
) -> dict[str, Any]:
    ref = task.boxes
    if ref is None:
        return v0_frame(task.name, {}, [])
    if isinstance(ref, InlineBoxes):
        _check_size(ref.size, size, "its boxes are")
        rows = ((x, y, x + w, y + h, name, crowd) for x, y, w, h, name, crowd in ref.boxes)
        found = _plain_boxes(recipe, rows, size, counts)
        return v0_frame(task.name, {}, found)
    if isinstance(ref, Path) and ref.suffix.lower() == ".txt":
        return v0_frame(task.name, {}, _plain_boxes(recipe, _yolo_rows(recipe, ref, size, counts), size, counts))
    frame = read.frame(ref, "boxes")
    found = boxes_of(labels_of(frame), size, names=recipe.names, ignored=recipe.ignored, counts=counts)
    return v0_frame(task.name, frame_attributes(frame), found)


def _plain_boxes(recipe: Recipe, rows: Any, size: tuple[int, int], counts: Counter[str]) -> list[dict[str, Any]]:
    """Boxes without attributes: (x1, y1, x2, y2, category, crowd) each."""
    labels = [
        {
            "category": name,
            "attributes": {"crowd": True} if crowd else {},
            "box2d": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
        }
        for x1, y1, x2, y2, name, crowd in rows
    ]
    return boxes_of(labels, size, names=recipe.names, ignored=recipe.ignored, counts=counts)


def _yolo_rows(recipe: Recipe, path: Path, size: tuple[int, int], counts: Counter[str]) -> list[tuple[Any, ...]]:
    """Lines `class cx cy w h`, in shares of the image; a sixth column (confidence) is ignored."""
    check_regular(path)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FrameError(f"{path} cannot be read: {error}") from error
    rows: list[tuple[Any, ...]] = []
    for line in lines:
        words = line.split()
        if not words:
            continue
        try:
            index, (x, y, w, h) = int(words[0]), map(float, words[1:5])
            if len(words) > 6 or not 0 <= index < len(recipe.class_names):
                raise ValueError
        except ValueError:
            counts["boxes_no_number"] += 1
            continue
        height, width = size
        corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        rows.append((*corners, recipe.class_names[index], False))
    return rows


def _road(
    recipe: Recipe, ref: Ref | None, read: _Reader, size: tuple[int, int], counts: Counter[str]
) -> NDArray[np.bool_]:
    if ref is None or isinstance(ref, InlineBoxes):
        return np.zeros(size, np.bool_)
    if isinstance(ref, Path) and recipe.mask_ids is not None:
        mask = read_grey(ref)
        _check_size((mask.shape[0], mask.shape[1]), size, "its drivable mask is")
        return mask_area(mask, MASK_IDS[recipe.mask_ids], alternative=recipe.alternative)
    labels = labels_of(read.frame(ref, "drivable"))
    return draw_areas(labels, size, alternative=recipe.alternative, counts=counts)


def _lane(
    recipe: Recipe, ref: Ref | None, read: _Reader, size: tuple[int, int], counts: Counter[str]
) -> NDArray[np.bool_]:
    if ref is None or isinstance(ref, InlineBoxes):
        return np.zeros(size, np.bool_)
    if isinstance(ref, Path) and ref.suffix.lower() == ".png":
        mask = read_grey(ref)
        _check_size((mask.shape[0], mask.shape[1]), size, "its lane mask is")
        return mask_lanes(lane_bits(mask, recipe.lane_types, recipe.lane_directions), recipe.width)
    return draw_lanes(
        lanes_of(labels_of(read.frame(ref, "lanes")), counts),
        size,
        width=recipe.width,
        types=recipe.lane_types,
        directions=recipe.lane_directions,
        pairs=recipe.lane_pairs,
        counts=counts,
    )
