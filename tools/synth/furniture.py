"""Poles, lamps, signs, traffic lights, gantries, bridges, and things that might be taken for cars and are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.bank import Bank
from tools.synth.canvas import STATIC, Canvas, Glow
from tools.synth.geometry import box_of, upright
from tools.synth.order import Item
from tools.synth.plan import Plan
from tools.synth.randoms import Random
from tools.synth.roadside import block, sprite_item
from tools.synth.view import View

__all__ = ["NewObject", "furniture_items", "lamp_posts"]

Float = NDArray[np.floating[Any]]
# called with a category (and a lamp's colour), gives the number of a new labelled object
NewObject = Callable[..., int]


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


def _post(
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


def _grey(random: Random) -> Float:
    return np.array(random.pick([(120, 122, 122), (60, 62, 62), (90, 95, 98), (50, 62, 74)]), np.float32)


def furniture_items(random: Random, view: View, plan: Plan, shared: Bank, new_object: NewObject) -> list[Item]:
    """Everything of this module; signs, lights and people become labelled objects."""
    items: list[Item] = []
    colour, height = _grey(random), random.uniform(7, 10)
    for s, d in view.posts:
        if float(s) < 2:
            continue
        reach = -1.8 if d > 0 else 1.8
        arm = np.stack(
            [view.project(float(s), float(d) + share * reach, height + 0.25 * share)[0] for share in (0, 0.5, 1)]
        )
        items.append(_post(view, float(s), float(d), height, 0.16, colour, [(arm, 0.11)]))
        if view.look.lamps:
            foot = float(view.project(float(s), float(d) + reach)[0][1])
            items.append(_lamp(view, float(s), arm[-1], foot))
    own = random.child("rest")
    items += _poles(own, view, plan)
    items += _signs(own, view, plan, new_object)
    if plan.junction is not None and own.chance(0.65):
        items += _lights(own, view, plan, new_object)
    if plan.kind == "highway":
        items += _gantry(own, view, plan, new_object)
    if plan.kind in ("highway", "city") and own.chance(0.14):
        items += _bridge(own, view, plan)
    items += _clutter(own, view, plan)
    items += _people(own, view, plan, shared, new_object)
    return items


def _lamp(view: View, s: float, at: Float, foot: float) -> Item:
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


def _poles(random: Random, view: View, plan: Plan) -> list[Item]:
    """Wooden poles with wires."""
    if plan.kind == "highway" or not random.chance(0.5):
        return []
    side = random.sign()
    d = (plan.paved_right + 1.4) if side > 0 else (plan.paved_left - 1.4)
    places = np.arange(random.uniform(4, 20), 150, random.uniform(25, 40))
    items = []
    for s in places:
        arms = [(np.stack([view.project(float(s), d + x, 8.2)[0] for x in (-1, 1)]), 0.1)]
        items.append(_post(view, float(s), d, 8.8, 0.26, np.array([62, 74, 84], np.float32), arms))
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


_SIGNS = [  # shape, width, height, BGR
    ("round", 0.7, 0.7, (60, 40, 190)), ("box", 0.6, 0.75, (225, 225, 228)), ("diamond", 0.8, 0.8, (30, 170, 220)),
    ("octagon", 0.75, 0.75, (45, 35, 175)), ("box", 0.9, 0.6, (60, 110, 40)), ("box", 0.45, 0.6, (215, 215, 215)),
    ("box", 0.6, 0.6, (140, 80, 20)), ("diamond", 0.8, 0.8, (20, 120, 230)), ("triangle", 0.8, 0.7, (60, 50, 200)),
]  # fmt: skip


def _signs(random: Random, view: View, plan: Plan, new_object: NewObject) -> list[Item]:
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
        items.append(_post(view, s, d, base + 0.3, 0.07, _grey(random), []))
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


def _lights(random: Random, view: View, plan: Plan, new_object: NewObject) -> list[Item]:
    """Traffic lights beyond or before the junction, on poles and on arms."""
    assert plan.junction is not None
    s = plan.junction.end + 1 if random.chance(0.6) else max(plan.junction.start - 1, 6.0)
    state = random.weighted({"red": 0.4, "green": 0.5, "yellow": 0.1})
    items: list[Item] = []
    d = plan.paved_right + 0.7
    arm_end = random.uniform(plan.left, plan.right)
    arm = np.stack([view.project(s, x, 5.6)[0] for x in (d, arm_end)])
    hanging = random.chance(0.6)
    items.append(_post(view, s, d, 5.8 if hanging else 3.2, 0.15, _grey(random), [(arm, 0.12)] if hanging else []))
    places = [(d - 0.3, 2.6)] + ([(arm_end, 5.0), ((arm_end + d) / 2, 5.0)] if hanging else [])
    if random.chance(0.5):
        left = plan.paved_left - 0.7
        items.append(_post(view, s, left, 3.2, 0.13, _grey(random), []))
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


def _gantry(random: Random, view: View, plan: Plan, new_object: NewObject) -> list[Item]:
    if not random.chance(0.35):
        return []
    s, items = random.uniform(25, 110), []
    left, right = plan.left - 2.0, plan.paved_right + 1.5
    items += [_post(view, s, d, 6.6, 0.35, _grey(random), []) for d in (left, right)]
    items.append(block(random, view, s, (left + right) / 2, (0.4, right - left, 0.5), _grey(random), lift=6.3))
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


def _bridge(random: Random, view: View, plan: Plan) -> list[Item]:
    s, items = random.uniform(30, 120), []
    concrete = np.array([128, 134, 138], np.float32) * random.uniform(0.7, 1.1)
    deck, high = random.uniform(4.9, 5.6), random.uniform(1.2, 2.2)
    items.append(block(random, view, s + 6, 0.0, (12.0, 120.0, high), concrete, lift=deck))
    items.append(block(random, view, s, 0.0, (0.3, 120.0, 0.9), concrete * 0.85, lift=deck + high))
    sides = (plan.paved_left - 2.5, plan.paved_right + 2.5)
    items += [block(random, view, s + 6, d, (12.0, 1.6, deck), concrete * 0.8) for d in sides]
    return items


def _clutter(random: Random, view: View, plan: Plan) -> list[Item]:
    """Containers, bins, boxes, cones and boards: box-shaped things that no label names."""
    items: list[Item] = []
    for _ in range(random.weighted({0: 0.4, 1: 0.25, 2: 0.15, 4: 0.12, 7: 0.08})):
        side = random.sign()
        edge = plan.paved_right if side > 0 else plan.paved_left
        s = random.uniform(7, 60)
        if plan.junction and plan.junction.start - 3 < s < plan.junction.end + 3:
            continue
        kind = random.weighted({"bin": 0.4, "cone": 0.2, "container": 0.15, "board": 0.15, "cabinet": 0.1})
        paint = np.array(random.painted(30, 190), np.float32)
        if kind == "cone":
            items += [
                block(
                    random, view, s + i * 2.5, edge - side * 0.3, (0.3, 0.28, 0.7), np.array([25, 90, 225], np.float32)
                )
                for i in range(4)
            ]
        elif kind == "container":
            items.append(block(random, view, s + 4, edge + side * 4.5, (6.1, 2.4, 2.6), paint))
        elif kind == "board":
            items.append(_post(view, s, edge + side * 5, 6, 0.3, _grey(random), []))
            items.append(block(random, view, s, edge + side * 5, (0.3, 5.0, 2.6), paint * 1.2, lift=4.5))
        elif kind == "cabinet":
            items.append(
                block(random, view, s, edge + side * 1.5, (0.6, 1.2, 1.3), np.array([120, 130, 125], np.float32))
            )
        else:
            items.append(block(random, view, s, edge + side * random.uniform(0.7, 2), (0.6, 0.6, 1.0), paint * 0.7))
    return items


def _people(random: Random, view: View, plan: Plan, shared: Bank, new_object: NewObject) -> list[Item]:
    if plan.kind == "highway":
        return []
    items: list[Item] = []
    count = random.integer(0, 9) if plan.kind == "city" else random.integer(0, 3)
    for _ in range(count):
        sprite = random.pick(shared.people)
        side = random.sign()
        edge = plan.paved_right if side > 0 else plan.paved_left
        s = random.uniform(7, 60)
        d = edge + side * random.uniform(0.6, 2.6)
        if sprite.kind == "rider":
            d = plan.right - random.uniform(0.2, 0.8) if side > 0 else plan.left - random.uniform(-0.3, 0.8)
        elif plan.crossing is not None and random.chance(0.4):
            s, d = max(plan.crossing + 1.2, 6.5), random.uniform(plan.paved_left, plan.paved_right)
        light = (
            view.look.ambient
            + 0.5 * view.look.sun * (0.4 if view.shade else 1)
            + 0.8 * (view.light_on(s, d) - view.look.ambient)
        )
        item = sprite_item(
            view, sprite, s, d, sprite.height, light, owner=new_object(sprite.kind), flip=random.chance(0.5)
        )
        if item is not None:
            items.append(item)
    return items
