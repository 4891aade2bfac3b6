"""What stands about: lamps, signs, bridges, people, and things that might be taken for cars and are none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.synth.bank import Bank
from tools.synth.order import Item
from tools.synth.plan import Plan
from tools.synth.posts import grey, lamp_item, pole_items, post
from tools.synth.randoms import Random
from tools.synth.roadside import block, sprite_item
from tools.synth.signs import NewObject, gantry_items, light_items, sign_items
from tools.synth.view import View

__all__ = ["furniture_items"]

Float = NDArray[np.floating[Any]]


def furniture_items(random: Random, view: View, plan: Plan, shared: Bank, new_object: NewObject) -> list[Item]:
    """Everything of this module; signs, lights and people become labelled objects."""
    items: list[Item] = []
    colour, height = grey(random), random.uniform(7, 10)
    for s, d in view.posts:
        if float(s) < 2:
            continue
        reach = -1.8 if d > 0 else 1.8
        arm = np.stack(
            [view.project(float(s), float(d) + share * reach, height + 0.25 * share)[0] for share in (0, 0.5, 1)]
        )
        items.append(post(view, float(s), float(d), height, 0.16, colour, [(arm, 0.11)]))
        if view.look.lamps:
            foot = float(view.project(float(s), float(d) + reach)[0][1])
            items.append(lamp_item(view, float(s), arm[-1], foot))
    own = random.child("rest")
    items += pole_items(own, view, plan)
    items += sign_items(own, view, plan, new_object)
    if plan.junction is not None and own.chance(0.65):
        items += light_items(own, view, plan, new_object)
    if plan.kind == "highway":
        items += gantry_items(own, view, plan, new_object)
    if plan.kind in ("highway", "city") and own.chance(0.14):
        items += _bridge(own, view, plan)
    items += _clutter(own, view, plan)
    items += _people(own, view, plan, shared, new_object)
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
            items.append(post(view, s, edge + side * 5, 6, 0.3, grey(random), []))
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
