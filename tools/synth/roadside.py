"""Buildings, trees, walls and kerbs along the road."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.bank import Bank
from tools.synth.canvas import KERB, STATIC, Canvas
from tools.synth.facades import Facade
from tools.synth.markings import START, pieces, sampled
from tools.synth.order import Item
from tools.synth.plan import Plan
from tools.synth.plants import Sprite
from tools.synth.randoms import Random
from tools.synth.surfaces import lighting, paste_sprite, textured_quad
from tools.synth.view import View

__all__ = ["block", "draw_kerbs", "roadside_items", "sprite_item", "upright"]

Float = NDArray[np.floating[Any]]
_NEAREST = 1.6  # metres: walls nearer than this are out of the picture
_CUTS = (1.2, 3.0, 5.5, 9.0, 14.0, 21.0, 30.0, 42.0, 60.0, 85.0, 120.0, 170.0, 240.0)


def box_of(points: Float) -> tuple[float, float, float, float]:
    """Bounding box x0, y0, x1, y1."""
    low, high = points.reshape(-1, 2).min(axis=0), points.reshape(-1, 2).max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def upright(view: View, s: tuple[float, float], d: tuple[float, float], height: tuple[float, float]) -> Float:
    """A standing rectangle in the picture: upper (s0, d0), upper (s1, d1), lower (s1, d1), lower (s0, d0)."""
    along = np.array([s[0], s[1], s[1], s[0]], np.float32)
    across = np.array([d[0], d[1], d[1], d[0]], np.float32)
    up = np.array([height[1], height[1], height[0], height[0]], np.float32)
    return view.camera.project(view.shape.world(along, across, up))[0]


def roadside_items(random: Random, view: View, plan: Plan, shared: Bank) -> list[Item]:
    """Everything of this module but kerbs."""
    items: list[Item] = []
    for side in (-1, 1):
        edge = plan.paved_right if side > 0 else plan.paved_left
        own = random.child(f"side {side}")
        if plan.kind in ("city", "residential") and own.chance(0.93):
            items += _buildings(own, view, plan, shared, side, edge)
        elif own.chance(0.3):
            items += _buildings(own, view, plan, shared, side, edge + side * own.uniform(8, 25))
        items += _trees(own, view, plan, shared, side, edge)
    for d, kind in plan.walls:
        items += _wall(random, view, plan, d, kind)
    return items


def _front_light(view: View, side: int, *, end: bool) -> Float:
    look = view.look
    normal = np.array([0, 0, -1], np.float32) if end else np.array([-side, 0, 0], np.float32)
    direct = max(float(normal @ look.direction), 0.0) * (0.5 if view.shade else 1.0)
    return look.ambient * 0.85 + look.sun * direct + view.street * 0.16


def _buildings(random: Random, view: View, plan: Plan, shared: Bank, side: int, edge: float) -> list[Item]:
    items: list[Item] = []
    kinds = {"city": ("flat", "flat", "flat", "hall"), "residential": ("house",)}.get(
        plan.kind, ("hall", "house", "flat")
    )
    setback = random.uniform(2.5, 6.0) if plan.kind == "city" else random.uniform(6, 13)
    at = random.uniform(-20, 6)
    while at < min(view.shape.far * 0.8, 190):
        facade = random.pick([f for f in shared.facades if f.kind in kinds])
        length = facade.width * random.uniform(0.8, 1.15)
        d = edge + side * (setback + random.uniform(0, 1.5))
        start, end = max(at, _NEAREST), at + length
        at = end + (random.uniform(0, 1.5) if random.chance(0.6) and plan.kind == "city" else random.uniform(2, 16))
        crossing = plan.junction is not None and (plan.junction.right if side > 0 else plan.junction.left)
        if crossing and plan.junction is not None and start < plan.junction.end + 3 and end > plan.junction.start - 3:
            continue
        if end > start + 1:
            item = _building(random, view, facade, side, d, (start, end), random.uniform(0.75, 1.2))
            items += [item] if item is not None else []
    return items


def _building(
    random: Random, view: View, facade: Facade, side: int, d: float, s: tuple[float, float], tone: float
) -> Item | None:
    height = facade.height * random.uniform(0.9, 1.15)
    deep = random.uniform(7, 14)
    outer = d + side * deep
    front = upright(view, s, (d, d), (-0.3, height))
    if side > 0:
        front = front[[1, 0, 3, 2]]
    gable = upright(view, (s[0], s[0]), (d, outer), (-0.3, height))
    if side < 0:
        gable = gable[[1, 0, 3, 2]]
    roof: Float | None = None
    if facade.kind == "house":
        ridge = height + random.uniform(1.8, 3.2)
        high = view.camera.project(
            view.shape.world(np.array(s, np.float32), np.full(2, (d + outer) / 2, np.float32), ridge)
        )[0]
        low, _ = view.project(np.array(s), np.full(2, d - side * 0.4, np.float32), height - 0.1)
        back, _ = view.project(s[0], outer, height)
        roof = np.concatenate([low, high[::-1], back[None], high[:1]])
    parts = [front, gable] + ([roof[:5]] if roof is not None else [])
    box = box_of(np.concatenate(parts))
    lit = view.look.lamps
    brightness = random.uniform(0.25, 1.0)
    slates = np.array(random.pick([(70, 72, 78), (60, 70, 95), (85, 88, 90)]), np.float32)

    def draw(canvas: Canvas) -> None:
        distance = max(0.5 * (s[0] + s[1]), 1.0)
        for corners, end in ((gable, True), (front, False)):
            picture = facade.colour
            light = facade.lit
            if end:
                share = min(1.0, deep / facade.width)
                cut = max(8, int(picture.shape[1] * share))
                picture, light = picture[:, :cut], light[:, :cut]
            table = lighting(view, tone * _front_light(view, side, end=end), s[0] if end else distance)
            shown = cv2.LUT(picture, table)
            if lit:
                fade = (1 - float(view.look.fade(distance))) * (brightness if view.look.night else 0.4 * brightness)
                shown = cv2.addWeighted(shown, 1, light, fade, 0)
            textured_quad(canvas, shown, corners)
        if roof is not None:
            shade = view.look.through_air(slates * (view.look.ambient + 0.6 * view.look.sun), distance)
            if view.look.snow > 0.4:
                shade = shade * 0.2 + 0.8 * view.look.through_air(np.float32(225) * view.look.ambient, distance)
            canvas.polygon(roof[:4], shade)
            triangle = np.stack([roof[0], roof[3], roof[4]])
            canvas.polygon(triangle, view.look.through_air(150 * tone * _front_light(view, side, end=True), s[0]))

    return Item(s, (min(d, outer), max(d, outer)), box, draw)


def sprite_item(
    view: View,
    sprite: Sprite,
    s: float,
    d: float,
    height: float,
    light: Float,
    *,
    owner: int = STATIC,
    flip: bool = False,
) -> Item | None:
    """A sprite that stands on the road's level."""
    foot, depth = view.project(s, d)
    if float(depth) < 1.0:
        return None
    tall = height * view.camera.focal / float(depth)
    wide = tall * sprite.alpha.shape[1] / sprite.alpha.shape[0]
    x, y = float(foot[0]), float(foot[1])
    table = lighting(view, light, s)
    reach = 0.5 * height * sprite.alpha.shape[1] / sprite.alpha.shape[0]
    thin = min(reach, 0.5)

    def draw(canvas: Canvas) -> None:
        paste_sprite(canvas, sprite, table, (x, y), tall, owner, flip=flip)

    return Item((s - 0.3, s + 0.3), (d - thin, d + thin), (x - wide / 2, y - tall, x + wide / 2, y), draw)


