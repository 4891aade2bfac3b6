"""Paint on the road, and the labels of lane lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.camera import NEAR
from tools.synth.canvas import SHIFT, pixels
from tools.synth.plan import Junction, Line, Plan
from tools.synth.randoms import Random
from tools.synth.view import View

__all__ = ["START", "draw_paint", "lane_labels", "sampled", "stripe"]

START = 1.2  # metres: the nearest drawn point of things along the road, below every picture's lower edge
# Lines are labelled up to where neighbours are 15 px apart (of 720 rows): with 8 px labels the gaps between them stay.
_LABEL_GAP_PX, _LANE_M = 15.0, 3.4

Float = NDArray[np.floating[Any]]
Polygons = list[NDArray[np.int32]]


def sampled(start: float, end: float) -> Float:
    """Distances from start to end, as dense as perspective needs."""
    count = max(2, int(np.log(max(end, start + 0.01) / start) / np.log(1.09)) + int((end - start) / 25) + 2)
    return np.geomspace(start, max(end, start + 0.01), count).astype(np.float32)


def stripe(view: View, d: float, width: float, start: float, end: float) -> Float:
    """Outline of a strip on the road between two distances, pixels."""
    s = sampled(start, end)
    left, _ = view.project(s, np.full_like(s, d - width / 2))
    right, _ = view.project(s, np.full_like(s, d + width / 2))
    return np.concatenate([left, right[::-1]])


def pieces(start: float, end: float, junction: Junction | None, *, open_side: bool) -> Iterator[tuple[float, float]]:
    """A run along the road without what a junction interrupts."""
    if junction is None or not open_side:
        yield start, end
        return
    if junction.start > start:
        yield start, min(end, junction.start)
    if junction.end < end:
        yield max(start, junction.end), end


def _interrupted(line: Line, plan: Plan) -> bool:
    junction = plan.junction
    if junction is None:
        return False
    if line.d > plan.right - 0.3:
        return junction.right
    if line.d < plan.left + 0.3 and line.d < plan.paved_left + 3.5:
        return junction.left
    return junction.left and junction.right and plan.kind != "rural"


def draw_paint(
    random: Random, view: View, plan: Plan, rows: int, columns: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Coverage of white and of yellow paint, uint8 (rows, columns) each."""
    cover = {name: np.zeros((rows, columns), np.uint8) for name in ("white", "yellow")}
    for line in plan.lines:
        polygons: Polygons = []
        for start, end in pieces(START, view.shape.far, plan.junction, open_side=_interrupted(line, plan)):
            polygons += [pixels(polygon) for polygon in _stripes(random, view, line, start, end)]
        layer = cover[line.colour] if line.seen > 0.97 else np.zeros((rows, columns), np.uint8)
        cv2.fillPoly(layer, polygons, 255 * line.seen, cv2.LINE_AA, SHIFT)
        if layer is not cover[line.colour]:
            cv2.max(cover[line.colour], layer, dst=cover[line.colour])
    extra = [pixels(polygon) for polygon in _across(random, view, plan)]
    if extra:
        cv2.fillPoly(cover["white"], extra, 215, cv2.LINE_AA, SHIFT)
    return cover["white"], cover["yellow"]


def _stripes(random: Random, view: View, line: Line, start: float, end: float) -> Iterator[Float]:
    if end - start < 0.5:
        return
    apart = 0.5 * line.width + 0.06
    offsets = [(line.d, line.style)]
    if line.style == "double":
        offsets = [(line.d - apart, "solid"), (line.d + apart, "solid")]
    elif line.style == "half":
        offsets = [(line.d - apart, "solid"), (line.d + apart, "dashed")]
    for d, style in offsets:
        if style == "solid":
            yield stripe(view, d, line.width, start, end)
            continue
        at = start - random.uniform(0, line.dash + line.gap)
        while at < min(end, 190.0):
            a, b = max(at, start), min(at + line.dash, end)
            if b - a > 0.2:
                yield stripe(view, d, line.width, a, b)
            at += line.dash + line.gap


def _across(random: Random, view: View, plan: Plan) -> Iterator[Float]:
    """Crossings, stop lines and arrows."""
    if plan.crossing is not None:
        start, end = plan.crossing, plan.crossing + random.uniform(2.5, 3.5)
        bars = random.chance(0.6)
        if bars and start > START:
            for d in np.arange(plan.paved_left + 0.4, plan.paved_right - 0.3, 1.1):
                yield stripe(view, float(d), 0.55, start, end)
        else:
            for s in (start, end):
                yield stripe(
                    view,
                    (plan.paved_left + plan.paved_right) / 2,
                    plan.paved_right - plan.paved_left,
                    max(s, START),
                    max(s, START) + 0.3,
                )
        if start - 2.2 > START:
            yield stripe(view, (plan.left + plan.right) / 2, plan.right - plan.left, start - 1.8, start - 1.35)
    if plan.kind in ("city", "highway") and random.chance(0.25):
        lane = random.pick(plan.lanes)
        for s in np.arange(random.uniform(6, 20), 60, 24.0):
            tip = 2.6 if lane.direction > 0 else 0.0
            head = np.array([(s + tip, 0), (s + abs(tip - 1.1), -0.4), (s + abs(tip - 1.1), 0.4)], np.float32)
            yield view.project(head[:, 0], head[:, 1] + lane.centre)[0]
            yield stripe(view, lane.centre, 0.18, float(s) + 0.6, float(s) + 2.2)


def lane_labels(view: View, plan: Plan, rows: int, columns: int, width: float) -> NDArray[np.uint8]:
    """Labels of painted lines and kerbs, uint8 (rows, columns) of 0 and 255, before anything hides them.

    Each line is one label of constant width along its middle, dashes and worn parts joined and double lines as one:
    that is how BDD's lane masks are drawn.
    """
    mask = np.zeros((rows, columns), np.uint8)
    straight = view.camera.focal / view.camera.scale * _LANE_M / _LABEL_GAP_PX
    thick = max(1, round(width * view.camera.scale))
    marks = [(line.d, _interrupted(line, plan)) for line in plan.lines]
    junction = plan.junction
    for d, side in plan.kerbs:
        marks.append((d, junction is not None and (junction.left if side < 0 else junction.right)))
    for d, interrupted in marks:
        # seen from the side, neighbours close up: lines of the other carriageway end sooner
        limit = min(view.shape.far, straight * view.camera.height / float(np.hypot(d, view.camera.height)))
        for start, end in pieces(START, limit, junction, open_side=interrupted):
            if end - start < 0.5:
                continue
            s = sampled(max(start, NEAR), end)
            points, _ = view.project(s, np.full_like(s, d))
            cv2.polylines(mask, [pixels(points)], False, 255, thick, cv2.LINE_8, SHIFT)
    return mask
