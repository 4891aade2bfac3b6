"""Vehicles: shapes, textures and their drawing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tools.synth.bank import bank
from tools.synth.camera import RoadShape, sample_camera
from tools.synth.canvas import FIRST_OBJECT, Canvas
from tools.synth.look import sample_look
from tools.synth.randoms import Random
from tools.synth.vehicles.atlas import Material
from tools.synth.vehicles.paint import sample_paint
from tools.synth.vehicles.shading import Pose, draw_vehicle, hull
from tools.synth.vehicles.vehicle import LEVELS, Vehicle
from tools.synth.view import View

ALL = [(kind, number) for kind, count in (("car", 50), ("truck", 12), ("bus", 6)) for number in range(count)]


@pytest.fixture(scope="module")
def view() -> View:
    camera = sample_camera(Random(2), 360, 640, high=False)
    look = next(found for key in range(99) if (found := sample_look(Random(key))).time == "daytime")
    shape = RoadShape(0, 0, 0, 100, 400)
    return View(camera, shape, look, 0.0, np.zeros(3, np.float32), np.zeros((0, 2), np.float32), (1, 2, 3), False)


def drawn(view: View, vehicle: Vehicle, kind: str, s: float, d: float, yaw: float) -> tuple[Canvas, Pose]:
    canvas = Canvas(np.full((360, 640, 3), 90, np.uint8), np.zeros((360, 640), np.uint16))
    pose = Pose(s, d, view.place(s, d), yaw)
    paint = sample_paint(Random(1), kind, parked=False)
    draw_vehicle(canvas, view, vehicle, pose, paint, FIRST_OBJECT, bank().blotch)
    return canvas, pose


@pytest.mark.parametrize(("kind", "number"), ALL)
def test_parts_belong_together(kind: str, number: int) -> None:
    vehicle = bank().vehicles[kind][number]
    assert vehicle.kind == kind
    sizes = {"car": ((3.7, 6.2), (1.6, 2.15), (1.3, 2.6)), "truck": ((6, 18), (2.2, 2.7), (1.9, 4.2))}
    for value, (low, high) in zip(
        (vehicle.length, vehicle.width, vehicle.height),
        sizes.get(kind, ((7.5, 13.5), (2.4, 2.6), (2.8, 3.6))),
        strict=True,
    ):
        assert low < value < high
    for mesh in (vehicle.under, vehicle.faces, *(body[0] for body in vehicle.bodies)):
        points = mesh.corners.reshape(-1, 3)
        assert np.isfinite(points).all()
        assert np.abs(points[:, 0]).max() <= vehicle.length / 2 + 0.2
        assert np.abs(points[:, 1]).max() <= vehicle.width / 2 + 0.35  # mirrors
        assert points[:, 2].min() >= -0.01
        assert points[:, 2].max() <= vehicle.height + 0.01
        # 1, or 0 where a side's columns have no length, at the bumpers
        size = np.linalg.norm(mesh.normals, axis=-1)
        assert size.max() < 1.001
        assert np.mean(size > 0.999) > 0.75
    assert all(len(body) == len(LEVELS) for body in vehicle.bodies)
    used = {Material(int(value)) for value in np.unique(vehicle.atlas)}
    assert {Material.GLASS, Material.TAIL, Material.HEAD, Material.PLATE, Material.TYRE, Material.BLACK} <= used


@pytest.mark.parametrize("yaw", [0.0, 0.7, math.pi / 2, 2.5, math.pi, -1.2])
@pytest.mark.parametrize(("kind", "number"), ALL[::9])
def test_a_vehicle_fills_its_outline(view: View, kind: str, number: int, yaw: float) -> None:
    vehicle = bank().vehicles[kind][number]
    canvas, pose = drawn(view, vehicle, kind, 20.0, -2.0, yaw)
    outline = hull(view, vehicle, pose)
    assert outline is not None
    ys, xs = np.nonzero(canvas.ids == FIRST_OBJECT)
    assert canvas.drawn[FIRST_OBJECT] == len(ys)
    # inside the outline of its bounding box, mirrors aside, and nearly as large
    low, high = outline.min(axis=0), outline.max(axis=0)
    assert xs.min() >= low[0] - 8
    assert xs.max() <= high[0] + 8
    assert ys.min() >= low[1] - 2
    assert ys.max() <= high[1] + 2
    assert ys.max() - ys.min() > 0.8 * (high[1] - low[1])
    assert xs.max() - xs.min() > 0.7 * (high[0] - low[0])
    assert len(ys) > 0.5 * (high[0] - low[0]) * (high[1] - low[1]) * 0.8
    colours = canvas.frame[ys, xs]
    assert colours.std() > 8, "a vehicle is not one flat colour"


def test_nothing_is_drawn_behind_the_camera(view: View) -> None:
    vehicle = bank().vehicles["car"][0]
    canvas, pose = drawn(view, vehicle, "car", -12.0, 0.0, 0.0)
    assert hull(view, vehicle, pose) is None
    assert not canvas.ids.any()


def test_levels_of_detail_have_the_same_outline(view: View) -> None:
    """A car must not change its size where the level changes."""
    vehicle = bank().vehicles["car"][3]
    tall = {}
    for s in (16.0, 40.0, 90.0):
        canvas, _ = drawn(view, vehicle, "car", s, 0.0, 0.0)
        ys, _ = np.nonzero(canvas.ids == FIRST_OBJECT)
        tall[s] = (np.ptp(ys) + 1) * s
    sizes = np.array(list(tall.values()))
    assert np.ptp(sizes) < 0.2 * sizes.mean()


def test_paint_colours_spread() -> None:
    bodies = np.array([sample_paint(Random(key), "car", parked=False).body for key in range(200)])
    assert bodies.min() < 30
    assert bodies.max() > 200
    parked = [sample_paint(Random(key), "car", parked=True).lamps for key in range(200)]
    assert 0 < sum(parked) < 40