def _trees(random: Random, view: View, plan: Plan, shared: Bank, side: int, edge: float) -> list[Item]:
    items: list[Item] = []
    town = plan.kind in ("city", "residential")
    density = random.weighted({0.0: 0.18, 0.035: 0.35, 0.09: 0.32, 0.2: 0.15})
    if density == 0:
        return items
    at, near = random.uniform(2, 12), 1.2 if town else random.uniform(4, 10)
    snowy = view.look.snow > 0 or random.chance(0.12)
    kinds = ("bare", "conifer") if snowy else random.pick([("leafy",), ("leafy", "bush"), ("leafy", "conifer", "bush")])
    choice = [tree for tree in shared.trees if tree.kind in kinds]
    few = [random.pick(choice) for _ in range(3)]
    while at < min(view.shape.far, 210):
        tree = random.pick(few if town else choice)
        depth = random.uniform(0, 1.5) if town else random.numpy.exponential(9)
        d = edge + side * (near + depth)
        light = (view.look.ambient * 0.9 + view.look.sun * 0.55 * (0.4 if view.shade else 1)) * random.uniform(
            0.75, 1.25
        )
        light = light + view.street * 0.35 + view.light_on(at, d) * 0.15 * view.look.lamps
        item = sprite_item(view, tree, at, d, tree.height * random.uniform(0.7, 1.25), light, flip=random.chance(0.5))
        if item is not None and not (plan.junction and plan.junction.start - 1 < at < plan.junction.end + 1):
            items.append(item)
        at += 1.5 + random.numpy.exponential(1 / density) * (0.6 + at / 80)
        if len(items) > 34:
            break
    return items


