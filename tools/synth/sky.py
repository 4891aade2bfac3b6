"""Sky, clouds, sun, and what stands at the horizon."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.bank import Bank
from tools.synth.canvas import SHIFT, SKY, Canvas, pixels
from tools.synth.randoms import Random
from tools.synth.view import View

__all__ = ["draw_horizon", "draw_sky"]

Float = NDArray[np.floating[Any]]
_COARSE = 4  # the sky is soft: a sixteenth of the pixels is enough


def draw_sky(random: Random, canvas: Canvas, view: View, shared: Bank) -> None:
    """Fill the upper 68 % of the frame with sky: the ground begins at 62 % at the latest, roll included."""
    look = view.look
    rows = round(0.68 * canvas.rows)
    sink, right = view.camera.slopes(0, rows, _COARSE)
    sink, right = sink[::_COARSE], right[::_COARSE]
    rise = -sink
    up = np.clip(rise / 0.55, 0, 1)[..., None]
    sky = look.horizon + (look.zenith - look.horizon) * up ** random.uniform(0.5, 0.9)
    if look.cover > 0.02:
        high = np.maximum(rise, 0.025)
        scale = random.uniform(26, 60)
        size = shared.cloud.shape[0] - 1
        u = np.mod(right / high * scale + random.uniform(0, 500), size).astype(np.float32)
        v = np.mod(1 / high * scale + random.uniform(0, 500), size).astype(np.float32)
        shapes = cv2.remap(shared.cloud, u, v, cv2.INTER_LINEAR).astype(np.float32)
        flat = cv2.resize(shared.cloud, (sky.shape[1], sky.shape[0] * 2))[: sky.shape[0]].astype(np.float32)
        shapes = 0.75 * shapes + 0.25 * flat
        limit = 128 + (0.55 - look.cover) * 105
        alpha = np.clip((shapes - limit) / 42, 0, 1)
        body = np.clip((shapes - limit) / 130, 0, 1)
        light = look.ambient * 120 + np.maximum(look.sun, 0.12) * 165 * (1 - 0.55 * body[..., None])
        light = np.maximum(light, look.horizon * (1.0 - 0.3 * body[..., None]))
        if look.cover >= 0.99 and not look.sun.any():
            light = sky * (1.08 - 0.35 * body[..., None])
            alpha = alpha * 0.8
        if look.night:
            light = look.horizon * 1.3 * np.ones((*body.shape, 1), np.float32)
        alpha = (alpha * np.clip((rise + 0.01) * 14, 0, 1))[..., None]
        sky = sky + (np.minimum(light, 252) - sky) * alpha
    sky = sky + _sun(random, view, rise, right)
    low = np.clip(1 - rise / 0.06, 0, 1)[..., None] * 0.6
    sky = sky + (look.haze - sky) * low
    small = np.clip(sky, 0, 255).astype(np.uint8)
    canvas.frame[:rows] = cv2.resize(small, (canvas.columns, rows), interpolation=cv2.INTER_LINEAR)
    canvas.ids[:] = SKY


def _sun(random: Random, view: View, rise: Float, right: Float) -> Float:
    look = view.look
    if not look.sun.any() or look.cover > 0.9:
        return np.zeros((*rise.shape, 3), np.float32)
    toward = look.direction
    near = (right * toward[0] + rise * toward[1] + toward[2]) / np.sqrt(1 + right**2 + rise**2)
    power = random.uniform(0.5, 1.0)
    glow = np.clip(near, 0, 1) ** 24 * 50 + np.clip(near, 0, 1) ** 220 * 120 + (near > 0.9994) * 160
    return (power * glow)[..., None] * np.array([0.82, 0.95, 1.0], np.float32)


def draw_horizon(random: Random, canvas: Canvas, view: View, kind: str) -> None:
    """Hills, woods and roofs far away, in layers that fade into the haze."""
    look = view.look
    base = float(view.shape.level(np.float32(view.shape.far)))
    layers = random.integer(1, 3)
    for layer in range(layers):
        share = random.uniform(0.35, 0.75) * (1 - 0.25 * layer)
        high = random.uniform(0.012, 0.075) * (1.0 - 0.3 * layer)
        town = kind == "city" and random.chance(0.6)
        azimuth = np.linspace(-1.1, 1.1, 260).astype(np.float32)
        count = random.integer(4, 9)
        wave = np.interp(np.linspace(0, 1, 260), np.linspace(0, 1, count), random.numpy.random(count))
        if town:
            blocks = random.integer(30, 70)
            wave = 0.4 * wave + 0.6 * random.numpy.random(blocks).repeat(260 // blocks + 1)[:260]
        else:
            ripple = random.numpy.normal(0, 1, 260)
            wave = wave + 0.06 * np.convolve(ripple, np.ones(4) / 4, "same") + 0.03 * ripple
        distance = view.shape.far
        top = np.stack(
            [azimuth * distance, base + np.maximum(wave, 0.05) * high * distance, np.full(260, distance)], -1
        )
        bottom = top.copy()
        bottom[:, 1] = base - 0.08 * distance
        upper, _ = view.camera.project(top.astype(np.float32))
        lower, _ = view.camera.project(bottom.astype(np.float32))
        albedo = (
            random.pick([(80, 78, 76), (110, 108, 104)])
            if town
            else random.pick([(58, 82, 66), (70, 92, 88), (88, 84, 70)])
        )
        lit = np.array(albedo, np.float32) * (look.ambient + 0.4 * look.sun)
        colour = lit * (1 - share) + look.haze * share
        outline = np.concatenate([upper, lower[::-1]])
        cv2.fillPoly(canvas.frame, [pixels(outline)], tuple(float(c) for c in colour), cv2.LINE_AA, SHIFT)
        if look.lamps and look.night:
            _windows(random, canvas, upper)


def _windows(random: Random, canvas: Canvas, outline: Float) -> None:
    """Far lights at night."""
    for _ in range(random.integer(0, 40)):
        at = outline[random.integer(0, len(outline) - 1)]
        x, y = int(at[0]), int(at[1]) + random.integer(1, 14)
        if 0 <= x < canvas.columns and 0 <= y < canvas.rows:
            tone = random.uniform(0.3, 1.0)
            colour = random.pick([(110, 180, 220), (180, 210, 225), (70, 140, 220)])
            cv2.circle(canvas.frame, (x, y), 1, tuple(tone * c for c in colour), -1, cv2.LINE_AA)
