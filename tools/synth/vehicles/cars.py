"""Cars, pick-ups and vans: profiles and textures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.synth.randoms import Random
from tools.synth.vehicles.atlas import PER_METRE, Atlas, Material, Region, wheel_picture
from tools.synth.vehicles.mesh import Mesh, Shell, smooth_profile
from tools.synth.vehicles.vehicle import Body, Vehicle, build

__all__ = ["STYLES", "make_car"]

STYLES: Mapping[str, int] = {"sedan": 14, "hatch": 6, "estate": 4, "suv": 12, "minivan": 4, "pickup": 5, "van": 5}
Float = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class _Shape:
    """Lengths in metres; x positions as shares of the length, 0.5 is the front."""

    length: float
    width: float
    height: float
    belt: float
    cowl: float
    roof_front: float
    roof_rear: float
    deck: float
    deck_z: float
    tumble: float


def _shape(random: Random, style: str) -> _Shape:
    def vary(value: float, by: float) -> float:
        return value * random.uniform(1 - by, 1 + by)

    table = {  # length, width, height, cowl, roof front, roof rear, deck
        "sedan": (4.75, 1.83, 1.45, 0.20, 0.04, -0.19, -0.36),
        "hatch": (4.15, 1.76, 1.48, 0.24, 0.07, -0.34, -0.465),
        "estate": (4.7, 1.82, 1.50, 0.21, 0.05, -0.38, -0.475),
        "suv": (4.65, 1.88, 1.74, 0.22, 0.08, -0.38, -0.47),
        "minivan": (5.0, 1.97, 1.76, 0.29, 0.12, -0.42, -0.48),
        "pickup": (5.6, 1.98, 1.88, 0.21, 0.09, -0.10, -0.14),
        "van": (5.6, 2.02, 2.35, 0.37, 0.26, -0.46, -0.487),
    }[style]
    length, width, height = vary(table[0], 0.06), vary(table[1], 0.03), vary(table[2], 0.05)
    belt = height * random.uniform(0.60, 0.66) if style != "van" else height * 0.52
    deck_z = belt + (0.09 if style == "sedan" else 0.0)
    points = [share + random.uniform(-0.012, 0.012) for share in table[3:]]
    tumble = random.uniform(0.17, 0.24) if style not in ("van", "minivan") else random.uniform(0.07, 0.12)
    return _Shape(length, width, height, belt, points[0], points[1], points[2], max(points[3], -0.488), deck_z, tumble)


def _profile(random: Random, s: _Shape, style: str) -> list[tuple[float, float]]:
    front, rear = s.length / 2, -s.length / 2
    floor = 0.30 if style in ("suv", "pickup") else 0.22
    nose = s.belt * random.uniform(0.78, 0.88) if style not in ("suv", "pickup", "van") else s.belt * 0.92
    x = [share * s.length for share in (s.cowl, s.roof_front, s.roof_rear, s.deck)]
    points = [
        (front - 0.14, floor),
        (front - 0.02, floor + 0.16),
        (front, 0.5 + floor * 0.3),
        (front - 0.05, nose - 0.09),
        (front - 0.20, nose),
        ((front + x[0]) / 2, (nose + s.belt) / 2 + 0.045),
        (x[0], s.belt + 0.03),
        ((x[0] + x[1]) / 2 + 0.02, (s.belt + s.height) / 2 + 0.05),
        (x[1], s.height - 0.05),
        ((x[1] * 2 + x[2]) / 3, s.height),
        (x[2] + 0.25, s.height - 0.03),
        (x[2], s.height - 0.08),
        (x[3], s.deck_z),
    ]
    if style in ("sedan", "pickup"):
        points.append((rear + 0.10, s.deck_z - 0.02))
    points += [(rear + 0.015, s.deck_z - 0.10), (rear, 0.62), (rear + 0.01, floor + 0.18), (rear + 0.12, floor + 0.03)]
    return points


def make_car(random: Random, style: str) -> Vehicle:
    """One car of a style."""
    s = _shape(random, style)
    points = _profile(random, s, style)
    profile = smooth_profile(points)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(profile, axis=0).T))]).astype(np.float32)
    floor = points[0][1]
    square = random.uniform(0.05, 0.10)

    def half_width(x: Float, z: Float) -> Float:
        plan = 1 - square * np.abs(2 * x / s.length) ** 4
        above = np.clip((z - s.belt) / (s.height - s.belt), 0, 1.2)
        below = np.clip((s.belt - z) / s.belt, 0, 1)
        return np.asarray(s.width / 2 * plan * (1 - s.tumble * above) * (1 - 0.10 * below**3), np.float32)

    shell = Shell(profile, along, half_width, floor, random.uniform(0.10, 0.22), random.uniform(0.05, 0.09))
    atlas = Atlas()
    side, side_at = atlas.region(s.length + 0.1, s.height + 0.1, s.length / 2 + 0.05, 0.02, up=True)
    strip, strip_at = atlas.region(float(along[-1]) + 0.1, s.width + 0.3, 0.05, s.width / 2 + 0.15, up=False)
    radius = {"suv": 0.36, "pickup": 0.38, "van": 0.34}.get(style, 0.32) * random.uniform(0.97, 1.05)
    wheelbase = s.length * random.uniform(0.57, 0.61)
    axles = [wheelbase / 2 + 0.06, -wheelbase / 2 + 0.02]
    _paint_side(random, side, s, style, axles, radius, profile, floor)
    tails, heads = _paint_strip(random, strip, shell, s, style, points)
    wheel = wheel_picture(atlas, random.integer(5, 10), random.uniform(0.03, 0.09), metal=True)
    mirror_at = (s.cowl * s.length - 0.25, s.belt + 0.06)
    colour = (
        (side_at[0], side_at[1] - s.belt * 0.8 * PER_METRE)
        if random.chance(0.7)
        else (wheel[0][0] + 0.9 * wheel[1], wheel[0][1])
    )
    mirrors = [_ear((mirror_at[0], y * (s.width / 2 + 0.06), mirror_at[1]), colour) for y in (-1, 1)]
    return build(
        "car", [Body(shell, strip_at, side_at)], axles, radius, 0.21, wheel, atlas.finish(), tails, heads, extra=mirrors
    )


def _ear(centre: tuple[float, float, float], texel: tuple[float, float]) -> Mesh:
    """A mirror: a small ellipsoid."""
    a, b = np.meshgrid(np.linspace(0, 2 * np.pi, 7), np.linspace(-np.pi / 2, np.pi / 2, 5), indexing="ij")
    unit = np.stack([np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b)], -1).astype(np.float32)
    grid = unit * np.array([0.08, 0.12, 0.09], np.float32)

    def corners(values: Float) -> Float:
        quads = np.stack([values[:-1, :-1], values[1:, :-1], values[1:, 1:], values[:-1, 1:]], axis=2)
        return quads.reshape(-1, 4, 3)

    quads = corners(grid) + np.array(centre, np.float32)
    return Mesh(quads, corners(unit), np.broadcast_to(np.array(texel, np.float32), (len(quads), 4, 2)))


def _paint_side(
    random: Random,
    side: Region,
    s: _Shape,
    style: str,
    axles: list[float],
    radius: float,
    profile: Float,
    floor: float,
) -> None:
    front, rear = s.length / 2, -s.length / 2
    trim = style in ("suv", "pickup", "van") and random.chance(0.6)
    side.box(rear, 0, front, floor + (0.14 if trim else 0.05), Material.BLACK)
    order = np.argsort(profile[:, 0])

    def roof(x: float) -> float:
        inside = profile[order]
        upper = inside[inside[:, 1] > s.belt - 0.15]
        return float(np.interp(x, upper[:, 0], upper[:, 1]))

    sill = s.belt + 0.02
    start, end = s.cowl * s.length - 0.15, s.deck * s.length + (0.22 if style != "pickup" else 0.06)
    if style == "van" and random.chance(0.6):
        end = start - 1.5
    xs = np.linspace(start, end, 24)
    top = [(float(x), roof(float(x)) - 0.11) for x in xs if roof(float(x)) - 0.11 > sill]
    if len(top) > 2:
        frame = random.pick([Material.BLACK, Material.BLACK, Material.METAL])
        side.fill(
            [(x, z + 0.03) for x, z in top] + [(top[-1][0] - 0.03, sill - 0.025), (top[0][0] + 0.05, sill - 0.025)],
            frame,
        )
        side.fill([*top, (top[-1][0], sill), (top[0][0], sill)], Material.GLASS)
        doors = [0.02 * s.length - 0.1, -0.22 * s.length] if style != "pickup" else [0.03 * s.length]
        for x in doors:
            if top[-1][0] < x < top[0][0]:
                pillar = Material.BLACK if random.chance(0.7) else Material.PAINT
                side.box(x - 0.05, sill - 0.01, x + 0.05, roof(x) - 0.10, pillar)
        if random.chance(0.8):
            for x in doors[:2]:
                side.box(x + 0.14, sill, x + 0.32, sill + 0.18, Material.SEAT)
    for x in (start - 0.12, 0.02 * s.length - 0.1, -0.22 * s.length):
        if style == "pickup" and x < -0.15 * s.length:
            continue
        side.line([(x, floor + 0.08), (x, sill - 0.03)], Material.GAP)
        handle = Material.METAL if random.chance(0.3) else Material.GAP
        side.box(x + 0.06, s.belt - 0.13, x + 0.24, s.belt - 0.10, handle)
    side.line(
        [(front - 0.5, s.belt * 0.72), (rear + 0.4, s.belt * 0.80)],
        Material.GAP if random.chance(0.15) else Material.PAINT,
    )
    for x in axles:
        if trim:
            side.round(x, radius, radius + 0.13, Material.BLACK)
        side.round(x, radius, radius + 0.055, Material.GAP)
    side.fill(
        [(front, s.belt * 0.62), (front - 0.42, s.belt * 0.74), (front - 0.3, s.belt * 0.80), (front, s.belt * 0.8)],
        Material.HEAD,
    )
    side.fill(
        [(rear, s.belt * 0.66), (rear + 0.28, s.belt * 0.78), (rear + 0.24, s.belt * 0.9), (rear, s.belt * 0.92)],
        Material.TAIL,
    )


def _paint_strip(
    random: Random, strip: Region, shell: Shell, s: _Shape, style: str, points: list[tuple[float, float]]
) -> tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]]:
    half, length = s.width / 2, s.length

    def z_at(z: float, *, front: bool) -> float:
        """Metres along the profile where front or rear is z high."""
        x = length / 2 if front else -length / 2
        return shell.at(x - 0.02 * np.sign(x), z)

    # front: bumper, grille, lamps
    strip.box(-0.05, -half, z_at(points[0][1] + 0.10, front=True), half, Material.BLACK)
    low, high = z_at(s.belt * 0.56, front=True), z_at(s.belt * 0.78, front=True)
    strip.box(low, -half * random.uniform(0.35, 0.6), high, half * 0.5, Material.BLACK)
    strip.box(z_at(0.3, front=True), -half * 0.6, z_at(0.42, front=True), half * 0.6, Material.GAP)
    strip.pair(low, half * random.uniform(0.56, 0.66), high, half, Material.HEAD)
    strip.box(z_at(0.44, front=True), -0.25, z_at(0.55, front=True), 0.25, Material.PLATE)
    strip.box((low + high) / 2 - 0.02, -half * 0.45, (low + high) / 2 + 0.02, half * 0.45, Material.METAL)
    # windscreen and rear window taper with the roof
    cowl, roof = shell.at(s.cowl * length, s.belt + 0.03) - 0.02, shell.at(s.roof_front * length, s.height - 0.05)
    wide, narrow = half * 0.93, half * (1 - s.tumble) * 0.88
    strip.fill([(cowl, -wide), (roof, -narrow), (roof, narrow), (cowl, wide)], Material.GLASS)
    strip.box(cowl - 0.07, -half * 0.9, cowl, half * 0.9, Material.BLACK)
    strip.pair(cowl + 0.28, 0.22, cowl + 0.5, 0.5, Material.SEAT)
    back, deck = shell.at(s.roof_rear * length, s.height - 0.08) + 0.06, shell.at(s.deck * length, s.deck_z) - 0.05
    if style != "van" or random.chance(0.7):
        low_edge = deck - (0.03 if style == "sedan" else 0.08)
        strip.fill(
            [(back, -narrow * 0.97), (low_edge, -wide * 0.9), (low_edge, wide * 0.9), (back, narrow * 0.97)],
            Material.GLASS,
        )
        strip.pair(low_edge - 0.16, 0.2, low_edge, 0.52, Material.SEAT)
        if style == "van":
            strip.box(back - 0.1, -0.04, deck, 0.04, Material.PAINT)
    if random.chance(0.3) and style not in ("van", "pickup"):
        strip.box(roof + 0.15, -0.4, roof + 0.75, 0.4, Material.GLASS)
    if style == "pickup":
        strip.box(deck + 0.05, -half * 0.86, shell.at(-length / 2 + 0.14, s.deck_z), half * 0.86, Material.GAP)
    # rear: lamps, plate, bumper
    tall = style in ("suv", "van", "estate", "minivan") and random.chance(0.5)
    top_z = s.deck_z - 0.03 if not tall else s.belt + 0.1
    lamp_top, lamp_low = z_at(top_z - 0.06, front=False), z_at(s.belt * random.uniform(0.66, 0.74), front=False)
    inner = half * (0.78 if tall else random.uniform(0.48, 0.68))
    strip.pair(lamp_top, inner, lamp_low, half * 1.05, Material.TAIL)
    if random.chance(0.4):
        strip.pair(lamp_top + (lamp_low - lamp_top) * 0.55, inner, lamp_low, inner + 0.12, Material.WHITE)
    if random.chance(0.2):
        strip.box(
            lamp_top + 0.03, -inner, lamp_top + 0.07, inner, Material.TAIL if random.chance(0.5) else Material.METAL
        )
    plate = z_at(random.pick([s.belt * 0.72, 0.52]), front=False)
    strip.box(plate - 0.09, -0.35, plate + 0.09, 0.35, Material.GAP if random.chance(0.3) else Material.PAINT)
    strip.box(plate - 0.07, -0.21, plate + 0.07, 0.21, Material.PLATE)
    bumper = z_at(0.46, front=False)
    strip.line([(bumper - 0.12, -half), (bumper - 0.12, half)], Material.GAP)
    dark = random.uniform(0.05, 0.22)
    strip.box(float(shell.along[-1]) - dark, -half, float(shell.along[-1]) + 0.05, half, Material.BLACK)
    if random.chance(0.5):
        strip.pair(float(shell.along[-1]) - 0.2, half * 0.6, float(shell.along[-1]) - 0.14, half * 0.85, Material.TAIL)
    if random.chance(0.35):
        strip.pair(float(shell.along[-1]) - 0.1, half * 0.5, float(shell.along[-1]) - 0.03, half * 0.7, Material.METAL)
    strip.box(back - 0.12, -0.25, back - 0.09, 0.25, Material.TAIL)
    tail_z = (top_z - 0.06 + s.belt * 0.7) / 2
    return [(-length / 2 - 0.02, (inner + half) / 2, tail_z)], [(length / 2 - 0.05, half * 0.8, s.belt * 0.68)]
