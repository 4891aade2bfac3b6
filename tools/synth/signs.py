"""Signs, traffic lights and gantries: labelled, though upstream's project does not read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.canvas import Canvas, Glow
from tools.synth.geometry import box_of, upright
from tools.synth.order import Item
from tools.synth.plan import Plan
from tools.synth.posts import grey, post
from tools.synth.randoms import Random
from tools.synth.roadside import block
from tools.synth.view import View

__all__ = ["NewObject", "gantry_items", "light_items", "sign_items"]

Float = NDArray[np.floating[Any]]
# called with a category (and a lamp's colour), gives the number of a new labelled object
NewObject = Callable[..., int]


_SIGNS = [  # shape, width, height, BGR
    ("round", 0.7, 0.7, (60, 40, 190)), ("box", 0.6, 0.75, (225, 225, 228)), ("diamond", 0.8, 0.8, (30, 170, 220)),
    ("octagon", 0.75, 0.75, (45, 35, 175)), ("box", 0.9, 0.6, (60, 110, 40)), ("box", 0.45, 0.6, (215, 215, 215)),
    ("box", 0.6, 0.6, (140, 80, 20)), ("diamond", 0.8, 0.8, (20, 120, 230)), ("triangle", 0.8, 0.7, (60, 50, 200)),
]  # fmt: skip


def sign_items(random: Random, view: View, plan: Plan, new_object: NewObject) -> list[Item]:
    items: list[Item] = []
    for _ in range(random.integer(0, 9)):
        side = 1 if random.chance(0.7) else -1
        s = random.uniform(6, 70)
        d = (plan.paved_right + 0.9) if side > 0 else (plan.paved_left - 0.9)
        if plan.kind == "highway":
            d += side * random.uniform(0.5, 3)
        shape, wide, high, colour = random.pick(_SIGNS)
        size = random.uniform(0.8, 1.3) * (1.5 if plan.kind == "highway" else 1.0)
        base = random.uniform(1.6, 2.6)
        items.append(post(view, s, d, base + 0.3, 0.07, grey(random), []))
        items.append(
            _plate(random, view, s - 0.12, d, base, wide * size, high * size, shape, colour, new_object("traffic sign"))
        )
    return items


def _plate(
    random: Random,
    view: View,
    s: float,
    d: float,
    base: float,
    wide: float,
    high: float,
    shape: str,
    colour: tuple[int, int, int],
    owner: int,
) -> Item:
    corners = upright(view, (s, s), (d - wide / 2, d + wide / 2), (base, base + high))
    count = {"round": 20, "diamond": 4, "octagon": 8, "triangle": 3}.get(shape, 0)
    outline = corners
    if count:
        turn = {"octagon": np.pi / 8, "triangle": -np.pi / 2, "diamond": 0.0}.get(shape, 0.0)
        angle = np.arange(count) * 2 * np.pi / count + turn
        unit = np.stack([0.5 + 0.5 * np.cos(angle), 0.5 + 0.5 * np.sin(angle)], -1).astype(np.float32)
        outline = corners[0] + unit[:, :1] * (corners[1] - corners[0]) + unit[:, 1:] * (corners[3] - corners[0])
    albedo = np.array(colour, np.float32)
    back = view.light_on(s, d)
    mirror = 2.2 if view.look.night else 1.0  # signs send headlights back
    lit = view.look.through_air(
        albedo * (view.look.ambient + 0.5 * view.look.sun + mirror * (back - view.look.ambient)), s
    )
    ink = np.array([230, 230, 230] if sum(colour) < 380 else [30, 30, 30], np.float32)
    ink = view.look.through_air(
        ink * (view.look.ambient + 0.5 * view.look.sun + mirror * (back - view.look.ambient)), s
    )
    rows = random.integer(1, 3)
    widths = [random.uniform(0.3, 0.7) for _ in range(rows)]

    def draw(canvas: Canvas) -> None:
        canvas.polygon(outline, lit, owner)
        tall = float(corners[3][1] - corners[0][1])
        if tall > 9:
            centre = outline.mean(axis=0)
            canvas.polygon(centre + (outline - centre) * 0.9, ink, owner)
            canvas.polygon(centre + (outline - centre) * 0.8, lit, owner)
            for i, width in enumerate(widths):
                y = (i + 1) / (rows + 1)
                a = corners[0] + (corners[3] - corners[0]) * y
                across = corners[1] - corners[0]
                canvas.stroke(
                    np.stack([a + across * (0.5 - width / 2), a + across * (0.5 + width / 2)]), ink, tall * 0.1, owner
                )

    return Item((s - 0.05, s + 0.05), (d - wide / 2, d + wide / 2), box_of(outline), draw)


def light_items(random: Random, view: View, plan: Plan, new_object: NewObject) -> list[Item]:
    """Traffic lights beyond or before the junction, on poles and on arms."""
    assert plan.junction is not None
    s = plan.junction.end + 1 if random.chance(0.6) else max(plan.junction.start - 1, 6.0)
    state = random.weighted({"red": 0.4, "green": 0.5, "yellow": 0.1})
    items: list[Item] = []
    d = plan.paved_right + 0.7
    arm_end = random.uniform(plan.left, plan.right)
    arm = np.stack([view.project(s, x, 5.6)[0] for x in (d, arm_end)])
    hanging = random.chance(0.6)
    items.append(post(view, s, d, 5.8 if hanging else 3.2, 0.15, grey(random), [(arm, 0.12)] if hanging else []))
    places = [(d - 0.3, 2.6)] + ([(arm_end, 5.0), ((arm_end + d) / 2, 5.0)] if hanging else [])
    if random.chance(0.5):
        left = plan.paved_left - 0.7
        items.append(post(view, s, left, 3.2, 0.13, grey(random), []))
        places.append((left + 0.3, 2.6))
    for x, base in places:
        items.append(_signal(view, s - 0.25, x, base, state, new_object("traffic light", state)))
    return items


def _signal(view: View, s: float, d: float, base: float, state: str, owner: int) -> Item:
    corners = upright(view, (s, s), (d - 0.17, d + 0.17), (base, base + 0.95))
    case = view.look.through_air(np.array([38, 48, 48], np.float32) * (view.look.ambient + 0.3), s)
    colour = {"red": (60, 50, 255), "yellow": (60, 200, 255), "green": (190, 255, 90)}[state]
    place = {"red": 0.2, "yellow": 0.5, "green": 0.8}[state]

    def draw(canvas: Canvas) -> None:
        canvas.polygon(corners, case, owner)
        wide = float(np.linalg.norm(corners[1] - corners[0]))
        for level in (0.2, 0.5, 0.8):
            centre = (corners[0] + corners[1]) / 2 + (corners[3] - corners[0]) * level
            x, y = float(centre[0]), float(centre[1])
            if not (0 <= x < canvas.columns and 0 <= y < canvas.rows):
                continue
            tone = colour if level == place else tuple(float(c) * 0.5 for c in case)
            cv2.circle(canvas.frame, (round(x), round(y)), max(1, round(wide * 0.3)), tone, -1, cv2.LINE_AA)
            if level == place:
                glow = tuple(c * (0.9 if view.look.night else 0.3) for c in colour)
                canvas.lamps.append(Glow(x, y, max(wide * 1.1, 3), (glow[0], glow[1], glow[2]), owner))

    return Item((s - 0.1, s + 0.1), (d - 0.2, d + 0.2), box_of(corners), draw)


def gantry_items(random: Random, view: View, plan: Plan, new_object: NewObject) -> list[Item]:
    if not random.chance(0.35):
        return []
    s, items = random.uniform(25, 110), []
    left, right = plan.left - 2.0, plan.paved_right + 1.5
    items += [post(view, s, d, 6.6, 0.35, grey(random), []) for d in (left, right)]
    items.append(block(random, view, s, (left + right) / 2, (0.4, right - left, 0.5), grey(random), lift=6.3))
    for _ in range(random.integer(1, 3)):
        wide = random.uniform(3, 6)
        d = random.uniform(left + wide / 2, max(left + wide / 2 + 0.1, right - wide / 2))
        colour = random.pick([(80, 110, 30), (80, 110, 30), (140, 80, 20)])
        items.append(
            _plate(
                random, view, s - 0.3, d, 5.3, wide, random.uniform(1.8, 2.8), "box", colour, new_object("traffic sign")
            )
        )
    return items
