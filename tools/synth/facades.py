"""Fronts of buildings as textures, with the light of their windows apart."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.noise import fractal
from tools.synth.randoms import Random

__all__ = ["Facade", "make_facades"]

PER_METRE = 20


@dataclass(frozen=True)
class Facade:
    """A front.

    Attributes:
        colour: uint8 (h, w, 3) BGR in white light, `PER_METRE` pixels a metre.
        lit: uint8 (h, w, 3): light of windows and signs at night.
        width, height: metres.
        kind: "flat", "house" or "hall".
    """

    colour: NDArray[np.uint8]
    lit: NDArray[np.uint8]
    width: float
    height: float
    kind: str


def make_facades(random: Random) -> tuple[Facade, ...]:
    """Blocks of flats and offices, houses, halls."""
    kinds = ["flat"] * 16 + ["house"] * 8 + ["hall"] * 6
    return tuple(_facade(random.child(f"facade {i}"), kind) for i, kind in enumerate(kinds))


_WALLS = [
    (70, 82, 120),
    (62, 70, 98),
    (120, 150, 175),
    (150, 165, 172),
    (118, 120, 122),
    (96, 110, 130),
    (180, 190, 196),
]
_HOUSES = [(200, 205, 208), (170, 190, 198), (150, 140, 125), (120, 150, 190), (190, 185, 160), (90, 105, 150)]


def _facade(random: Random, kind: str) -> Facade:
    floor = random.uniform(2.9, 3.6)
    floors = {"flat": random.integer(2, 11), "house": random.integer(1, 2), "hall": 1}[kind]
    width = {"flat": 26.0, "house": random.uniform(8, 13), "hall": 34.0}[kind]
    height = floors * floor + 1.0 if kind != "hall" else random.uniform(5, 10)
    h, w = round(height * PER_METRE), round(width * PER_METRE)
    wall = np.array(random.pick(_HOUSES if kind == "house" else _WALLS), np.float32) * random.uniform(0.7, 1.15)
    generator = random.numpy
    dirt = fractal(generator, 512, 4, 6, 0.7)
    dirt = cv2.resize(dirt / dirt.std(), (w, h))
    colour = wall[None, None] * (1 + 0.07 * dirt[..., None])
    if kind == "flat" and random.chance(0.6):  # bricks
        colour *= (1 + 0.09 * generator.normal(0, 1, (h // 2 + 1, w // 5 + 1))).repeat(2, 0).repeat(5, 1)[:h, :w, None]
    if kind in ("house", "hall") and random.chance(0.7):  # boards or corrugated sheet
        lines = (np.arange(h) % 5 == 0) if kind == "house" else None
        stripes = lines[:, None] if lines is not None else (np.arange(w) % 7 < 2)[None, :]
        colour *= np.where(stripes, 0.86, 1.0)[..., None].astype(np.float32)
    picture = np.clip(colour, 0, 255).astype(np.uint8)
    lit = np.zeros_like(picture)
    if kind == "hall":
        _doors(random, picture, lit)
    else:
        _windows(random, picture, lit, floors, floor, kind)
    if kind == "flat":
        if random.chance(0.65):
            _shops(random, picture, lit)
        cv2.rectangle(picture, (0, 0), (w, 12), tuple(float(v) for v in wall * random.uniform(0.6, 1.2)), -1)
        cv2.rectangle(picture, (0, 12), (w, 15), tuple(float(v) for v in wall * 0.5), -1)
    fall = np.linspace(1.06, 0.86, h, dtype=np.float32)[:, None, None]  # dirt and less sky below
    picture = np.clip(picture * fall, 0, 255).astype(np.uint8)
    return Facade(picture, lit, width, height, kind)


def _windows(
    random: Random, picture: NDArray[np.uint8], lit: NDArray[np.uint8], floors: int, floor: float, kind: str
) -> None:
    h, w = picture.shape[:2]
    glass_band = kind == "flat" and random.chance(0.25)
    step = PER_METRE * (random.uniform(2.2, 3.6) if kind == "flat" else random.uniform(2.6, 4.0))
    size = (step * random.uniform(0.35, 0.55), PER_METRE * random.uniform(1.3, 1.8))
    frame = random.pick([(205, 205, 205), (60, 60, 60), (90, 110, 130), (180, 190, 200)])
    balconies = kind == "flat" and random.chance(0.25)
    for level in range(floors):
        bottom = h - PER_METRE * (level * floor + 0.9)
        top = bottom - size[1]
        if glass_band:
            cv2.rectangle(picture, (0, int(top)), (w, int(bottom)), (95, 85, 70), -1)
        x = step * 0.35
        while x + size[0] < w - 4:
            a, b = (int(x), int(top)), (int(x + size[0]), int(bottom))
            tone = random.uniform(0.35, 1.3)
            glass = tuple(v * tone for v in random.pick([(78, 66, 54), (110, 96, 80), (50, 46, 42)]))
            cv2.rectangle(picture, (a[0] - 2, a[1] - 2), (b[0] + 2, b[1] + 2), frame, -1)
            cv2.rectangle(picture, a, b, glass, -1)
            if random.chance(0.4):  # a blind
                blind = (a[0], a[1]), (b[0], a[1] + int((b[1] - a[1]) * random.uniform(0.2, 0.8)))
                cv2.rectangle(picture, *blind, random.toned((190.0, 200.0, 205.0), 0.6, 1), -1)
            middle = (a[0] + b[0]) // 2
            cv2.line(picture, (middle, a[1]), (middle, b[1]), frame, 1)
            cv2.line(picture, (a[0] - 3, b[1] + 3), (b[0] + 3, b[1] + 3), (70, 70, 70), 1)
            if random.chance(0.22):
                glow = random.pick([(95, 165, 215), (140, 185, 215), (190, 200, 205), (70, 130, 200)])
                cv2.rectangle(lit, a, b, random.toned(glow, 0.3, 0.95), -1)
            if balconies:
                cv2.rectangle(picture, (a[0] - 6, b[1] - 10), (b[0] + 6, b[1] + 4), (110, 112, 115), -1)
            x += step


def _shops(random: Random, picture: NDArray[np.uint8], lit: NDArray[np.uint8]) -> None:
    h, w = picture.shape[:2]
    x = 0
    while x < w:
        size = random.integer(70, 150)
        end = min(w, x + size)
        base = random.pick([(45, 45, 50), (70, 60, 45), (40, 50, 110), (50, 80, 50), (120, 125, 130)])
        cv2.rectangle(picture, (x, h - 68), (end, h), base, -1)
        glass = random.toned((70.0, 66.0, 60.0), 0.5, 1.4)
        cv2.rectangle(picture, (x + 6, h - 44), (end - 6, h - 8), glass, -1)
        for _ in range(random.integer(1, 4)):  # goods behind the glass
            at = (random.integer(x + 6, max(x + 7, end - 20)), random.integer(h - 42, h - 22))
            thing = random.painted(40, 190)
            cv2.rectangle(picture, at, (min(end - 6, at[0] + random.integer(4, 16)), h - 10), thing, -1)
        sign = random.painted(20, 220)
        cv2.rectangle(picture, (x + 3, h - 66), (end - 3, h - 48), sign, -1)
        ink = (235, 235, 235) if sum(sign) < 330 else (25, 25, 25)
        at_x = x + 8
        while at_x < end - 14:  # strokes that look like letters from afar
            tall = random.integer(6, 11)
            cv2.rectangle(picture, (at_x, h - 52 - tall), (at_x + random.integer(1, 5), h - 52), ink, 1)
            at_x += random.integer(6, 9)
        if random.chance(0.7):
            lit[h - 66 : h - 48, x + 3 : end - 3] = picture[h - 66 : h - 48, x + 3 : end - 3]
            warm = random.toned((150.0, 195.0, 225.0), 0.4, 1.0)
            cv2.rectangle(lit, (x + 6, h - 44), (end - 6, h - 8), warm, -1)
        if random.chance(0.35):  # an awning
            shade = random.painted(30, 170)
            cv2.rectangle(picture, (x, h - 50), (end, h - 36), shade, -1)
        x = end


def _doors(random: Random, picture: NDArray[np.uint8], lit: NDArray[np.uint8]) -> None:
    h, w = picture.shape[:2]
    x = random.integer(10, 60)
    while x < w - 60:
        wide, tall = random.integer(40, 80), random.integer(50, max(51, min(90, h - 14)))
        tone = random.uniform(50, 190)
        cv2.rectangle(picture, (x, h - tall), (x + wide, h), (tone, tone * 0.98, tone * 0.95), -1)
        for y in range(h - tall, h, 8):
            cv2.line(picture, (x, y), (x + wide, y), (tone * 0.75,) * 3, 1)
        if random.chance(0.3):
            cv2.circle(lit, (x + wide // 2, h - tall - 6), 4, (150, 200, 230), -1)
        x += wide + random.integer(20, 120)
    if random.chance(0.7):
        size = random.integer(60, 200)
        at = random.integer(10, max(11, w - size - 10))
        colour = random.painted(20, 230)
        cv2.rectangle(picture, (at, 10), (at + size, 34), colour, -1)
        cv2.rectangle(lit, (at, 10), (at + size, 34), tuple(v * 0.8 for v in colour), -1)
