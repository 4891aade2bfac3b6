"""Colours, dirt and lamps of vehicles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.synth.randoms import Random
from tools.synth.vehicles.atlas import Material

__all__ = ["MIRRORS", "Paint", "albedos", "glowing_table", "sample_paint"]

Float = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Paint:
    """Colours of one vehicle, BGR 0..255, and its lamps."""

    body: tuple[float, float, float]
    second: tuple[float, float, float]
    gloss: float
    dirt: float
    brakes: bool
    lamps: bool
    plate: tuple[float, float, float]
    tyre_dark: float


_BODIES = {
    (212, 214, 216): 24, (20, 20, 21): 20, (72, 70, 68): 14, (150, 150, 150): 13, (40, 39, 38): 8, (95, 52, 28): 6,
    (30, 25, 125): 7, (60, 40, 22): 4, (120, 135, 150): 3, (48, 70, 40): 2, (30, 160, 215): 3, (35, 50, 85): 2,
    (130, 90, 50): 2, (20, 70, 170): 1,
}  # fmt: skip
_SECONDS: Mapping[Sequence[float], float] = {
    (205, 208, 210): 4,
    (140, 70, 35): 2,
    (40, 40, 170): 2,
    (60, 110, 60): 1,
    (40, 150, 210): 2,
    (60, 60, 62): 2,
}


def sample_paint(random: Random, kind: str, *, parked: bool) -> Paint:
    """Colours in about the shares of real streets; few parked vehicles have their lamps on."""
    base = random.weighted(_BODIES)
    if kind == "bus" and random.chance(0.6):
        base = random.pick([(25, 165, 225), (210, 212, 214), (150, 80, 30), (40, 40, 165), (60, 120, 60)])
    tone = random.uniform(0.82, 1.12)
    body = tuple(min(240.0, v * tone + random.uniform(-4, 8)) for v in base)
    second = random.toned(random.weighted(_SECONDS), 0.85, 1.1)
    plate = random.pick([(205, 205, 205), (205, 205, 205), (60, 170, 215)])
    return Paint(
        (body[0], body[1], body[2]),
        (second[0], second[1], second[2]),
        random.uniform(0.5, 1.1),
        random.uniform(0.02, 0.3) ** 1.3,
        random.chance(0.02 if parked else 0.3),
        random.chance(0.06 if parked else 0.97),
        plate,
        random.uniform(14, 34),
    )


MIRRORS = np.zeros(16, np.float32)
for _material, _value in {
    Material.PAINT: 0.12, Material.GLASS: 0.33, Material.BLACK: 0.03, Material.METAL: 0.45, Material.TAIL: 0.1,
    Material.HEAD: 0.3, Material.RIM: 0.22, Material.SECOND: 0.06, Material.WHITE: 0.05, Material.SEAT: 0.2,
}.items():  # fmt: skip
    MIRRORS[_material] = _value


def albedos(paint: Paint, night: bool) -> Float:
    table = np.zeros((16, 3), np.float32)
    table[Material.PAINT] = paint.body
    table[Material.GLASS] = (22, 21, 19)
    table[Material.BLACK] = (32, 31, 30)
    table[Material.METAL] = (150, 150, 150)
    table[Material.TAIL] = (22, 18, 120)
    table[Material.HEAD] = (170, 170, 168)
    table[Material.PLATE] = np.array(paint.plate) * (1.6 if night else 1.0)
    table[Material.TYRE] = paint.tyre_dark
    table[Material.RIM] = (125, 125, 125)
    table[Material.GAP] = (9, 9, 9)
    table[Material.AMBER] = (20, 110, 200)
    table[Material.SECOND] = paint.second
    table[Material.WHITE] = (205, 206, 206)
    table[Material.SEAT] = (48, 46, 44)
    return table


def glowing_table(paint: Paint, lamps: bool, night: bool) -> Float:
    table = np.zeros((16, 3), np.float32)
    if paint.brakes:
        table[Material.TAIL] = (95, 90, 255)
    elif lamps:
        table[Material.TAIL] = (45, 35, 205) if night else (35, 28, 190)
    if lamps:
        table[Material.HEAD] = (235, 245, 250)
        table[Material.AMBER] = (30, 130, 235)
    return table