_WALLS = {  # from, to (metres), BGR albedo
    "rail": (0.45, 0.78, (150, 152, 154)),
    "concrete": (0.0, 0.85, (150, 156, 160)),
    "fence": (0.0, 1.5, (120, 130, 140)),
    "noise": (0.0, 3.6, (112, 124, 134)),
    "hedge": (0.0, 1.4, (38, 66, 48)),
    "snow": (0.0, 0.5, (225, 221, 218)),
}


def _wall(random: Random, view: View, plan: Plan, d: float, kind: str) -> list[Item]:
    low, high, albedo = _WALLS[kind]
    high *= random.uniform(0.85, 1.2)
    side = 1 if d > 0 else -1
    junction = plan.junction
    open_side = junction is not None and (junction.right if side > 0 else junction.left)
    light = _front_light(view, side, end=False) * random.uniform(0.85, 1.1)
    base = np.array(albedo, np.float32) * random.uniform(0.75, 1.1)
    items: list[Item] = []
    for start, end in pieces(START, min(view.shape.far, 240.0), junction, open_side=open_side):
        cuts = [start, *[cut for cut in _CUTS if start + 0.5 < cut < end - 0.5], end]
        for a, b in itertools.pairwise(cuts):
            items.append(_wall_piece(random, view, kind, d, (a, b), (low, high), base, light))
    return items


def _wall_piece(
    random: Random,
    view: View,
    kind: str,
    d: float,
    s: tuple[float, float],
    height: tuple[float, float],
    base: Float,
    light: Float,
) -> Item:
    along = np.linspace(s[0], s[1], 6).astype(np.float32)
    ripple = random.numpy.uniform(0.6, 1.25, 6).astype(np.float32) if kind in ("snow", "hedge") else 1.0
    top, _ = view.camera.project(view.shape.world(along, np.full(6, d, np.float32), height[1] * ripple))
    foot, _ = view.camera.project(view.shape.world(along, np.full(6, d, np.float32), height[0]))
    outline = np.concatenate([top, foot[::-1]])
    middle = 0.5 * (s[0] + s[1])
    lamp = view.light_on(middle, d) - view.look.ambient
    colour = view.look.through_air(base * (light + 0.7 * lamp), middle)
    strokes: list[tuple[Float, Float, float]] = []
    spacing = {"rail": 2.0, "fence": 1.2, "noise": 4.0, "concrete": 4.0}.get(kind, 0.0)
    if spacing and middle < 70:
        for post in np.arange(np.ceil(s[0] / spacing) * spacing, s[1], spacing):
            reach = (0.0, height[1] * 0.97) if kind == "rail" else height
            ends = upright(view, (float(post), float(post)), (d, d), reach)
            wide = (0.12 if kind == "rail" else 0.05) * view.camera.focal / float(post)
            strokes.append((ends[[0, 3]], colour * (0.7 if kind != "rail" else 0.62), wide))
    dark = foot[:1] * 0 + foot
    speckle = random.numpy.normal(1, 0.06, 12)

    def draw(canvas: Canvas) -> None:
        if kind == "rail":
            for points, tone, wide in strokes:
                canvas.stroke(points, tone, wide)
        canvas.polygon(outline, colour)
        # a lighter upper edge and a dirty foot keep long walls from looking like paper
        for i in range(5):
            quad = np.stack([top[i], top[i + 1], foot[i + 1], foot[i]])
            tall = quad[3] - quad[0]
            band = np.stack([quad[0] + tall * 0.62, quad[1] + (quad[2] - quad[1]) * 0.62, quad[2], quad[3]])
            canvas.polygon(quad, colour * speckle[i])
            canvas.polygon(band, colour * 0.82 * speckle[i + 6])
        if kind == "rail":
            canvas.stroke(top, colour * 1.15, 0.04 * view.camera.focal / max(middle, 1))
            canvas.stroke((top + foot) / 2, colour * 0.72, 0.05 * view.camera.focal / max(middle, 1))
        else:
            for points, tone, wide in strokes:
                canvas.stroke(points, tone, max(wide, 1.0))
            canvas.stroke(top, np.minimum(colour * 1.18, 250), 0.06 * view.camera.focal / max(middle, 1))
            canvas.stroke(dark, colour * 0.5, 0.05 * view.camera.focal / max(middle, 1))

    return Item(s, (d - 0.1, d + 0.1), box_of(np.concatenate([outline, foot])), draw)


