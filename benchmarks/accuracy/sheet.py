"""Panels side by side with their captions: one picture for one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.panels import FALSE, FONT, LIGHT, PANEL_WIDTH, ascii_text, box_swatch, stripes
from hybridnets.draw import seg_colour

__all__ = ["Panel", "sheet"]

BACKGROUND = (30, 30, 30)
DIM = (170, 170, 170)
MARGIN, GAP, LINE = 12, 8, 22
TITLE_SIZE, TEXT_SIZE = 0.6, 0.5


@dataclass(frozen=True)
class Panel:
    """One column of a sheet.

    Attributes:
        title: above the picture.
        figures: below it, broken between two of them where the line is full.
        image: uint8 (h, PANEL_WIDTH, 3) BGR.
    """

    title: str
    figures: tuple[str, ...]
    image: NDArray[np.uint8]


def sheet(
    title: str, reason: str, panels: Sequence[Panel], *, boxes: bool, seg_classes: Sequence[str]
) -> NDArray[np.uint8]:
    """Put panels of one height side by side.

    Args:
        title, reason: two lines at the top; cut with dots where too long.
        boxes: the legend explains boxes.
        seg_classes: whose colours the legend explains.

    Returns:
        uint8 (h, w, 3) BGR; w is 2 * 12 + 640 a panel + 8 between two.
    """
    captions = [_wrap(panel.figures) for panel in panels]
    width = 2 * MARGIN + len(panels) * PANEL_WIDTH + (len(panels) - 1) * GAP
    top = MARGIN + 2 * LINE + 10
    picture = top + LINE + 4
    below = picture + max(len(panel.image) for panel in panels) + 8
    bottom = below + LINE * max(1, *(len(lines) for lines in captions)) + 8
    canvas = np.full((bottom + LINE + MARGIN, width, 3), BACKGROUND, np.uint8)
    room = width - 2 * MARGIN
    _text(canvas, title, (MARGIN, MARGIN + 16), room, size=TITLE_SIZE, thickness=2)
    _text(canvas, reason, (MARGIN, MARGIN + 16 + LINE + 2), room, size=0.55)
    for number, (panel, lines) in enumerate(zip(panels, captions, strict=True)):
        x = MARGIN + number * (PANEL_WIDTH + GAP)
        _text(canvas, panel.title, (x, top + 16), PANEL_WIDTH, size=0.55)
        canvas[picture : picture + len(panel.image), x : x + PANEL_WIDTH] = panel.image
        for row, line in enumerate(lines):
            _text(canvas, line, (x, below + 14 + row * LINE), PANEL_WIDTH)
    cv2.line(canvas, (MARGIN, bottom), (width - MARGIN - 1, bottom), (80, 80, 80), 1)
    _legend(canvas, bottom + 8, boxes, seg_classes)
    return canvas


def _wrap(figures: Sequence[str]) -> list[str]:
    """Figures joined by spaces, as many in a line as the panel is wide."""
    lines: list[str] = []
    for figure in figures:
        longer = f"{lines[-1]}    {figure}" if lines else figure
        if lines and _width(longer) <= PANEL_WIDTH:
            lines[-1] = longer
        else:
            lines.append(figure)
    return lines


def _width(text: str, size: float = TEXT_SIZE, thickness: int = 1) -> int:
    return int(cv2.getTextSize(ascii_text(text), FONT, size, thickness)[0][0])


def _text(
    canvas: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    room: int,
    *,
    size: float = TEXT_SIZE,
    thickness: int = 1,
    colour: tuple[int, int, int] = LIGHT,
) -> int:
    """Write from `at` (left end of the base line), at most `room` pixels wide; returns the width."""
    text = ascii_text(text)
    if _width(text, size, thickness) > room:
        longest = len(text)
        while longest and _width(text[:longest] + "...", size, thickness) > room:
            longest -= 1
        text = text[:longest] + "..."
    cv2.putText(canvas, text, at, FONT, size, colour, thickness, cv2.LINE_AA)
    return _width(text, size, thickness)


def _legend(canvas: NDArray[np.uint8], y: int, boxes: bool, seg_classes: Sequence[str]) -> None:
    """Swatches and words on one line."""
    entries: list[tuple[NDArray[np.uint8], str]] = []
    if boxes:
        entries += [
            (box_swatch("found"), "box found"),
            (box_swatch("missed"), "missed"),
            (box_swatch("false"), "false"),
        ]
    for number, name in enumerate(seg_classes):
        entries.append((_filled(seg_colour(number, name)), f"{name}, right"))
    if seg_classes:
        entries += [(stripes(16, 28), "pixels missed"), (_filled(FALSE), "pixels false")]
    x, right = MARGIN, canvas.shape[1] - MARGIN
    for swatch, words in entries:
        height, width = swatch.shape[:2]
        room = right - x - width - 6
        if room < 40:  # many classes: their names stand in the captions too
            return
        canvas[y : y + height, x : x + width] = swatch
        x += width + 6
        x += _text(canvas, words, (x, y + 13), room, size=0.45, colour=DIM) + 22


def _filled(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((16, 28, 3), colour, np.uint8)
