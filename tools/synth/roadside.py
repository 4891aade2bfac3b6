"""Buildings, trees and boxes along the road."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.bank import Bank
from tools.synth.canvas import STATIC, Canvas
from tools.synth.facades import Facade
from tools.synth.geometry import box_of, front_light, upright
from tools.synth.order import Item
from tools.synth.plan import Plan
from tools.synth.plants import Sprite
from tools.synth.randoms import Random
from tools.synth.surfaces import lighting, paste_sprite, textured_quad
from tools.synth.view import View
from tools.synth.walls import wall_items

__all__ = ["block", "roadside_items", "sprite_item"]

Float = NDArray[np.floating[Any]]
_NEAREST = 1.6  # metres: walls nearer than this are out of the picture


def roadside_items(random: Random, view: View, plan: Plan, shared: Bank) -> list[Item]:
    """Buildings, trees and walls."""
    items: list[Item] = []
    for side in (-1, 1):
        edge = plan.paved_right if side > 0 else plan.paved_left
        own = random.child(f"side {side}")
        if plan.kind in ("city", "residential") and own.chance(0.93):
            items += _buildings(own, view, plan, shared, side, edge)
        elif own.chance(0.3):
            items += _buildings(own, view, plan, shared, side, edge + side * own.uniform(8, 25))
        items += _trees(own, view, plan, shared, side, edge)
    return items + wall_items(random.child("walls"), view, plan, shared.walls)


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
            table = lighting(view, tone * front_light(view, side, end=end), s[0] if end else distance)
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
            canvas.polygon(triangle, view.look.through_air(150 * tone * front_light(view, side, end=True), s[0]))

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
    detail: NDArray[np.uint8] | None = None,
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
        paste_sprite(canvas, sprite, table, (x, y), tall, owner, flip=flip, detail=detail)

    return Item((s - 0.3, s + 0.3), (d - thin, d + thin), (x - wide / 2, y - tall, x + wide / 2, y), draw)


def _trees(random: Random, view: View, plan: Plan, shared: Bank, side: int, edge: float) -> list[Item]:
    items: list[Item] = []
    town = plan.kind in ("city", "residential")
    density = random.weighted({0.0: 0.12, 0.04: 0.3, 0.1: 0.36, 0.22: 0.22})
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
        height = tree.height * random.uniform(0.7, 1.25)
        leaves = shared.grain if tree.kind != "bare" else None
        item = sprite_item(view, tree, at, d, height, light, flip=random.chance(0.5), detail=leaves)
        if item is not None and not (plan.junction and plan.junction.start - 1 < at < plan.junction.end + 1):
            items.append(item)
        at += 1.5 + random.numpy.exponential(1 / density) * (0.6 + at / 80)
        if len(items) > 34:
            break
    return items


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
        view.look.through_air(albedo * (front_light(view, -side, end=is_end) + 0.8 * lamp), s)
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
