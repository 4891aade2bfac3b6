"""Lane lines: which ones count, edges to centre lines, and masks of an exact width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.convert.categories import LANE_TYPES, kind_of, label_attributes, text_value
from tools.convert.geometry import GeometryError, flatten, parse_poly2d, stroke

__all__ = ["Lane", "centre_lines", "draw_lanes", "lane_bits", "lanes_of", "mask_lanes"]

# Two annotated lines are the edges of one painted line when they are on average no further apart than this. Paint is
# 0.1 to 0.4 m wide and lanes are 3.5 m apart: at a focal length of 1000 px, 40 px are 0.4 m of paint seen from 10 m,
# and lanes come this close only beyond 87 m, where the true partner is nearer still.
MAX_GAP = 40.0
# ... and this share of the length of the shorter, or two short far lines without partners would become one between them
MAX_GAP_PER_LENGTH = 0.25
MIN_OVERLAP = 0.5  # of the shorter line must run beside the longer
_SAMPLES = 33
MASK_THICKNESS = 3  # px, median of the official lane masks (matplotlib, linewidth 1 at 100 dpi, not antialiased)


@dataclass(frozen=True)
class Lane:
    """One annotated line.

    Attributes:
        points: float64 (n, 2), flattened, x and y in pixels.
        type: one of LANE_TYPES.
        direction: "parallel" or "vertical" (to the driving direction); parallel where it is not said.
    """

    points: NDArray[np.float64]
    type: str
    direction: str


def lanes_of(labels: Sequence[dict[str, Any]], counts: Counter[str]) -> list[Lane]:
    """The lane lines among labels of any generation; what cannot be drawn is counted."""
    found = []
    for label in labels:
        attributes = label_attributes(label)
        kind, name = kind_of(label.get("category"), attributes)
        if kind != "lane":
            continue
        if name not in LANE_TYPES:
            counts["lanes_unknown_type"] += 1
            continue
        # v0 says direction, later generations laneDirection
        direction = text_value(attributes.get("lanedirection", attributes.get("direction"))) or "parallel"
        try:
            outlines = parse_poly2d(label.get("poly2d") or label.get("seg2d"))
        except GeometryError:
            counts["lanes_broken"] += 1
            continue
        if not outlines:
            counts["lanes_without_points"] += 1
        found += [Lane(flatten(outline, closed=False), name, direction) for outline in outlines]
    return found


def _resample(line: NDArray[np.float64], count: int = _SAMPLES) -> NDArray[np.float64]:
    """Points at equal distances along a line."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(at, along, line[:, 0]), np.interp(at, along, line[:, 1])], axis=1)


def _length(line: NDArray[np.float64]) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


@dataclass(frozen=True)
class _Beside:
    """How the samples of one line see another: offset to its nearest point, and whether that lies beside them."""

    offset: NDArray[np.float64]
    beside: NDArray[np.bool_]

    @property
    def gap(self) -> float:
        return float(np.hypot(*self.offset[self.beside].T).mean()) if self.beside.any() else np.inf


def _look(samples: NDArray[np.float64], line: NDArray[np.float64]) -> _Beside:
    start, step = line[:-1], np.diff(line, axis=0)
    length = np.maximum((step**2).sum(axis=1), 1e-12)
    along = ((samples[:, None] - start) * step).sum(axis=2) / length  # (samples, pieces)
    nearest = start + np.clip(along, 0.0, 1.0)[..., None] * step
    offset = nearest - samples[:, None]
    piece = (offset**2).sum(axis=2).argmin(axis=1)
    rows = np.arange(len(samples))
    at = along[rows, piece]
    # past the end of the line the foot of the perpendicular falls outside its first or last piece; a hair is allowed
    before = (piece == 0) & (at < -0.01)
    after = (piece == len(step) - 1) & (at > 1.01)
    return _Beside(offset[rows, piece], ~(before | after))


def _partners(first: Lane, second: Lane) -> float | None:
    """The mean gap of two lines that may be the edges of one painted line, else None."""
    if (first.type, first.direction) != (second.type, second.direction):
        return None
    shorter, longer = sorted((first.points, second.points), key=_length)
    length = _length(shorter)
    view = _look(_resample(shorter), longer)
    gap = view.gap
    if view.beside.mean() < MIN_OVERLAP or gap > min(MAX_GAP, MAX_GAP_PER_LENGTH * length):
        return None
    return gap


