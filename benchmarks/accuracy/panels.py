"""One frame with what the label says, or with what a row made of it.

Colours mean outcomes, not classes: found boxes are sky blue, false ones thick yellow, missed ones dashed in black and
white. Pixels that agree carry the colour of their class, false ones are yellow, missed ones striped in black
and white. Yellow stays 33 CIELAB units from every other filling in simulated protanopia, deuteranopia and tritanopia
over grey asphalt (Machado's matrices); vermilion, red and blue fall to 17 and below. Stripes and dashes
need no colour at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.shown import Packed, Truth, match
from hybridnets.draw import STRIP_ROWS, seg_colour
from hybridnets.errors import printable

__all__ = [
    "FALSE",
    "FONT",
    "LIGHT",
    "PANEL_WIDTH",
    "ascii_text",
    "box_swatch",
    "label_panel",
    "prediction_panel",
    "stripes",
]

Colour = tuple[int, int, int]
FOUND: Colour = (233, 180, 86)  # BGR, sky blue
FALSE: Colour = (66, 228, 240)  # yellow
DARK: Colour = (0, 0, 0)
LIGHT: Colour = (255, 255, 255)

# three panels of 640 fit a screen 1920 wide; 480 rows show 4:3 frames whole
PANEL_WIDTH, PANEL_HEIGHT, LEAST_HEIGHT = 640, 480, 120
STRIPE = 5  # pixels of a panel; narrower ones melt together when the sheet is shown at half size
RIGHT_OPACITY, WRONG_OPACITY = 0.5, 0.65
FONT = cv2.FONT_HERSHEY_SIMPLEX


def label_panel(label: Truth, seg_classes: Sequence[str]) -> NDArray[np.uint8]:
    """The frame with its label, uint8 (height, PANEL_WIDTH, 3) BGR."""
    canvas = label.frame.copy()
    if label.index is not None:
        _paint(canvas, label.index, label.index, seg_classes, _stripe(canvas))
    return _framed(canvas, lambda panel, scale: _outline(panel, label.boxes * scale, FOUND))


def prediction_panel(
    label: Truth, packed: Packed, classes: Sequence[str], seg_classes: Sequence[str]
) -> NDArray[np.uint8]:
    """The frame with what was found, missed and false, uint8 (height, PANEL_WIDTH, 3) BGR."""
    canvas = label.frame.copy()
    if label.index is not None and packed.index is not None:
        _paint(canvas, label.index, packed.index, seg_classes, _stripe(canvas))
    partner = match(label, packed.detections)

    def boxes(panel: NDArray[np.uint8], scale: float) -> None:
        found = packed.detections
        _outline(panel, found.boxes[partner >= 0] * scale, FOUND)
        for row in np.flatnonzero(np.isin(np.arange(len(label.boxes)), partner, invert=True)):
            corners = _corners(label.boxes[row] * scale, panel)
            _dashed(panel, corners)
            if len(classes) > 1:
                _tag(panel, _name(classes, int(label.classes[row])), corners, DARK, LIGHT)
        for row in np.flatnonzero(partner < 0)[::-1]:  # the best score on top
            corners = _corners(found.boxes[row] * scale, panel)
            _wrong(panel, corners)
            name = f"{_name(classes, int(found.classes[row]))} " if len(classes) > 1 else ""
            _tag(panel, f"{name}{found.scores[row]:.2f}", corners, FALSE, DARK)

    return _framed(canvas, boxes)


def stripes(height: int, width: int, stripe: int = STRIPE, top: int = 0) -> NDArray[np.uint8]:
    """uint8 (height, width, 3): black and white, diagonal; row 0 is the `top`-th of the whole pattern."""
    light = (np.arange(top, top + height)[:, None] + np.arange(width)) // stripe % 2 > 0
    return np.repeat(light[..., None], 3, axis=2).view(np.uint8) * np.uint8(255)


def box_swatch(outcome: Literal["found", "missed", "false"]) -> NDArray[np.uint8]:
    """A small box as the panels draw it, uint8 (16, 28, 3) BGR on grey."""
    swatch = np.full((16, 28, 3), 90, np.uint8)
    corners = (3, 2, 24, 13)
    if outcome == "found":
        _outline(swatch, np.array([corners]), FOUND)
    elif outcome == "missed":
        _dashed(swatch, corners, dash=4)
    else:
        _wrong(swatch, corners)
    return swatch


def ascii_text(text: str) -> str:
    """What OpenCV's font can show: printable ASCII, the rest as escapes."""
    return printable(text).encode("ascii", "backslashreplace").decode()


def _scale(height: int, width: int) -> float:
    """Panel pixels per frame pixel: as large as the panel allows."""
    return min(PANEL_WIDTH / width, PANEL_HEIGHT / height)


def _stripe(canvas: NDArray[np.uint8]) -> int:
    """Width of a stripe in frame pixels."""
    return max(1, round(STRIPE / _scale(*canvas.shape[:2])))


