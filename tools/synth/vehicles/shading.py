"""Draw a vehicle: faces into a buffer of face numbers, then every pixel is lit by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.canvas import Canvas, Glow
from tools.synth.vehicles.atlas import Material
from tools.synth.vehicles.mesh import Mesh
from tools.synth.vehicles.paint import MIRRORS, Paint, albedos, glowing_table
from tools.synth.vehicles.vehicle import Vehicle
from tools.synth.view import View

__all__ = ["Pose", "draw_vehicle", "hull"]

Float = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Pose:
    """Where a vehicle stands: road coordinates of its centre, world position, direction (radians right of z)."""

    s: float
    d: float
    world: Float
    yaw: float

    @property
    def axes(self) -> Float:
        """(3, 3): rows are the vehicle's forward, left and up in world axes."""
        sin, cos = math.sin(self.yaw), math.cos(self.yaw)
        return np.array([[sin, 0, cos], [-cos, 0, sin], [0, 1, 0]], np.float32)


def hull(view: View, vehicle: Vehicle, pose: Pose) -> Float | None:
    """Picture outline of its bounding box, (n, 2); None when it is behind us or around us."""
    x, y = vehicle.length / 2, vehicle.width / 2
    corners = np.array([(a, b, c) for a in (-x, x) for b in (-y, y) for c in (0.05, vehicle.height)], np.float32)
    pixels, depth = view.camera.project(corners @ pose.axes + pose.world)
    if depth.max() < 1.0:
        return None
    return np.asarray(cv2.convexHull(pixels[depth > 0.3])[:, 0], np.float32)


def draw_vehicle(
    canvas: Canvas, view: View, vehicle: Vehicle, pose: Pose, paint: Paint, owner: int, texture: NDArray[np.uint8]
) -> None:
    """Draw it over everything drawn so far.

    Args:
        texture: uint8 noise that wraps around, for dirt.
        owner: its number in the id buffer; `canvas.drawn[owner]` becomes the number of its pixels.
    """
    camera = view.camera
    _, depth = camera.project(pose.world)
    size = vehicle.height * camera.focal / max(float(depth), 1.0) / camera.scale
    level = 0 if size > 150 else (1 if size > 45 else 2)
    eye = np.array([0, camera.height, 0], np.float32)
    near = (eye - pose.world) @ pose.axes.T  # the camera in vehicle axes
    bodies = sorted(
        (body[level] for body in vehicle.bodies), key=lambda mesh: -abs(float(mesh.corners[..., 0].mean()) - near[0])
    )
    parts = [
        _Faces.of(mesh, near, pose, view) for mesh in [_belly(vehicle, near), vehicle.under, *bodies, vehicle.faces]
    ]
    points = np.concatenate([part.pixels for part in parts])
    if not len(points):
        return
    low, high = points.reshape(-1, 2).min(axis=0), points.reshape(-1, 2).max(axis=0)
    window = canvas.window(low[0], low[1], high[0], high[1])
    if window is None:
        return
    rows, columns = window
    buffer = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.int32)
    corners = np.round((points - np.array([columns.start, rows.start], np.float32)) * 16).astype(np.int32)
    fill = cv2.fillConvexPoly
    for number, polygon in enumerate(corners, 1):
        fill(buffer, polygon, number, cv2.LINE_8, 4)
    inside = buffer > 0
    if not inside.any():
        return
    ys, xs = np.nonzero(inside)
    face = buffer[ys, xs] - 1
    values = _interpolate(
        parts, points, face, (xs + columns.start).astype(np.float32), (ys + rows.start).astype(np.float32)
    )
    colour = _shade(view, vehicle, paint, pose, values, texture)
    canvas.frame[window][ys, xs] = np.clip(colour + 0.5, 0, 255).astype(np.uint8)
    if level < 2:  # soften the stairs that faces and texels leave inside; the outline is left to the lens
        soft = cv2.GaussianBlur(canvas.frame[window], (3, 3), 0.9 if level == 0 else 0.6)
        canvas.frame[window][ys, xs] = soft[ys, xs]
    canvas.ids[window][ys, xs] = owner
    canvas.drawn[owner] = len(ys)
    _lamps(canvas, view, vehicle, pose, paint, owner)


def _belly(vehicle: Vehicle, near: Float) -> Mesh:
    """A dark slab below the bodies, as four walls: nobody sees through under a vehicle at eye level."""
    x, y = vehicle.length / 2 - 0.45, vehicle.width / 2 - 0.2
    low, high = 0.17 if vehicle.floor < 0.4 else 0.5, vehicle.floor + 0.12
    quads = []
    for (xa, ya), (xb, yb) in (((-x, -y), (-x, y)), ((-x, y), (x, y)), ((x, y), (x, -y)), ((x, -y), (-x, -y))):
        quads.append([(xa, ya, low), (xb, yb, low), (xb, yb, high), (xa, ya, high)])
    corners = np.array(quads, np.float32)
    normals = corners * np.array([1, 1, 0], np.float32)
    normals = np.broadcast_to(normals.mean(axis=1, keepdims=True), normals.shape)
    normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
    return Mesh(corners, normals.astype(np.float32), np.full((4, 4, 2), -1, np.float32))  # -1: no texel


