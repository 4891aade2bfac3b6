"""Things that run along the road: rails, barriers, fences, hedges, heaps of snow, and kerb stones."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.canvas import KERB, Canvas
from tools.synth.geometry import box_of, front_light, upright
from tools.synth.markings import START, pieces, sampled
from tools.synth.noise import fractal
from tools.synth.order import Item
from tools.synth.plan import Plan
from tools.synth.randoms import Random
from tools.synth.surfaces import lighting, textured_quad
from tools.synth.view import View

__all__ = ["Wall", "draw_kerbs", "make_walls", "wall_items"]

Float = NDArray[np.floating[Any]]
_CUTS = (1.2, 3.0, 5.5, 9.0, 14.0, 21.0, 30.0, 42.0, 60.0, 85.0, 120.0, 170.0, 240.0)
_PER_METRE = 32
_TILE = 1024  # columns, 32 m: then it repeats


@dataclass(frozen=True)
class Wall:
    """A texture of 32 m, `height` metres high: uint8 BGR in white light, and its coverage."""

    colour: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    height: float


# height in metres, BGR
_KINDS: Mapping[str, tuple[float, tuple[int, int, int]]] = {
    "rail": (0.78, (150, 152, 154)),
    "concrete": (0.9, (152, 158, 162)),
    "fence": (1.4, (128, 138, 148)),
    "noise": (3.6, (116, 128, 138)),
    "hedge": (1.5, (40, 70, 52)),
    "snow": (0.6, (228, 224, 221)),
}


def make_walls(random: Random) -> dict[str, Wall]:
    """A texture for each kind."""
    return {kind: _wall(random.child(kind), kind) for kind in _KINDS}


def _wall(random: Random, kind: str) -> Wall:
    height, base = _KINDS[kind]
    rows = max(24, round(height * _PER_METRE))
    generator = random.numpy
    wide = fractal(generator, _TILE, 16, 6, 0.75)[:rows]
    wide = wide / wide.std()
    fine = generator.normal(0, 1, (rows, _TILE)).astype(np.float32)
    strength = {"hedge": 0.32, "snow": 0.06}.get(kind, 0.08)
    tone = 1 + strength * (0.7 * wide + (0.6 if kind == "hedge" else 0.25) * fine)
    level = np.linspace(1, 0, rows, dtype=np.float32)[:, None]  # 1 at the top
    x, y = np.arange(_TILE)[None, :], np.arange(rows)[:, None]
    alpha: NDArray[np.floating[Any]] | None = None
    if kind in ("hedge", "snow"):
        tone = tone * (0.6 + 0.5 * level)
        edge = 0.78 + 0.12 * wide[:1] + 0.05 * fine[:1] * (kind == "hedge")
        alpha = np.clip((edge - level) * rows * 0.5, 0, 1)
        if kind == "hedge":
            alpha = np.clip(alpha + 0.25 * fine * (level > 0.5), 0, 1)
    elif kind == "rail":
        beam, post = level > 0.4, x % (2 * _PER_METRE) < 5
        tone = tone * np.where(beam, 0.75 + 0.35 * np.cos(level * 22), 0.6)
        alpha = (beam | post).astype(np.float32)
    elif kind == "fence":
        pale = x % 9 < 5
        bar = (np.abs(level - 0.25) < 0.04) | (np.abs(level - 0.75) < 0.04)
        alpha = (pale | bar).astype(np.float32) if random.chance(0.5) else None
        tone = tone * np.where(pale, 1.0, 0.72)
    else:
        joint = x % (4 * _PER_METRE) < 2 if kind == "concrete" else x % 40 < 3
        tone = tone * np.where(joint, 0.6, 1.0) * (0.74 + 0.3 * level)
        streaks = np.clip(np.repeat(fractal(generator, _TILE, 64, 3, 0.8)[:1], rows, 0), 0, None)
        tone = tone * (1 - 0.08 * streaks * level)  # water runs down
        tone = tone * np.where(y < 3, 1.12, 1.0)
    colour = np.clip(np.array(base, np.float32) * tone[..., None], 0, 255).astype(np.uint8)
    return Wall(colour, None if alpha is None else (alpha * 255).astype(np.uint8), height)


def wall_items(random: Random, view: View, plan: Plan, walls: Mapping[str, Wall]) -> list[Item]:
    """All walls of the plan, in pieces that grow with distance."""
    items: list[Item] = []
    junction = plan.junction
    for d, kind in plan.walls:
        side = 1 if d > 0 else -1
        open_side = junction is not None and (junction.right if side > 0 else junction.left)
        light = front_light(view, side, end=False) * random.uniform(0.75, 1.1)
        high = walls[kind].height * random.uniform(0.85, 1.2)
        offset = random.integer(0, _TILE - 1)
        for start, end in pieces(START, min(view.shape.far, 240.0), junction, open_side=open_side):
            cuts = [start, *[cut for cut in _CUTS if start + 0.5 < cut < end - 0.5], end]
            items += [_piece(view, walls[kind], d, span, high, light, offset) for span in itertools.pairwise(cuts)]
    return items


def _piece(view: View, wall: Wall, d: float, s: tuple[float, float], high: float, light: Float, offset: int) -> Item:
    corners = upright(view, s, (d, d), (-0.03, high))
    middle = 0.5 * (s[0] + s[1])
    lamp = view.light_on(middle, d) - view.look.ambient
    table = lighting(view, light + 0.7 * lamp, middle)

    def draw(canvas: Canvas) -> None:
        if canvas.window(corners[:, 0].min(), corners[:, 1].min(), corners[:, 0].max(), corners[:, 1].max()) is None:
            return
        columns = (np.arange(round(s[0] * _PER_METRE), round(s[1] * _PER_METRE)) + offset) % _TILE
        step = max(1, int(len(columns) / 700))  # far pieces are long and small
        picture = cv2.LUT(wall.colour[:, columns[::step]], table)
        alpha = None if wall.alpha is None else wall.alpha[:, columns[::step]]
        textured_quad(canvas, picture, corners, alpha=alpha)

    return Item(s, (d - 0.1, d + 0.1), box_of(corners), draw)


def draw_kerbs(random: Random, canvas: Canvas, view: View, plan: Plan) -> None:
    """Faces of kerb stones."""
    junction = plan.junction
    base = np.array([132, 137, 140], np.float32) * random.uniform(0.7, 1.15)
    high = random.uniform(0.09, 0.17)
    for d, side in plan.kerbs:
        open_side = junction is not None and (junction.right if side > 0 else junction.left)
        light = front_light(view, side, end=False) * 0.9
        for start, end in pieces(START, min(view.shape.far, 120.0), junction, open_side=open_side):
            s = sampled(start, end)
            lower, _ = view.camera.project(view.shape.world(s, np.full_like(s, d), 0.0))
            upper, _ = view.camera.project(view.shape.world(s, np.full_like(s, d), high))
            lamp = view.light_along(s, np.full_like(s, d)) - view.look.ambient
            for i in range(len(s) - 1):
                quad = np.stack([upper[i], upper[i + 1], lower[i + 1], lower[i]])
                tone = base * random.uniform(0.9, 1.1) * (light + 0.6 * lamp[i])
                canvas.polygon(quad, view.look.through_air(tone, float(s[i])), KERB)
