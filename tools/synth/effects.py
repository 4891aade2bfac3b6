"""What glass, lens, weather and sensor do to the finished picture. Nothing here moves an edge by more than 2 px."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.bank import Bank
from tools.synth.canvas import BONNET, GROUND, SHIFT, Canvas, pixels
from tools.synth.randoms import Random
from tools.synth.view import View

__all__ = ["add_glows", "draw_bonnet", "finish"]

Picture = NDArray[np.uint8]
Float = NDArray[np.floating[Any]]


def draw_bonnet(random: Random, canvas: Canvas, view: View) -> None:
    """Our own car's bonnet or dashboard at the lower edge, in two scenes of three."""
    kind = random.weighted({"none": 0.36, "bonnet": 0.4, "dashboard": 0.24})
    if kind == "none":
        return
    rows, columns = canvas.rows, canvas.columns
    x = np.linspace(-0.1, 1.1, 60)
    high = random.uniform(0.035, 0.15)
    shape = 1 - random.uniform(0.25, 1.0) * np.abs(2 * x - 1 + random.normal(0, 0.12, -0.3, 0.3)) ** random.uniform(
        2, 4
    )
    edge = rows * (1 - high * (0.35 + 0.65 * shape))
    outline = np.stack([x * columns, edge], -1).astype(np.float32)
    whole = np.concatenate([outline, [[columns * 1.1, rows * 1.1], [-columns * 0.1, rows * 1.1]]]).astype(np.float32)
    mask = np.zeros(canvas.ids.shape, np.uint8)
    cv2.fillPoly(mask, [pixels(whole)], 255, cv2.LINE_AA, SHIFT)
    top = max(0, int(edge.min()) - 2)
    depth = rows - top
    look = view.look
    if kind == "dashboard":
        base = np.array([30, 30, 31], np.float32) * random.uniform(0.4, 1.4) * np.maximum(look.ambient, 0.12)
        fill = np.full((depth, columns, 3), base, np.float32)
    else:
        paint = np.array(
            random.pick([(22, 22, 22), (30, 26, 24), (110, 112, 114), (170, 172, 174), (30, 28, 110), (90, 60, 36)]),
            np.float32,
        )
        source = canvas.frame[max(0, top - 2 * depth - rows // 5) : top][::-1]
        mirrored = cv2.resize(cv2.blur(source, (31, 9)), (columns, depth)).astype(np.float32)
        fall = np.linspace(0.75, 0.15, depth, dtype=np.float32)[:, None, None] * random.uniform(0.35, 0.9)
        fill = paint * (look.ground * 0.55 + 0.5 * view.street) * (1 - 0.5 * fall) + mirrored * fall
    ripple = cv2.resize(
        random.numpy.normal(1, 0.12, (4, 9)).astype(np.float32), (columns, depth), interpolation=cv2.INTER_CUBIC
    )
    window = (slice(top, rows), slice(0, columns))
    picture = np.clip(fill * ripple[..., None], 0, 255).astype(np.uint8)
    if random.chance(0.7):  # the edge catches light or lies in shadow
        tone = tuple(float(c) for c in np.clip(picture[1, columns // 2] * random.uniform(0.3, 2.2) + 6, 0, 235))
        shifted = outline + np.array([0, 2 - top], np.float32)
        cv2.polylines(picture, [pixels(shifted)], False, tone, random.integer(1, 4), cv2.LINE_AA, SHIFT)
    if random.chance(0.3):  # vents, wiper, or a gap
        lower = outline + np.array([0, high * rows * random.uniform(0.3, 0.6) - top], np.float32)
        cv2.polylines(picture, [pixels(lower)], False, (8, 8, 8), random.integer(2, 9), cv2.LINE_AA, SHIFT)
    canvas.paste(window, picture, mask[window], BONNET)


def add_glows(canvas: Canvas, view: View) -> None:
    """Light of lamps that spills over in the lens and on wet ground, at a quarter of the size."""
    small = np.zeros((canvas.rows // 4, canvas.columns // 4, 3), np.float32)
    mirrored = np.zeros_like(small)
    for glow in canvas.lamps:
        if canvas.ids[int(glow.y), int(glow.x)] != glow.owner:
            continue
        wide = 1.0 + 0.8 * (view.look.weather in ("foggy", "rainy"))
        _spot(small, glow.x / 4, glow.y / 4, glow.radius / 4 * wide, 1.0, glow.colour)
        if view.look.wet > 0.15 and glow.below > 0:
            b, g, r = (c * 0.55 * view.look.wet for c in glow.colour)
            at = (glow.y + 1.9 * glow.below) / 4
            _spot(mirrored, glow.x / 4, at, glow.radius / 4 * 0.8, 5.0, (b, g, r))
    if mirrored.any():
        ground = canvas.ids[: small.shape[0] * 4 : 4, : small.shape[1] * 4 : 4] == GROUND
        small += mirrored * ground[..., None]
    light = np.clip(small, 0, 255).astype(np.uint8)
    light = cv2.resize(light, (canvas.columns, canvas.rows), interpolation=cv2.INTER_LINEAR)
    canvas.frame[:] = cv2.add(canvas.frame, light)


def _spot(target: Float, x: float, y: float, radius: float, tall: float, colour: tuple[float, float, float]) -> None:
    reach = max(2, int(radius * 3.2))
    high = max(2, int(reach * tall))
    rows, columns = target.shape[:2]
    y0, y1, x0, x1 = (
        max(0, int(y) - high),
        min(rows, int(y) + high + 1),
        max(0, int(x) - reach),
        min(columns, int(x) + reach + 1),
    )
    if y0 >= y1 or x0 >= x1:
        return
    dy = ((np.arange(y0, y1, dtype=np.float32) - y) / (max(radius, 0.5) * tall))[:, None]
    dx = ((np.arange(x0, x1, dtype=np.float32) - x) / max(radius, 0.5))[None]
    far = dx * dx + dy * dy
    shape = np.exp(-far * 1.6) + 0.16 / (1 + 2.5 * far) * np.clip(1 - far / 10, 0, 1)
    target[y0:y1, x0:x1] += shape[..., None] * np.array(colour, np.float32)


def finish(random: Random, frame: Picture, view: View, shared: Bank) -> Picture:
    """Glass, lens and sensor, in this order."""
    frame = _mottled(random, frame, shared)
    frame = _glass(random, frame, view, shared)
    if view.look.weather == "rainy":
        frame = _drops(random, frame)
    elif view.look.weather == "snowy" and random.chance(0.5):
        frame = _flakes(random, frame)
    frame = _lens(random, frame)
    frame = cv2.LUT(frame, _tones(random, view, float(frame[::8, ::8].mean()), _bright_ground(frame)))
    return _sensor(random, frame, view, shared)


def _mottled(random: Random, frame: Picture, shared: Bank) -> Picture:
    """A little unevenness on everything: no real surface has one colour."""
    rows, columns = frame.shape[:2]
    top, left = random.integer(0, 300), random.integer(0, 200)
    part = shared.blotch[top : top + 540, left : left + 800]
    pattern = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_LINEAR)
    strength = random.uniform(0.05, 0.16)
    factor = cv2.addWeighted(pattern, strength, pattern, 0, 128 * (1 - strength))
    return cv2.multiply(frame, cv2.merge([factor, factor, factor]), scale=1 / 128)


def _glass(random: Random, frame: Picture, view: View, shared: Bank) -> Picture:
    """Veiling light and the dashboard's mirror image in the windscreen."""
    rows, columns = frame.shape[:2]
    strength = random.uniform(0, 1) ** 2.5
    look = view.look
    if strength > 0.06 and not look.night:
        x, y = random.integer(0, 300), random.integer(0, 300)
        shapes = cv2.resize(shared.cloud[y : y + 90, x : x + 200], (columns // 4, rows // 4)).astype(np.float32)
        veil = np.clip((shapes - 90) / 160, 0, 1) * np.linspace(0.15, 1, rows // 4, dtype=np.float32)[:, None]
        tone = look.horizon * 0.16 * strength
        small = np.clip(veil[..., None] * tone, 0, 255).astype(np.uint8)
        frame = cv2.add(frame, cv2.resize(small, (columns, rows)))
    toward = look.direction
    if look.sun.any() and look.cover < 0.8 and toward[2] > 0.5 and float(toward[1]) < 0.6:
        point, _ = view.camera.project(toward * 1000 + np.array([0, view.camera.height, 0], np.float32))
        small = np.zeros((rows // 8, columns // 8, 3), np.float32)
        power = random.uniform(20, 95)
        _spot(
            small,
            float(point[0]) / 8,
            float(point[1]) / 8,
            random.uniform(18, 60) * view.camera.scale,
            1.0,
            (power * 0.8, power * 0.92, power),
        )
        frame = cv2.add(frame, cv2.resize(np.clip(small, 0, 255).astype(np.uint8), (columns, rows)))
    if random.chance(0.25):  # dirt and smears
        x, y = random.integer(0, 300), random.integer(0, 300)
        smear = cv2.resize(
            shared.dapple[y : y + 60, x : x + 107], (columns // 4, rows // 4), interpolation=cv2.INTER_CUBIC
        )
        power = random.uniform(0.03, 0.10)
        smear = cv2.resize(cv2.merge([smear, smear, smear]), (columns, rows))
        frame = cv2.addWeighted(frame, 1 - power, smear, power * (0.15 if look.night else 0.8), 0)
    return frame


def _drops(random: Random, frame: Picture) -> Picture:
    """Drops on the windscreen: each shows a small, soft, upside-down picture of what lies around it."""
    rows, columns = frame.shape[:2]
    mask = np.zeros((rows, columns), np.uint8)
    for _ in range(random.integer(10, 130)):
        centre = (random.integer(0, columns), random.integer(0, rows))
        radius = rows / 720 * random.uniform(1.5, 3.5 + 8 * random.uniform(0, 1) ** 4)
        axes = (max(1, round(radius)), max(1, round(radius * random.uniform(0.8, 1.5))))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, random.integer(110, 235), -1, cv2.LINE_AA)
    soft = cv2.resize(frame, (columns // 24, rows // 24), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(cv2.GaussianBlur(soft[::-1], (3, 3), 0), (columns, rows))
    share = cv2.GaussianBlur(mask, (3, 3), 0.8)
    share = cv2.merge([share, share, share])
    return cv2.add(cv2.multiply(frame, 255 - share, scale=1 / 255), cv2.multiply(soft, share, scale=1 / 255))


def _flakes(random: Random, frame: Picture) -> Picture:
    layer = np.zeros(frame.shape[:2], np.uint8)
    for _ in range(random.integer(60, 400)):
        size = random.uniform(0.5, 2.4) * frame.shape[0] / 720
        centre = (random.integer(0, frame.shape[1] * 16), random.integer(0, frame.shape[0] * 16))
        cv2.circle(layer, centre, round(size * 16), random.integer(30, 120), -1, cv2.LINE_AA, 4)
    return cv2.add(frame, cv2.merge([layer, layer, layer]))


def _lens(random: Random, frame: Picture) -> Picture:
    """Sharpness between a bad and a good dash camera, and the in-camera sharpening of most."""
    rows, columns = frame.shape[:2]
    scale = rows / 720
    soft = random.uniform(0.42, 0.95) * max(scale, 0.5)
    frame = cv2.GaussianBlur(frame, (0, 0), soft)
    if random.chance(0.3):
        share = random.uniform(0.5, 0.8)
        small = cv2.resize(frame, (round(columns * share), round(rows * share)), interpolation=cv2.INTER_AREA)
        frame = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR)
    if random.chance(0.25):  # a jolt during exposure, at most 3 px
        length = 3 if random.chance(0.5) and scale > 0.7 else 2
        kernel = np.ones((length, 1) if random.chance(0.6) else (1, length), np.float32) / length
        frame = cv2.filter2D(frame, -1, kernel)
    if random.chance(0.75):
        amount = random.uniform(0.3, 1.3)
        frame = cv2.addWeighted(frame, 1 + amount, cv2.GaussianBlur(frame, (0, 0), 1.6 * max(scale, 0.5)), -amount, 0)
    return frame


def _bright_ground(frame: Picture) -> float:
    """What three quarters of the lower half are darker than, 0..255."""
    return float(np.percentile(frame[frame.shape[0] // 2 :: 8, ::8].mean(axis=-1), 75))


def _tones(random: Random, view: View, brightness: float, ground: float) -> Picture:
    """Exposure, white balance, contrast and gamma as a table (1, 256, 3)."""
    values = np.arange(256, dtype=np.float32)[:, None] / 255
    # cameras measure: most of the way towards a middle brightness (those of BDD frames: day 75-130, night 13-40)
    wanted = random.uniform(15, 46) if view.look.night else random.uniform(78, 136)
    exposure = float(np.clip((wanted / max(brightness, 1.0)) ** random.uniform(0.45, 0.9), 0.45, 2.6))
    exposure = min(exposure, 190 / max(ground, 1.0))  # white paint on a road burnt out to white is in no picture
    balance = np.array([random.normal(1, 0.06, 0.85, 1.16), 1.0, random.normal(1, 0.06, 0.85, 1.16)], np.float32)
    values = values * exposure * balance
    values = np.where(values > 0.85, 0.85 + 0.16 * np.tanh((values - 0.85) / 0.16), values)  # highlights roll off
    values = np.clip(values, 0, 1) ** random.normal(1.0, 0.12, 0.72, 1.35)
    contrast = random.normal(1.02, 0.11, 0.72, 1.25)
    pivot = 0.12 if view.look.night else 0.42
    offset = random.uniform(-0.035, 0.01) if view.look.night else random.uniform(-0.015, 0.03)
    values = (values - pivot) * contrast + pivot + offset
    return np.clip(values * 255, 0, 255).astype(np.uint8)[None]


def _sensor(random: Random, frame: Picture, view: View, shared: Bank) -> Picture:
    """Vignette, colour strength and noise."""
    rows, columns = frame.shape[:2]
    if random.chance(0.6):
        y, x = np.linspace(-1, 1, rows // 8)[:, None], np.linspace(-1, 1, columns // 8)[None]
        fall = 255 * (1 - random.uniform(0.04, 0.3) * np.clip((x * x + y * y) / 2, 0, 1))
        dark = cv2.resize(fall.astype(np.uint8), (columns, rows))
        frame = cv2.multiply(frame, cv2.merge([dark, dark, dark]), scale=1 / 255)
    colour = random.normal(1.22 if view.look.night else 1.0, 0.18, 0.4, 1.5)
    if abs(colour - 1) > 0.04:
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        frame = cv2.addWeighted(frame, colour, cv2.merge([grey, grey, grey]), 1 - colour, 0)
    strength = random.uniform(0.02, 0.11) if not view.look.night else random.uniform(0.02, 0.13)
    top, left = random.integer(0, 900 - min(rows, 900)), random.integer(0, 1500 - min(columns, 1500))
    noise = shared.sensor[top : top + rows, left : left + columns]
    if noise.shape[:2] != (rows, columns):
        noise = cv2.resize(shared.sensor, (columns, rows))
    return cv2.addWeighted(frame, 1, noise, strength, -128 * strength)