@dataclass(frozen=True)
class _Faces:
    """Faces that look at us, far to near: pixels (n, 4, 2), attributes (n, 4, 8): texture, normal, position."""

    pixels: Float
    attributes: Float

    @classmethod
    def of(cls, mesh: Mesh, near: Float, pose: Pose, view: View) -> _Faces:
        centre = mesh.corners.mean(axis=1)
        facing = np.sum(mesh.normals.mean(axis=1) * (near - centre), axis=1) > 0
        corners = mesh.corners[facing]
        world = corners @ pose.axes + pose.world
        pixels, depth = view.camera.project(world)
        ahead = depth.min(axis=1) > 0.35
        order = np.argsort(-depth[ahead].mean(axis=1), kind="stable")
        normals = mesh.normals[facing][ahead][order] @ pose.axes
        attributes = np.concatenate([mesh.texture[facing][ahead][order], normals, world[ahead][order]], axis=-1)
        return cls(pixels[ahead][order], attributes.astype(np.float32))


def _interpolate(parts: list[_Faces], points: Float, face: NDArray[np.int32], x: Float, y: Float) -> Float:
    """(n, 8) attributes of pixels: the affine map of each face that fits its corners best."""
    a = np.concatenate([part.attributes for part in parts])
    e1 = ((points[:, 1] - points[:, 0]) + (points[:, 2] - points[:, 3])) / 2
    e2 = ((points[:, 3] - points[:, 0]) + (points[:, 2] - points[:, 1])) / 2
    g1 = ((a[:, 1] - a[:, 0]) + (a[:, 2] - a[:, 3])) / 2
    g2 = ((a[:, 3] - a[:, 0]) + (a[:, 2] - a[:, 1])) / 2
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    flat = np.abs(area) < 0.25  # quarter of a pixel: no gradient to speak of
    area = np.where(flat, 1.0, area)
    keep = (~flat).astype(np.float32)[:, None] / area[:, None]
    along_x = (g1 * e2[:, 1:2] - g2 * e1[:, 1:2]) * keep
    along_y = (g2 * e1[:, 0:1] - g1 * e2[:, 0:1]) * keep
    middle = points.mean(axis=1)
    constant = a.mean(axis=1) - along_x * middle[:, 0:1] - along_y * middle[:, 1:2]
    values = constant[face] + along_x[face] * x[:, None] + along_y[face] * y[:, None]
    # a face seen from the side has steep maps: stay within its part of the atlas
    atlas = a[..., :2]
    values[:, :2] = np.clip(values[:, :2], atlas.min(axis=1)[face], atlas.max(axis=1)[face])
    return values


