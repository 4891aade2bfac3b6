"""Street lamps, poles with wires, and posts of everything else."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.canvas import STATIC, Canvas, Glow
from tools.synth.geometry import box_of, upright
from tools.synth.order import Item
from tools.synth.plan import Plan
from tools.synth.randoms import Random
from tools.synth.view import View

__all__ = ["grey", "lamp_item", "lamp_posts", "pole_items", "post"]

Float = NDArray[np.floating[Any]]


def lamp_posts(random: Random, plan: Plan) -> Float:
    """(n, 2): s and d of street lamps."""
    if plan.kind == "rural" or random.chance(0.35 if plan.kind == "highway" else 0.12):
        return np.zeros((0, 2), np.float32)
    step, start = random.uniform(22, 45), random.uniform(5, 30)
    sides = random.pick([(1,), (-1,), (-1, 1)])
    posts = []
    for side in sides:
        d = plan.paved_right + 0.8 if side > 0 else plan.paved_left - 0.8
        posts += [(s + (step / 2 if side > 0 else 0), d) for s in np.arange(start, 170, step)]
    return np.array(posts, np.float32).reshape(-1, 2)


def post(
    view: View, s: float, d: float, height: float, wide: float, colour: Float, more: list[tuple[Float, float]]
) -> Item:
    """A vertical pole with more strokes (points in the picture, width in metres)."""
    ends = upright(view, (s, s), (d, d), (0.0, height))[[0, 3]]
    scale = view.camera.focal / max(s, 1.0)
    shade = view.look.through_air(
        colour * (view.look.ambient + 0.35 * view.look.sun + 0.5 * (view.light_on(s, d) - view.look.ambient)), s
    )
    points = np.concatenate([ends, *[stroke for stroke, _ in more]])

    def draw(canvas: Canvas) -> None:
        canvas.stroke(ends, shade, wide * scale)
        if wide * scale > 4:
            canvas.stroke(ends - np.array([wide * scale * 0.2, 0], np.float32), shade * 1.25, wide * scale * 0.25)
        for stroke, width in more:
            canvas.stroke(stroke, shade, width * scale)

    box = box_of(points)
    return Item((s - 0.1, s + 0.1), (d - 0.15, d + 0.15), (box[0] - 4, box[1] - 4, box[2] + 4, box[3] + 4), draw)


def grey(random: Random) -> Float:
    return np.array(random.pick([(120, 122, 122), (60, 62, 62), (90, 95, 98), (50, 62, 74)]), np.float32)


def lamp_item(view: View, s: float, at: Float, foot: float) -> Item:
    colour = tuple(float(c) for c in np.clip(view.street * 240 + 70, 0, 255))
    radius = max(0.35 * view.camera.focal / s, 2.5 * view.camera.scale)

    def draw(canvas: Canvas) -> None:
        x, y = float(at[0]), float(at[1])
        if 0 <= x < canvas.columns and 0 <= y < canvas.rows:
            size = max(1, int(radius / 3))
            cv2.circle(canvas.frame, (int(x), int(y)), size, (235, 245, 250), -1, cv2.LINE_AA)
            cv2.circle(canvas.ids, (int(x), int(y)), size, STATIC, -1)  # so that what hides it later shows
            reach = min(radius * 1.7, 34 * view.camera.scale)
            canvas.lamps.append(Glow(x, y, reach, (colour[0], colour[1], colour[2]), STATIC, foot - y))

    return Item(
        (s - 0.1, s + 0.1), (-0.1, 0.1), (float(at[0]) - 4, float(at[1]) - 4, float(at[0]) + 4, float(at[1]) + 4), draw
    )


def pole_items(random: Random, view: View, plan: Plan) -> list[Item]:
    """Wooden poles with wires."""
    if plan.kind == "highway" or not random.chance(0.5):
        return []
    side = random.sign()
    d = (plan.paved_right + 1.4) if side > 0 else (plan.paved_left - 1.4)
    places = np.arange(random.uniform(4, 20), 150, random.uniform(25, 40))
    items = []
    for s in places:
        arms = [(np.stack([view.project(float(s), d + x, 8.2)[0] for x in (-1, 1)]), 0.1)]
        items.append(post(view, float(s), d, 8.8, 0.26, np.array([62, 74, 84], np.float32), arms))
    dark = view.look.through_air(np.array([40, 40, 40], np.float32) * view.look.ambient, 40)
    for offset in (-0.9, 0.0, 0.9):
        s = np.linspace(1.5, float(places[-1]), 60).astype(np.float32)
        span = np.mod(s - places[0], 30.0) / 30.0
        sag = (8.2 - 2.4 * span * (1 - span)).astype(np.float32)
        points, _ = view.camera.project(view.shape.world(s, np.full(60, d + offset, np.float32), sag))

        def draw(canvas: Canvas, points: Float = points) -> None:
            cv2.polylines(
                canvas.frame, [(points * 16).astype(np.int32)], False, tuple(float(c) for c in dark), 1, cv2.LINE_AA, 4
            )

        items.append(Item((200.0, 201.0), (d, d + 0.1), box_of(points), draw))
    return items