def draw_kerbs(random: Random, canvas: Canvas, view: View, plan: Plan) -> None:
    """Faces of kerb stones."""
    junction = plan.junction
    base = np.array([132, 137, 140], np.float32) * random.uniform(0.7, 1.15)
    high = random.uniform(0.09, 0.17)
    for d, side in plan.kerbs:
        open_side = junction is not None and (junction.right if side > 0 else junction.left)
        light = _front_light(view, side, end=False) * 0.9
        for start, end in pieces(START, min(view.shape.far, 120.0), junction, open_side=open_side):
            s = sampled(start, end)
            for a, b in itertools.pairwise(s):
                quad = upright(view, (float(a), float(b)), (d, d), (0.0, high))
                lamp = view.light_on(float(a), d) - view.look.ambient
                tone = base * random.uniform(0.9, 1.1) * (light + 0.6 * lamp)
                canvas.polygon(quad, view.look.through_air(tone, float(a)), KERB)


Box = Callable[[Canvas], None]


def block(
    random: Random,
    view: View,
    s: float,
    d: float,
    size: tuple[float, float, float],
    albedo: Float,
    *,
    lift: float = 0.0,
) -> Item:
    """A box: length along the road, width, height; `lift` metres above the road."""
    length, width, height = size
    near, far, left, right = s - length / 2, s + length / 2, d - width / 2, d + width / 2
    up = (lift, lift + height)
    end = upright(view, (near, near), (left, right), up)
    side = -1 if d > 0 else 1
    edge = left if d > 0 else right
    flank = upright(view, (near, far), (edge, edge), up)
    lamp = view.light_on(s, d) - view.look.ambient
    colours = [
        view.look.through_air(albedo * (_front_light(view, -side, end=is_end) + 0.8 * lamp), s)
        for is_end in (True, False)
    ]
    shade = random.uniform(0.75, 0.95)
    top_world = view.shape.world(
        np.array([near, far, far, near], np.float32), np.array([left, left, right, right], np.float32), lift + height
    )
    top = view.camera.project(top_world)[0] if lift + height < view.camera.height else None
    box = box_of(np.concatenate([end, flank] + ([top] if top is not None else [])))

    def draw(canvas: Canvas) -> None:
        for corners, colour in ((flank, colours[1]), (end, colours[0])):
            lower = np.stack([(corners[0] + corners[3]) / 2, (corners[1] + corners[2]) / 2, corners[2], corners[3]])
            canvas.polygon(corners, colour)
            canvas.polygon(lower, colour * shade)
        if top is not None:
            canvas.polygon(top, view.look.through_air(albedo * view.look.ground, s))

    return Item((near, far), (left, right), box, draw)