def _centre(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle of two edges.

    Edges that begin and end together are averaged point by point. Else the centre is as long as the longer one, and
    past the end of the shorter keeps the last offset.
    """
    if np.hypot(*(first[0] - second[0])) + np.hypot(*(first[-1] - second[-1])) > np.hypot(
        *(first[0] - second[-1])
    ) + np.hypot(*(first[-1] - second[0])):
        second = second[::-1]
    samples = _resample(first)
    if max(np.hypot(*(first[0] - second[0])), np.hypot(*(first[-1] - second[-1]))) <= MAX_GAP:
        average: NDArray[np.float64] = (samples + _resample(second)) / 2
        return average
    shorter, longer = sorted((first, second), key=_length)
    samples = _resample(longer)
    view = _look(samples, shorter)
    known = np.flatnonzero(view.beside)
    if not len(known):
        return longer
    index = np.arange(len(samples))
    nearest = known[np.abs(index[:, None] - known).argmin(axis=1)]
    middle: NDArray[np.float64] = samples + view.offset[nearest] / 2
    return middle


def centre_lines(lanes: Sequence[Lane]) -> tuple[list[Lane], int]:
    """Pairs of edges become their centre line, nearest pairs first; the others stay as they are.

    BDD100K marks a painted line by its two edges; the published masks (SAD's rule) hold the average of the two.

    Returns:
        The lines, and how many of them come from pairs.
    """
    candidates = []
    for i, first in enumerate(lanes):
        for j in range(i + 1, len(lanes)):
            gap = _partners(first, lanes[j])
            if gap is not None:
                candidates.append((gap, i, j))
    taken: set[int] = set()
    joined: dict[int, Lane] = {}
    for _, i, j in sorted(candidates):
        if i not in taken and j not in taken:
            taken |= {i, j}
            joined[i] = Lane(_centre(lanes[i].points, lanes[j].points), lanes[i].type, lanes[i].direction)
    kept = [joined.get(i, lane) for i, lane in enumerate(lanes) if i in joined or i not in taken]
    return kept, len(joined)


def draw_lanes(
    lanes: Sequence[Lane],
    size: tuple[int, int],
    *,
    width: float,
    types: Collection[str],
    directions: Collection[str],
    pairs: bool,
    counts: Counter[str],
) -> NDArray[np.bool_]:
    """The mask of the chosen lanes: bool (height, width)."""
    chosen = [lane for lane in lanes if lane.type in types and lane.direction in directions]
    counts["lanes_not_chosen"] += len(lanes) - len(chosen)
    if pairs:
        chosen, joined = centre_lines(chosen)
        counts["lanes_from_pairs"] += joined
    counts["lanes"] += len(chosen)
    return stroke(size, [lane.points for lane in chosen], width)


def lane_bits(mask: NDArray[np.uint8], types: Collection[str], directions: Collection[str]) -> NDArray[np.bool_]:
    """Lane pixels of an official mask: bool (height, width).

    A pixel is one byte `- - d s b c c c`: type c, bit 3 background, bit 4 style (dashed), bit 5 direction (vertical).
    Background is 255, so `mask > 0` would be everything except crosswalks.

    Raises:
        GeometryError: bytes that no official mask has.
    """
    lane = ((mask >> 3) & 1) == 0
    if (lane & (mask > 63)).any():
        raise GeometryError("the lane mask holds values that are not made of type, style and direction")
    codes = [LANE_TYPES.index(name) for name in types]
    lane &= np.isin(mask & 7, codes)
    wanted = [("parallel", "vertical").index(name) for name in directions]
    lane &= np.isin((mask >> 5) & 1, wanted)
    return lane


def mask_lanes(lane: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Official lane pixels, 3 px thick, at another thickness: dilated, or for 1 and 2 px eroded."""
    grow = width - MASK_THICKNESS
    if grow == 0:
        return lane
    image = lane.astype(np.uint8)
    side = abs(grow) + 1
    if grow > 0:
        return cv2.dilate(image, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0
    thin = cv2.erode(image, np.ones((side, side), np.uint8), borderType=cv2.BORDER_REPLICATE) > 0
    # a line that is already thinner somewhere must not vanish there
    around = cv2.dilate(thin.astype(np.uint8), np.ones((2 * side + 1, 2 * side + 1), np.uint8)) > 0
    return thin | (lane & ~around)
