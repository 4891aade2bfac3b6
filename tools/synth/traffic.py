"""Where vehicles and people are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.bank import Bank
from tools.synth.canvas import SHIFT, Canvas, pixels
from tools.synth.order import Item
from tools.synth.plan import Plan
from tools.synth.randoms import Random
from tools.synth.vehicles.paint import Paint, sample_paint
from tools.synth.vehicles.shading import Pose, draw_vehicle, hull
from tools.synth.vehicles.vehicle import Vehicle
from tools.synth.view import View

__all__ = ["LEAST_SEEN", "SMALLEST_PX", "Placed", "place_vehicles", "shadow_outlines", "vehicle_item"]

Float = NDArray[np.floating[Any]]
# A vehicle is neither drawn nor labelled when less of it shows, or when it is smaller, in pixels of a 720-row picture.
LEAST_SEEN, SMALLEST_PX = 0.2, 9.0
_MOST = 25


@dataclass(frozen=True)
class Placed:
    """A vehicle in the scene."""

    vehicle: Vehicle
    pose: Pose
    paint: Paint
    outline: Float
    parked: bool

    @property
    def extent(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Its reach in s and in d."""
        turn = self.pose.yaw
        along = abs(math.cos(turn)) * self.vehicle.length / 2 + abs(math.sin(turn)) * self.vehicle.width / 2
        across = abs(math.sin(turn)) * self.vehicle.length / 2 + abs(math.cos(turn)) * self.vehicle.width / 2
        p = self.pose
        return (p.s - along, p.s + along), (p.d - across, p.d + across)


def place_vehicles(random: Random, view: View, plan: Plan, shared: Bank) -> list[Placed]:
    """Vehicles in lanes, parked and crossing, far to near; at most 25, none that would hardly show."""
    found: list[Placed] = []
    crowd = random.weighted({"none": 0.05, "few": 0.24, "some": 0.4, "dense": 0.31})
    gap = {"none": 1e9, "few": 70.0, "some": 30.0, "dense": 13.0}[crowd]
    heavy = random.uniform(0.02, 0.3) if plan.kind == "highway" else random.uniform(0.0, 0.16)
    limit = min(view.shape.far * 0.95, 150.0)
    for lane in plan.lanes:
        ours = abs(lane.centre) < lane.width / 2
        at = random.uniform(5.5, 14) if ours else random.uniform(-3, 14)
        at += random.numpy.exponential(0.6 * gap)
        while at < limit:
            kind = random.weighted({"car": 1 - heavy, "truck": 0.75 * heavy, "bus": 0.25 * heavy + 1e-9})
            vehicle = random.pick(shared.vehicles[kind])
            d = lane.centre + random.normal(0, 0.22, -0.5, 0.5)
            s = at + vehicle.length / 2
            turn = random.normal(0, 0.025, -0.12, 0.12) + (0.0 if lane.direction > 0 else math.pi)
            _add(random, found, view, vehicle, kind, s, d, view.shape.yaw(s) + turn, parked=False)
            at += vehicle.length + 2.5 + random.numpy.exponential(gap * random.uniform(0.5, 1.2))
    for centre, direction in plan.parking:
        at = random.uniform(-4, 9)
        full = random.uniform(0.3, 0.97)
        while at < min(limit, 95.0):
            vehicle = random.pick(shared.vehicles["car" if random.chance(0.96) else "truck"])
            s = at + vehicle.length / 2
            turn = random.normal(0, 0.03, -0.15, 0.15) + (0.0 if direction > 0 or random.chance(0.05) else math.pi)
            inside = plan.junction is not None and plan.junction.start - 5 < s < plan.junction.end + 5
            if random.chance(full) and not inside:
                d = centre + random.normal(0, 0.1, -0.25, 0.25)
                _add(random, found, view, vehicle, vehicle.kind, s, d, view.shape.yaw(s) + turn, parked=True)
            at += vehicle.length + random.uniform(0.5, 1.6)
    if plan.junction is not None and random.chance(0.6):
        for _ in range(random.integer(1, 3)):
            side = 1 if plan.junction.right and (random.chance(0.5) or not plan.junction.left) else -1
            edge = plan.paved_right if side > 0 else plan.paved_left
            vehicle = random.pick(shared.vehicles["car"])
            d = edge + side * random.uniform(2.5, 24) if random.chance(0.7) else random.uniform(-6, 8)
            s = random.uniform(plan.junction.start + 1.5, plan.junction.end - 1.5)
            yaw = view.shape.yaw(s) + random.sign() * math.pi / 2 + random.normal(0, 0.1, -0.4, 0.4)
            if s - 2.5 > 7 or abs(d) > 4:
                _add(random, found, view, vehicle, "car", s, d, yaw, parked=False)
    return _visible(found, view)


