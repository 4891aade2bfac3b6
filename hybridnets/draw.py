"""Pictures of a prediction: drivable area, lanes and labelled boxes over the frame."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.postprocess import Detections, Prediction
from hybridnets.preprocess import as_bgr8

__all__ = ["BOX_COLOURS", "SEG_COLOURS", "SEG_NAMES", "box_colour", "draw_overlay", "seg_colour"]

Colour = tuple[int, int, int]

# All BGR, around the Okabe-Ito palette. Road and lane, blended half and half over asphalt or paint, stay at least 36
# CIELAB units apart in simulated protanopia, deuteranopia and tritanopia; a red lane would fall to 7.
SEG_NAMES: dict[str, Colour] = {"road": (115, 200, 0), "lane": (255, 100, 255)}
SEG_COLOURS: tuple[Colour, ...] = (
    (115, 200, 0),  # bluish green
    (255, 100, 255),  # pink
    (178, 114, 0),  # blue
    (66, 228, 240),  # yellow
    (0, 94, 213),  # vermilion
    (0, 159, 230),  # orange
    (233, 180, 86),  # sky blue
)
BOX_COLOURS: tuple[Colour, ...] = (
    (66, 228, 240),  # yellow: the only one that stands out on the green, the pink, asphalt and sky
    (233, 180, 86),  # sky blue
    (0, 159, 230),  # orange
    (167, 121, 204),  # reddish purple
    (115, 158, 0),  # bluish green
    (178, 114, 0),  # blue
    (0, 94, 213),  # vermilion
)
OPACITY = 0.5
# 64 rows of 1280 pixels are 245 KB a buffer: the three passes stay in the second-level cache, and a 12000x9000
# picture needs 2 MB of buffers where whole-frame passes would take 650 MB
STRIP_ROWS = 64
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def _extra(index: int) -> Colour:
    """A colour for classes beyond the table: hues a golden ratio apart never meet."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1.0, 0.75, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def seg_colour(index: int, name: str = "") -> Colour:
    """BGR of the `index`-th segmentation class; road and lane keep theirs in any order."""
    return SEG_NAMES.get(name) or (SEG_COLOURS[index] if index < len(SEG_COLOURS) else _extra(index))


def box_colour(index: int) -> Colour:
    """BGR of the `index`-th detection class."""
    return BOX_COLOURS[index] if index < len(BOX_COLOURS) else _extra(index)


def draw_overlay(
    frame: NDArray[Any],
    prediction: Prediction,
    classes: Sequence[str],
    seg_classes: Sequence[str],
    *,
    copy: bool = True,
) -> NDArray[np.uint8]:
    """The frame with its masks, boxes and labels such as "car 0.87".

    Where multilabel masks overlap, the class listed last shows: lanes lie on the road.

    Args:
        frame: (h, w, 3) uint8 BGR; grey, BGRA and 16-bit frames are converted.
        prediction: of this frame, in its pixels.
        classes: names of the detection classes.
        seg_classes: names of the segmentation classes, without the background.
        copy: leave `frame` as it is; False draws into it where its form allows and spares 0.3 ms at 720p.

    Returns:
        uint8 (h, w, 3) BGR.

    Raises:
        HnxError: the frame is no image.
    """
    canvas = as_bgr8(frame)
    if not canvas.flags.c_contiguous or not canvas.flags.writeable or (copy and np.shares_memory(canvas, frame)):
        canvas = canvas.copy()
    if prediction.segmentation is not None:
        _paint(canvas, _index_map(prediction.segmentation), seg_classes)
    _draw_boxes(canvas, prediction.detections, classes)
    return canvas


def _index_map(segmentation: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (h, w), 0 background and k the k-th class, of any kind of segmentation."""
    if segmentation.ndim == 2:
        return segmentation
    index = np.zeros(segmentation.shape[1:], np.uint8)
    for number, mask in enumerate(segmentation, start=1):
        index[...] = cv2.copyTo(np.full_like(index, number), np.ascontiguousarray(mask), index)
    return index


def _paint(canvas: NDArray[np.uint8], index: NDArray[np.uint8], names: Sequence[str]) -> None:
    """Blend the class colours into the canvas, in place.

    A table look-up, one blend of everything and one masked copy, only where there is any mask.
    """
    x, y, width, height = cv2.boundingRect(index)
    if not width or not height:
        return
    table = np.zeros((256, 1, 3), np.uint8)
    for number in range(1, 256):
        table[number] = seg_colour(number - 1, names[number - 1] if number <= len(names) else "")
    for top in range(y, y + height, STRIP_ROWS):
        rows = slice(top, min(top + STRIP_ROWS, y + height))
        mask = index[rows, x : x + width]
        view = canvas[rows, x : x + width]
        blend = cv2.applyColorMap(mask, table)
        cv2.addWeighted(view, 1 - OPACITY, blend, OPACITY, 0, dst=blend)
        cv2.copyTo(blend, mask, view)


def _draw_boxes(canvas: NDArray[np.uint8], found: Detections, classes: Sequence[str]) -> None:
    """Boxes and labels, the best score on top. Sizes follow the longer side, so that 4K looks like 720p."""
    h, w = canvas.shape[:2]
    longest = max(h, w)
    line = max(1, round(longest / 640))
    for row in range(len(found) - 1, -1, -1):
        box, label = found.boxes[row], int(found.classes[row])
        if not np.isfinite(box).all():
            continue
        # a box may reach to x = width: its last pixel is width - 1
        x1, y1, x2, y2 = (round(min(max(float(v), 0.0), top)) for v, top in zip(box, (w - 1, h - 1) * 2, strict=True))
        colour = box_colour(label)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, line)
        name = classes[label] if label < len(classes) else f"class {label}"
        _draw_label(canvas, f"{name} {found.scores[row]:.2f}", x1, y1, colour, longest)


def _draw_label(canvas: NDArray[np.uint8], text: str, x: int, y: int, colour: Colour, longest: int) -> None:
    """Text on a plate above (x, y), moved to lie inside the picture; left out where it cannot be read."""
    h, w = canvas.shape[:2]
    scale = max(0.4, longest / 1280 * 0.55)
    for size in (scale, 0.4, 0.3):
        thickness = max(1, round(size * 1.6))
        (text_w, text_h), below = cv2.getTextSize(text, _FONT, size, thickness)
        pad = max(1, text_h // 4)
        plate_w, plate_h = text_w + 2 * pad, text_h + below + pad
        if plate_w <= w and plate_h <= h:
            break
    else:
        return
    left = min(x, w - plate_w)
    top = y - plate_h if y >= plate_h else min(y, h - plate_h)
    cv2.rectangle(canvas, (left, top), (left + plate_w - 1, top + plate_h - 1), colour, cv2.FILLED)
    cv2.putText(
        canvas,
        text,
        (left + pad, top + pad // 2 + text_h),
        _FONT,
        size,
        _text_colour(colour),
        thickness,
        cv2.LINE_AA,
    )


def _text_colour(colour: Colour) -> Colour:
    """Black or white, whichever contrasts more (Rec. 601 luma)."""
    blue, green, red = colour
    return (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 110 else (255, 255, 255)
