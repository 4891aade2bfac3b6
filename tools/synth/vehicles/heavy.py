"""Trucks and buses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.synth.randoms import Random
from tools.synth.vehicles.atlas import Atlas, Material, Region, wheel_picture
from tools.synth.vehicles.mesh import Shell, smooth_profile
from tools.synth.vehicles.vehicle import Body, Vehicle, build

__all__ = ["make_bus", "make_truck"]

Float = NDArray[np.floating[Any]]


def _box_shell(length: float, width: float, floor: float, height: float, *, radius: float, slope: float = 0.0) -> Shell:
    """A box with rounded edges; `slope` leans the upper front back, metres."""
    front, rear, r = length / 2, -length / 2, radius
    points = [(front, floor), (front, floor + 0.35)]
    points += [
        (front, floor + (height - floor) * 0.45),
        (front - slope * 0.6, height - 0.25),
        (front - slope - r, height),
    ]
    points += [(front * share, height) for share in (0.5, 0.0, -0.5)]
    points += [(rear + r, height), (rear, height - r - 0.05)]
    points += [(rear, floor + (height - floor) * share) for share in (0.6, 0.3, 0.1)] + [(rear, floor)]
    profile = smooth_profile(points, 1)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(profile, axis=0).T))]).astype(np.float32)

    def half_width(x: Float, z: Float) -> Float:
        return np.asarray(width / 2 * (1 - 0.015 * np.abs(2 * x / length) ** 6) * (1 - 0.01 * z / height), np.float32)

    return Shell(profile, along, half_width, floor, radius * 0.6, 0.06)


def _regions(
    atlas: Atlas, shell: Shell, length: float, width: float, height: float
) -> tuple[Region, tuple[float, float], Region, tuple[float, float]]:
    side, side_at = atlas.region(length + 0.1, height + 0.1, length / 2 + 0.05, 0.02, up=True)
    strip, strip_at = atlas.region(float(shell.along[-1]) + 0.1, width + 0.3, 0.05, width / 2 + 0.15, up=False)
    return side, side_at, strip, strip_at


def make_bus(random: Random) -> Vehicle:
    """A city bus, a coach or a school bus (its colour makes the difference)."""
    length, width, height, floor = random.uniform(8, 13), 2.5, random.uniform(2.9, 3.4), 0.32
    shell = _box_shell(length, width, floor, height, radius=random.uniform(0.12, 0.3), slope=random.uniform(0, 0.35))
    atlas = Atlas()
    side, side_at, strip, strip_at = _regions(atlas, shell, length, width, height)
    front, rear, half = length / 2, -length / 2, width / 2
    low, high = height * random.uniform(0.42, 0.5), height * random.uniform(0.80, 0.88)
    side.box(rear, 0, front, floor + 0.12, Material.BLACK)
    side.box(rear + 0.3, low, front - 0.15, high, Material.GLASS)
    for x in np.arange(rear + 0.3, front, random.uniform(1.1, 1.7)):
        side.box(float(x) - 0.04, low, float(x) + 0.04, high, random.pick([Material.BLACK, Material.PAINT]))
        side.box(float(x) + 0.4, low, float(x) + 0.75, low + 0.3, Material.SEAT)
    for x in (front - 1.3, -0.3):
        side.box(x - 0.55, floor + 0.1, x + 0.55, high, Material.GLASS)
        side.line([(x, floor), (x, high)], Material.BLACK, 0.05)
    band = height * random.uniform(0.2, 0.36)
    side.box(rear, band, front, band + random.uniform(0.05, 0.5), Material.SECOND)
    axles, radius = [front - 2.6, rear + 3.0], 0.5
    for x in axles:
        side.round(x, radius, radius + 0.08, Material.GAP)
    z = _heights(shell, length)
    strip.box(z(low * 0.85, True), -half * 0.95, z(high + 0.1, True), half * 0.95, Material.GLASS)
    strip.box(z(high + 0.12, True), -half * 0.8, z(high + 0.32, True), half * 0.8, Material.BLACK)
    strip.box(z(high + 0.16, True), -half * 0.5, z(high + 0.28, True), half * 0.5, Material.AMBER)
    strip.pair(z(0.6, True), half * 0.6, z(0.85, True), half * 0.95, Material.HEAD)
    _rear(random, strip, z, half, floor, window=(low + 0.1, high) if random.chance(0.7) else None)
    if random.chance(0.5):
        strip.box(z(low - 0.1, False), -half * 0.6, z(0.75, False), half * 0.6, Material.GAP)
    wheel = wheel_picture(atlas, 10, 0.05, metal=True)
    tails, heads = [(rear - 0.02, half * 0.85, 1.0)], [(front, half * 0.78, 0.72)]
    return build("bus", [Body(shell, strip_at, side_at)], axles, radius, 0.28, wheel, atlas.finish(), tails, heads)


def make_truck(random: Random, *, long: bool) -> Vehicle:
    """A cab with a box behind it; `long` ones are articulated."""
    width = random.uniform(2.3, 2.55)
    cab_length, cab_height = (
        random.uniform(1.9, 2.6),
        random.uniform(2.3, 3.1) if not long else random.uniform(2.8, 3.6),
    )
    box_length = random.uniform(11, 14) if long else random.uniform(3.8, 7.5)
    floor = random.uniform(0.85, 1.15)
    box_height = random.uniform(3.3, 4.0) if long else random.uniform(2.8, 3.6)
    low_load = random.chance(0.15)
    if low_load:
        box_height = floor + random.uniform(0.5, 1.2)
    gap = random.uniform(0.15, 0.6)
    total = cab_length + gap + box_length
    cab = _box_shell(cab_length, width * 0.95, 0.45, cab_height, radius=0.2, slope=random.uniform(0.1, 0.5))
    box = _box_shell(box_length, width, floor, box_height, radius=0.04)
    atlas = Atlas()
    side, side_at, strip, strip_at = _regions(atlas, cab, cab_length, width, cab_height)
    front, half = cab_length / 2, width / 2
    low, high = cab_height * 0.56, cab_height * 0.84
    side.box(-front, 0, front, 0.6, Material.BLACK)
    side.fill([(front - 0.15, low), (front - 0.3, high), (front - 1.2, high), (front - 1.2, low)], Material.GLASS)
    side.line([(front - 1.3, 0.6), (front - 1.3, high)], Material.GAP, 0.03)
    z = _heights(cab, cab_length)
    strip.box(z(low - 0.1, True), -half * 0.86, z(high, True), half * 0.86, Material.GLASS)
    strip.box(z(0.75, True), -half * 0.6, z(low - 0.3, True), half * 0.6, random.pick([Material.BLACK, Material.METAL]))
    strip.pair(z(0.6, True), half * 0.55, z(0.85, True), half * 0.9, Material.HEAD)
    strip.box(-0.05, -half, z(0.58, True), half, Material.BLACK)
    strip.box(z(cab_height - 0.3, False), -half, float(cab.along[-1]), half, Material.GAP)
    cargo_side, cargo_side_at, cargo, cargo_at = _regions(atlas, box, box_length, width, box_height)
    _cargo(random, cargo_side, cargo, box, box_length, half, floor, box_height)
    axles = [total / 2 - 1.0, -total / 2 + random.uniform(1.2, 2.0)]
    if long:
        axles += [total / 2 - cab_length - 1.2, axles[1] + 1.3]
    wheel = wheel_picture(atlas, 8, 0.07, metal=random.chance(0.7))
    bodies = [
        Body(cab, strip_at, side_at, total / 2 - cab_length / 2),
        Body(box, cargo_at, cargo_side_at, -total / 2 + box_length / 2),
    ]
    tails, heads = [(-total / 2 - 0.02, half * 0.8, floor + 0.06)], [(total / 2, half * 0.72, 0.72)]
    return build("truck", bodies, axles, 0.5, 0.3, wheel, atlas.finish(), tails, heads)


def _cargo(
    random: Random, side: Region, strip: Region, box: Shell, length: float, half: float, floor: float, height: float
) -> None:
    main = random.weighted({Material.WHITE: 0.5, Material.SECOND: 0.25, Material.METAL: 0.1, Material.PAINT: 0.15})
    side.box(-length / 2 - 0.05, 0, length / 2 + 0.05, height + 0.1, main)
    strip.box(-0.05, -half - 0.1, float(box.along[-1]) + 0.05, half + 0.1, main)
    side.box(-length / 2, floor, length / 2, floor + 0.12, Material.GAP)
    if random.chance(0.5):
        for x in np.arange(-length / 2, length / 2, random.uniform(0.5, 1.2)):
            side.line([(float(x), floor), (float(x), height)], Material.GAP, 0.012)
    if random.chance(0.6):  # a picture or a name
        a, b = sorted((random.uniform(-0.45, 0.45) * length, random.uniform(-0.45, 0.45) * length))
        top = floor + (height - floor) * random.uniform(0.6, 0.95)
        side.box(a, floor + 0.4, b, top, random.pick([Material.SECOND, Material.PAINT, Material.BLACK]))
    z = _heights(box, length)
    strip.box(z(height - 0.1, False), -0.02, z(floor + 0.15, False), 0.02, Material.GAP)
    for y in (-0.7, 0.7):
        strip.line([(z(height - 0.15, False), y * half), (z(floor + 0.2, False), y * half)], Material.METAL, 0.04)
    if random.chance(0.4):
        strip.box(
            z(height * 0.8, False),
            -half * 0.6,
            z(height * 0.6, False),
            half * 0.6,
            random.pick([Material.SECOND, Material.PAINT]),
        )
    _rear(random, strip, z, half, floor, window=None)


def _rear(
    random: Random, strip: Region, z: _Heights, half: float, floor: float, window: tuple[float, float] | None
) -> None:
    if window is not None:
        strip.box(z(window[1], False), -half * 0.85, z(window[0], False), half * 0.85, Material.GLASS)
    strip.box(z(floor + 0.22, False), -half, z(floor - 0.1, False) + 0.3, half, Material.BLACK)
    strip.pair(
        z(floor + random.uniform(0.3, 0.5), False), half * 0.72, z(floor + 0.03, False), half * 0.96, Material.TAIL
    )
    strip.box(z(floor + 0.2, False), -0.25, z(floor + 0.04, False), 0.25, Material.PLATE)


class _Heights:
    """Metres along a profile where the front or the rear is z high."""

    def __init__(self, shell: Shell, length: float) -> None:
        self._shell, self._length = shell, length

    def __call__(self, z: float, front: bool) -> float:
        return self._shell.at(self._length / 2 if front else -self._length / 2, z)


def _heights(shell: Shell, length: float) -> _Heights:
    return _Heights(shell, length)