def _paint(
    canvas: NDArray[np.uint8],
    label: NDArray[np.uint8],
    found: NDArray[np.uint8],
    names: Sequence[str],
    stripe: int,
) -> None:
    """Fill the canvas in place. Where both name a class, the one listed later decides: lanes lie on the road."""
    top_class = max(int(label.max()), int(found.max()), len(names))
    right = np.zeros((top_class + 1, 3), np.uint8)
    for number in range(1, top_class + 1):
        right[number] = seg_colour(number - 1, names[number - 1] if number <= len(names) else "")
    width = canvas.shape[1]
    for top in range(0, len(canvas), STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        view, is_label, is_found = canvas[rows], label[rows], found[rows]
        _blend(view, right[is_label], (is_label == is_found) & (is_label > 0), RIGHT_OPACITY)
        _blend(view, np.full_like(view, FALSE), is_found > is_label, WRONG_OPACITY)
        _blend(view, stripes(len(view), width, stripe, top), is_label > is_found, WRONG_OPACITY)


def _blend(view: NDArray[np.uint8], colour: NDArray[np.uint8], where: NDArray[np.bool_], opacity: float) -> None:
    mixed = cv2.addWeighted(view, 1 - opacity, np.ascontiguousarray(colour), opacity, 0)
    view[where] = mixed[where]


def _framed(frame: NDArray[np.uint8], draw: Callable[[NDArray[np.uint8], float], None]) -> NDArray[np.uint8]:
    """The frame at panel size, drawn upon and centred on a panel of `PANEL_WIDTH`."""
    height, width = frame.shape[:2]
    scale = _scale(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    panel = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    draw(panel, scale)
    above, left = max(0, LEAST_HEIGHT - size[1]) // 2, (PANEL_WIDTH - size[0]) // 2
    below, right = max(0, LEAST_HEIGHT - size[1]) - above, PANEL_WIDTH - size[0] - left
    return cv2.copyMakeBorder(panel, above, below, left, right, cv2.BORDER_CONSTANT, value=DARK)


def _corners(box: NDArray[Any], panel: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Whole pixels inside the panel."""
    h, w = panel.shape[:2]
    x1, y1, x2, y2 = (round(min(max(float(v), 0.0), top)) for v, top in zip(box, (w - 1, h - 1) * 2, strict=True))
    return x1, y1, x2, y2


def _outline(panel: NDArray[np.uint8], boxes: NDArray[Any], colour: Colour) -> None:
    """Boxes on a dark rim, which keeps them apart from the sky."""
    for box in boxes:
        corners = _corners(box, panel)
        cv2.rectangle(panel, corners[:2], corners[2:], DARK, 4)
        cv2.rectangle(panel, corners[:2], corners[2:], colour, 2)


def _wrong(panel: NDArray[np.uint8], corners: tuple[int, int, int, int]) -> None:
    """A thick box on a dark rim."""
    cv2.rectangle(panel, corners[:2], corners[2:], DARK, 5)
    cv2.rectangle(panel, corners[:2], corners[2:], FALSE, 3)


def _dashed(panel: NDArray[np.uint8], corners: tuple[int, int, int, int], dash: int = 6) -> None:
    """A black box with white dashes."""
    x1, y1, x2, y2 = corners
    cv2.rectangle(panel, (x1, y1), (x2, y2), DARK, 3)
    for x in range(x1, x2 + 1, 2 * dash):
        for y in (y1, y2):
            cv2.line(panel, (x, y), (min(x + dash - 1, x2), y), LIGHT, 2)
    for y in range(y1, y2 + 1, 2 * dash):
        for x in (x1, x2):
            cv2.line(panel, (x, y), (x, min(y + dash - 1, y2)), LIGHT, 2)


def _name(classes: Sequence[str], number: int) -> str:
    return classes[number] if number < len(classes) else f"class {number}"


def _tag(
    panel: NDArray[np.uint8], text: str, corners: tuple[int, int, int, int], plate: Colour, colour: Colour
) -> None:
    """Small text on a plate above the box, below its upper edge where there is no room; left out if too wide."""
    h, w = panel.shape[:2]
    text = ascii_text(text)
    (text_w, text_h), below = cv2.getTextSize(text, FONT, 0.38, 1)
    plate_w, plate_h = text_w + 4, text_h + below
    if plate_w > w or plate_h > h:
        return
    left = min(corners[0], w - plate_w)
    top = corners[1] - plate_h - 1 if corners[1] > plate_h else min(corners[1] + 1, h - plate_h)
    cv2.rectangle(panel, (left, top), (left + plate_w - 1, top + plate_h - 1), plate, cv2.FILLED)
    cv2.putText(panel, text, (left + 2, top + text_h + 1), FONT, 0.38, colour, 1, cv2.LINE_AA)
