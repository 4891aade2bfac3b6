"""Trees and bushes as sprites with soft edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.randoms import Random

__all__ = ["Sprite", "make_trees"]

SIZE = 400  # pixels: a tree 25 m ahead is drawn at about this size


@dataclass(frozen=True)
class Sprite:
    """A flat picture of a thing that stands on the ground.

    Attributes:
        kind: what it is; colour: uint8 (h, w, 3) BGR as in white light; alpha: uint8 (h, w).
        height: metres of the whole picture's height, typically.
    """

    kind: str
    colour: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    height: float


def make_trees(random: Random) -> tuple[Sprite, ...]:
    """Leafy, thin, bare and coniferous trees, and bushes."""
    kinds = ["leafy"] * 12 + ["conifer"] * 4 + ["bare"] * 6 + ["bush"] * 6
    return tuple(_tree(random.child(f"tree {i}"), kind) for i, kind in enumerate(kinds))


def _tree(random: Random, kind: str) -> Sprite:
    colour = np.zeros((SIZE, SIZE, 3), np.uint8)
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    if kind != "bush":
        brown = random.toned((58.0, 66.0, 72.0), 0.6, 1.2)
        start = (SIZE / 2, SIZE - 1.0)
        limit = {"leafy": 4, "bare": 7, "conifer": 1}[kind]
        _branch(random, colour, alpha, start, -math.pi / 2, SIZE * 0.27, SIZE * 0.026, limit, brown)
    if kind != "bare":
        _leaves(random, kind, colour, alpha)
    soft = cv2.GaussianBlur(alpha, (3, 3), 0.7)
    spread = cv2.dilate(colour, np.ones((3, 3), np.uint8))  # no dark fringe where alpha is soft
    colour[alpha == 0] = spread[alpha == 0]
    height = {"leafy": 10.0, "bare": 9.0, "conifer": 12.0, "bush": 2.2}[kind] * random.uniform(0.7, 1.3)
    # without empty margins; the foot stays in the middle
    rows, columns = np.flatnonzero(soft.any(axis=1)), np.flatnonzero(soft.any(axis=0))
    top, half = int(rows[0]), int(max(SIZE / 2 - columns[0], columns[-1] + 1 - SIZE / 2))
    part = (slice(top, SIZE), slice(max(0, SIZE // 2 - half), SIZE // 2 + half))
    return Sprite(kind, colour[part].copy(), soft[part].copy(), height * (SIZE - top) / SIZE)


def _branch(
    random: Random,
    colour: NDArray[np.uint8],
    alpha: NDArray[np.uint8],
    start: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    depth: int,
    brown: tuple[float, ...],
) -> None:
    end = (start[0] + math.cos(angle) * length, start[1] + math.sin(angle) * length)
    a, b = (tuple(round(v * 16) for v in point) for point in (start, end))
    shade = random.uniform(0.7, 1.2)
    cv2.line(colour, a, b, tuple(min(255.0, v * shade) for v in brown), max(1, round(width)), cv2.LINE_AA, 4)
    cv2.line(alpha, a, b, 255 if width > 0.8 else 150, max(1, round(width)), cv2.LINE_AA, 4)
    if depth > 0 and length > 3:
        for _ in range(random.integer(2, 3)):
            turn = random.normal(0, 0.5, -1.1, 1.1)
            near = random.uniform(0.6, 1.0)
            origin = (start[0] + (end[0] - start[0]) * near, start[1] + (end[1] - start[1]) * near)
            shorter = length * random.uniform(0.6, 0.82)
            _branch(random, colour, alpha, origin, angle + turn, shorter, width * 0.62, depth - 1, brown)


def _leaves(random: Random, kind: str, colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> None:
    """Leaves: clumps of a soft shape, their rims frayed by noise, lit from above."""
    generator = random.numpy
    body, light = np.full((SIZE, SIZE), -1, np.float32), np.zeros((SIZE, SIZE), np.float32)
    for cx, cy, rx, ry in _clumps(random, kind):
        # a clump and its frayed rim end at 1.25 half axes
        left, right = (round(np.clip(cx + sign * 1.25 * rx, 0, 1) * SIZE) for sign in (-1, 1))
        top, bottom = (round(np.clip(cy + sign * 1.25 * ry, 0, 1) * SIZE) for sign in (-1, 1))
        y, x = np.mgrid[top:bottom, left:right].astype(np.float32) / SIZE
        far = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        inside = 1 - far
        part = (slice(top, bottom), slice(left, right))
        nearer = (inside + 0.25 * random.uniform(0, 1) > body[part]) & (inside > -0.4)
        light[part] = np.where(nearer, 0.62 - 0.45 * (y - cy) / ry - 0.25 * cy, light[part])
        body[part] = np.maximum(body[part], inside)
    fine = cv2.GaussianBlur(generator.normal(0, 1, (SIZE, SIZE)).astype(np.float32), (0, 0), 1.1)
    rough = cv2.GaussianBlur(generator.normal(0, 1, (SIZE, SIZE)).astype(np.float32), (0, 0), 4.0)
    noise = 0.5 * fine / fine.std() + 0.6 * rough / rough.std()
    density = body * random.uniform(1.2, 2.6) + random.uniform(0.3, 0.9) + 0.9 * noise
    cover = np.clip(density * 2.0, 0, 1) * (body > -0.35)
    hue = np.array(random.pick([(38, 74, 56), (34, 66, 50), (48, 84, 74), (36, 80, 88), (44, 62, 48)]), np.float32)
    light = cv2.GaussianBlur(light, (0, 0), 2.0) * (1 + 0.22 * noise)
    warm = rough / rough.std() * 0.06
    tint = np.stack([1 - warm, np.ones_like(warm), 1 + warm], -1)
    leaf = np.clip(hue * np.clip(light * 1.35 + 0.12, 0.1, 1.9)[..., None] * tint, 0, 255)
    share = cover[..., None]
    colour[:] = (colour * (1 - share) + leaf * share).astype(np.uint8)
    alpha[:] = np.maximum(alpha, (255 * cover).astype(np.uint8))


def _clumps(random: Random, kind: str) -> list[tuple[float, float, float, float]]:
    """Centres and half axes, shares of the picture; the top ones last."""
    found = []
    if kind == "conifer":
        slim = random.uniform(0.14, 0.26)
        for level in np.linspace(0.9, 0.12, 11):
            wide = slim * (level + 0.12) * random.uniform(0.8, 1.15)
            found.append(
                (0.5 + random.normal(0, 0.015, -0.03, 0.03), float(level), wide, 0.11 * random.uniform(0.8, 1.2))
            )
        return found
    low, high = (0.62, 0.9) if kind == "bush" else (0.16, 0.6)
    spread = random.uniform(0.18, 0.32)
    for _ in range(random.integer(9, 18)):
        size = random.uniform(0.08, 0.17)
        centre = 0.5 + random.uniform(-spread, spread)
        found.append((centre, random.uniform(low, high), size * random.uniform(0.9, 1.5), size))
    return sorted(found, key=lambda clump: -clump[1])