def _add(
    random: Random,
    found: list[Placed],
    view: View,
    vehicle: Vehicle,
    kind: str,
    s: float,
    d: float,
    yaw: float,
    *,
    parked: bool,
) -> None:
    paint = sample_paint(random, kind, parked=parked)  # drawn even if it does not fit: later numbers stay the same
    pose = Pose(s, d, view.place(s, d), yaw)
    outline = hull(view, vehicle, pose)
    if outline is None or s > view.shape.far * 0.95:
        return
    low, high = outline.min(axis=0), outline.max(axis=0)
    wide, tall = view.camera.columns, view.camera.rows
    if high[0] < 4 or low[0] > wide - 5 or high[1] < 4 or low[1] > tall - 5:
        return
    if high[1] - low[1] < SMALLEST_PX * view.camera.scale:
        return
    new = Placed(vehicle, pose, paint, outline, parked)
    (s0, s1), (d0, d1) = new.extent
    if s0 < 3.5 and d0 < 1.3 and d1 > -1.3:  # on our own bonnet
        return
    for other in found:
        (a0, a1), (b0, b1) = other.extent
        if s0 < a1 + 0.3 and a0 < s1 + 0.3 and d0 < b1 + 0.1 and b0 < d1 + 0.1:
            return
    found.append(new)


def _visible(found: list[Placed], view: View) -> list[Placed]:
    """Without those that nearer ones hide, judged by outlines at a quarter of the size; farthest first."""
    found = sorted(found, key=lambda one: one.extent[0][0])
    small = np.zeros((view.camera.rows // 4, view.camera.columns // 4), np.uint8)
    kept: list[Placed] = []
    for one in found:  # near to far: what is taken already hides what comes
        mask = np.zeros_like(small)
        area = cv2.contourArea(one.outline) / 16
        cv2.fillConvexPoly(mask, pixels(one.outline / 4), 1, cv2.LINE_8, SHIFT)
        free = int(cv2.countNonZero(cv2.bitwise_and(mask, 1 - small)))
        drawn = int(cv2.countNonZero(mask))
        if drawn == 0 or free < 0.34 * drawn or drawn < 0.04 * area:
            continue
        small |= mask
        kept.append(one)
        if len(kept) == _MOST:
            break
    return kept[::-1]


def vehicle_item(placed: Placed, view: View, owner: int, texture: NDArray[np.uint8]) -> Item:
    """What the painter draws."""
    low, high = placed.outline.min(axis=0), placed.outline.max(axis=0)
    s, d = placed.extent

    def draw(canvas: Canvas) -> None:
        draw_vehicle(canvas, view, placed.vehicle, placed.pose, placed.paint, owner, texture)

    return Item(s, d, (float(low[0]) - 2, float(low[1]) - 2, float(high[0]) + 2, float(high[1]) + 2), draw)


def shadow_outlines(placed: Placed, view: View) -> tuple[Float, Float | None]:
    """Picture outlines of the dark ground right below it, and of the shadow that the sun casts."""
    x, y = placed.vehicle.length / 2, placed.vehicle.width / 2
    foot = np.array([(-x, -y, 0), (-x, y, 0), (x, y, 0), (x, -y, 0)], np.float32) * np.array(
        [0.98, 1.03, 1], np.float32
    )
    axes, place = placed.pose.axes, placed.pose.world
    world = foot @ axes + place
    world[:, 2] = np.maximum(world[:, 2], 1.0)
    below, _ = view.camera.project(world)
    toward = view.look.direction
    if not view.look.sun.any() or view.shade:
        return below, None
    reach = -toward[[0, 2]] / max(float(toward[1]), 0.15) * placed.vehicle.height * 0.85
    far = world + np.array([reach[0], 0, reach[1]], np.float32)
    far[:, 2] = np.maximum(far[:, 2], 1.0)
    both = np.concatenate([world, far]).astype(np.float32)
    cast = cv2.convexHull(np.ascontiguousarray(both[:, [0, 2]]))[:, 0]
    points = np.stack([cast[:, 0], np.full(len(cast), place[1]), cast[:, 1]], -1).astype(np.float32)
    return below, view.camera.project(points)[0]
