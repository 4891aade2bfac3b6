"""One scene: picture, masks and objects from one seed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.bank import bank
from tools.synth.camera import sample_camera, sample_shape
from tools.synth.canvas import FIRST_OBJECT, GROUND, KERB, Canvas
from tools.synth.effects import add_glows, draw_bonnet, finish
from tools.synth.furniture import furniture_items
from tools.synth.ground import draw_ground
from tools.synth.look import Look, sample_look
from tools.synth.markings import lane_labels
from tools.synth.order import Item, painted_order
from tools.synth.plan import Plan, sample_plan
from tools.synth.posts import lamp_posts
from tools.synth.randoms import Random, scene_random
from tools.synth.roadside import roadside_items
from tools.synth.sky import draw_horizon, draw_sky
from tools.synth.traffic import LEAST_SEEN, Placed, place_vehicles, shadow_outlines, vehicle_item
from tools.synth.view import View
from tools.synth.walls import draw_kerbs

__all__ = ["LANE_WIDTH", "SIZE", "Scene", "SceneObject", "render_scene"]

SIZE = (720, 1280)
LANE_WIDTH = 8.0  # pixels at 720 rows: what BDD's training masks have, see `lane_labels`
_SMALLEST_LABEL = 8  # pixels of a 720-row picture, both sides


@dataclass(frozen=True)
class SceneObject:
    """A labelled object.

    Attributes:
        category: BDD's name. id: its number in the picture's id buffer.
        box: x1, y1, x2, y2 of its visible pixels, x2 and y2 one past the last, as widths are computed.
        occluded, truncated: partly hidden; cut by the picture's edge.
        light: colour of a traffic light, "none" for everything else.
    """

    category: str
    id: int
    box: tuple[float, float, float, float]
    occluded: bool
    truncated: bool
    light: str


@dataclass(frozen=True)
class Scene:
    """A picture and its labels.

    Attributes:
        frame: uint8 (h, w, 3) BGR. road, lane: uint8 (h, w), 0 or 255.
        ids: uint16 (h, w): who owns each pixel, see `tools.synth.canvas`; objects by their id.
        attributes: weather, scene, timeofday.
        drawn: every vehicle's number and how many pixels it had before nearer things covered some.
        jpeg_quality: 60..95.
    """

    name: str
    frame: NDArray[np.uint8]
    road: NDArray[np.uint8]
    lane: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]
    attributes: dict[str, str]
    ids: NDArray[np.uint16]
    drawn: dict[int, int]
    jpeg_quality: int


def render_scene(
    seed: int, split: str, index: int, *, size: tuple[int, int] = SIZE, lane_width: float = LANE_WIDTH
) -> Scene:
    """Render one scene; the same arguments give the same pixels on any number of workers.

    Args:
        size: rows, columns. lane_width: of lane labels, pixels of a 720-row picture.
    """
    random = scene_random(seed, split, index)
    look = sample_look(random.child("look"))
    plan = sample_plan(random.child("plan"), snow=look.snow)
    view = _view(random.child("view"), look, plan, size)
    shared = bank()
    canvas = Canvas(np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint16))
    categories: dict[int, tuple[str, str]] = {}

    def new_object(category: str, light: str = "none") -> int:
        number = FIRST_OBJECT + len(categories)
        categories[number] = (category, light)
        return number

    vehicles = place_vehicles(random.child("traffic"), view, plan, shared)
    owners = [new_object(one.vehicle.kind) for one in vehicles]
    items: list[Item] = [
        vehicle_item(one, view, owner, shared.blotch) for one, owner in zip(vehicles, owners, strict=True)
    ]
    items += roadside_items(random.child("roadside"), view, plan, shared)
    items += furniture_items(random.child("furniture"), view, plan, shared, new_object)

    draw_sky(random.child("sky"), canvas, view, shared)
    draw_horizon(random.child("horizon"), canvas, view, plan.kind)
    shadows = [shadow_outlines(one, view) for one in vehicles]
    cast = [outline for _, outline in shadows if outline is not None]
    _, road = draw_ground(random.child("ground"), canvas, view, plan, shared, [below for below, _ in shadows], cast)
    draw_kerbs(random.child("kerbs"), canvas, view, plan)
    for item in painted_order(items):
        item.draw(canvas)
    draw_bonnet(random.child("bonnet"), canvas, view)
    lane = lane_labels(view, plan, size[0], size[1], lane_width)
    road[canvas.ids != GROUND] = 0
    lane[(canvas.ids != GROUND) & (canvas.ids != KERB)] = 0
    add_glows(canvas, view)
    frame = finish(random.child("finish"), canvas.frame, view, shared)
    objects = _objects(canvas, categories, dict(zip(owners, vehicles, strict=True)), size)
    attributes = {"weather": look.weather, "scene": plan.scene, "timeofday": look.time}
    drawn = {owner: canvas.drawn.get(owner, 0) for owner in owners}
    quality = random.child("file").integer(62, 94)
    return Scene(f"{split}-{index:06d}", frame, road, lane, objects, attributes, canvas.ids, drawn, quality)


def _view(random: Random, look: Look, plan: Plan, size: tuple[int, int]) -> View:
    camera = sample_camera(random, size[0], size[1], high=random.chance(0.1))
    sharpest = {"highway": 350.0, "city": 160.0, "residential": 110.0, "rural": 120.0}[plan.kind]
    shape = sample_shape(random, camera, sharpest=sharpest)
    posts = lamp_posts(random, plan)
    street = np.zeros(3, np.float32)
    if look.lamps and len(posts):
        warm = random.uniform(0, 1)
        tint = (1 - warm) * np.array([1.0, 1.0, 0.95]) + warm * np.array([0.32, 0.68, 1.1])
        power = random.uniform(0.2, 0.8) if look.night else random.uniform(0.0, 0.1)
        street = (tint * power).astype(np.float32)
    beam = 0.0
    if look.lamps:
        beam = random.uniform(0.5, 1.3) if look.night else random.uniform(0.0, 0.12)
    phase = (random.uniform(0, 6.3), random.uniform(0, 6.3), random.uniform(0, 6.3))
    return View(camera, shape, look, beam, street, posts, phase, plan.kind == "city" and random.chance(0.3))


def _objects(
    canvas: Canvas, categories: dict[int, tuple[str, str]], vehicles: dict[int, Placed], size: tuple[int, int]
) -> tuple[SceneObject, ...]:
    """Boxes of what is seen, from the id buffer."""
    count = FIRST_OBJECT + len(categories)
    flat = canvas.ids.astype(np.int32)
    area = np.bincount(flat.ravel(), minlength=count)
    least = _SMALLEST_LABEL * size[0] / 720
    found = []
    for number, (category, light) in categories.items():
        if area[number] == 0:
            continue
        x, y, w, h = cv2.boundingRect((canvas.ids == number).astype(np.uint8))
        if number in vehicles:
            share = area[number] / max(canvas.drawn.get(number, 1), 1)
            outline = vehicles[number].outline
            truncated = bool(
                (outline.min(axis=0) < -2).any()
                or outline[:, 0].max() > size[1] + 1
                or outline[:, 1].max() > size[0] + 1
            )
            if share < LEAST_SEEN or h < least or w < 0.6 * least:
                continue
        else:
            share, truncated = 1.0, x == 0 or y == 0 or x + w == size[1] or y + h == size[0]
            if min(w, h) < 0.6 * least or area[number] < 0.3 * w * h:
                continue
        box = (float(x), float(y), float(x + w), float(y + h))
        found.append(SceneObject(category, number, box, bool(share < 0.92), truncated, light))
    return tuple(found)