def _dot(a: Float, b: Float) -> Float:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _shade(view: View, vehicle: Vehicle, paint: Paint, pose: Pose, values: Float, texture: NDArray[np.uint8]) -> Float:
    look = view.look
    column, row = values[:, 0].astype(np.int32), values[:, 1].astype(np.int32)
    h, w = vehicle.atlas.shape
    material = vehicle.atlas[np.clip(row, 0, h - 1), np.clip(column, 0, w - 1)]
    material[column < 0] = Material.GAP
    normal = values[:, 2:5]
    normal = normal / np.sqrt(np.maximum(_dot(normal, normal), 1e-9))[:, None]
    position = values[:, 5:8]
    toward = np.array([0, view.camera.height, 0], np.float32) - position
    toward /= np.sqrt(_dot(toward, toward))[:, None]
    signed = _dot(normal, toward)
    cosine = np.abs(signed)
    mirrored = (2 * signed)[:, None] * normal - toward

    table = albedos(paint, look.night)
    albedo = table[material]
    noise = texture[(row * 2) & 1023, (column * 2) & 1023].astype(np.float32) / 128 - 1
    height = position[:, 1] - pose.world[1]
    dusty = paint.dirt * np.clip(1.25 - height / (0.55 * vehicle.height), 0, 1) * (1 + 0.6 * noise)
    dusty *= material != Material.GLASS
    albedo = albedo + (np.array([88, 98, 108], np.float32) - albedo) * np.clip(dusty, 0, 0.8)[:, None]
    albedo *= (1 + 0.05 * noise)[:, None]

    up = 0.5 + 0.5 * normal[:, 1]
    open_air = (0.38 + 0.62 * up) * np.clip(0.45 + height / 0.9, 0.45, 1)
    light = look.ambient * open_air[:, None]
    if look.sun.any():
        direct = np.maximum(normal @ look.direction, 0) * (0.25 if view.shade else 1.0)
        light = light + look.sun * direct[:, None]
    if look.lamps:
        s, d = np.full(1, pose.s, np.float32), np.full(1, pose.d, np.float32)
        light = light + view.street * (view.street_at(s, d) * (0.3 + 0.7 * up) * (0.4 + 0.6 * cosine))[:, None]
        light = light + (view.beam_at(s, d) * cosine * np.clip(1.4 - 0.5 * height, 0.35, 1))[:, None]
    mirror = _mirrored_world(view, mirrored)
    strength = MIRRORS[material] * np.where(material == Material.PAINT, np.float32(paint.gloss), np.float32(1))
    grazing = np.square(np.square(1 - cosine))
    share = strength + (np.minimum(1.0, strength * 6) - strength) * grazing
    colour = albedo * light * (1 - 0.6 * share)[:, None] + mirror * share[:, None]
    if look.sun.any() and not view.shade:
        glint = np.maximum(mirrored @ look.direction, 0)
        for _ in range(6):  # to the power of 64
            glint = np.square(glint)
        glint *= np.minimum(1, strength * 7)
        colour += 230 * glint[:, None] * np.minimum(look.sun, 1.2)
    colour = look.through_air(colour, float(np.hypot(pose.world[0], pose.world[2])))
    glowing = glowing_table(paint, look.lamps and paint.lamps, look.night)
    shining = np.asarray(glowing.any(axis=1))[material]
    # reflectors and bulbs: not one flat colour, and white where it is brightest
    level = 0.62 + 0.35 * cosine[shining] + 0.16 * np.sin(0.13 * values[shining, 0]) * np.sin(0.17 * values[shining, 1])
    lamp = glowing[material[shining]] * level[:, None]
    colour[shining] = np.maximum(colour[shining], lamp + 150 * np.clip(level - 0.98, 0, 1)[:, None])
    return colour


def _mirrored_world(view: View, direction: Float) -> Float:
    """What a mirror sees in directions (n, 3): sky, a skyline of dark shapes, the road."""
    look = view.look
    rise = direction[:, 1]
    around = np.arctan2(direction[:, 0], direction[:, 2])
    p = view.phase
    line = 0.12 + 0.10 * np.sin(3 * around + p[0]) + 0.07 * np.sin(9 * around + p[1])
    sky = look.horizon + (look.zenith - look.horizon) * np.sqrt(np.clip(rise, 0, 1))[:, None]
    things = look.ambient * 62.0 + view.street * 34.0
    ground = look.ground * 72.0 + view.street * 18.0
    if view.street.any():  # street lamps passing over the bodywork
        spots = np.clip(np.sin(7 * around + p[1]) * np.sin(9 * rise + p[0]) - 0.75, 0, 1) * 4
        sky = sky + view.street * (170 * spots[:, None])
    above = np.clip((rise - line) / 0.05, 0, 1)[:, None]
    below = np.clip((-rise + 0.02) / 0.06, 0, 1)[:, None]
    return things * (1 - above) * (1 - below) + sky * above + ground * below


def _lamps(canvas: Canvas, view: View, vehicle: Vehicle, pose: Pose, paint: Paint, owner: int) -> None:
    """Note the glows of lamps that are lit and face us."""
    look = view.look
    lamps_on = look.lamps and paint.lamps
    if not (lamps_on or paint.brakes):
        return
    ahead = pose.axes[0]
    to_eye = -pose.world / max(float(np.linalg.norm(pose.world)), 1e-3)
    facing = float(ahead @ to_eye)
    lamps, colour, power = (
        (vehicle.heads, (215.0, 235.0, 250.0), 1.0) if facing > 0 else (vehicle.tails, (30.0, 20.0, 215.0), 0.45)
    )
    if facing > 0 and not lamps_on:
        return
    if facing < 0:
        power = 0.8 if paint.brakes else power
    pixels, depth = view.camera.project(lamps @ pose.axes + pose.world)
    ground, _ = view.camera.project(lamps @ pose.axes * np.array([1, 0, 1], np.float32) + pose.world)
    dim = 1.0 if look.night else 0.45
    for (x, y), z, (_, foot) in zip(pixels, depth, ground, strict=True):
        if z < 1 or not (0 <= x < canvas.columns and 0 <= y < canvas.rows):
            continue
        radius = (0.10 + 0.28 * power * abs(facing)) * view.camera.focal / float(z)
        radius = min(max(radius, 3.5 * power * view.camera.scale), 95 * view.camera.scale)
        strength = power * abs(facing) * dim
        glow = tuple(strength * c for c in colour)
        canvas.lamps.append(Glow(float(x), float(y), radius, (glow[0], glow[1], glow[2]), owner, float(foot - y)))
