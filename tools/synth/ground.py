"""The ground: every pixel below the horizon gets its place on the road, its material, texture and light."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.bank import Bank
from tools.synth.camera import GroundMaps
from tools.synth.canvas import GROUND, SHIFT, Canvas, pixels
from tools.synth.markings import START, draw_paint, stripe
from tools.synth.plan import OUTER, Plan
from tools.synth.randoms import Random
from tools.synth.view import View

__all__ = ["draw_ground"]

Float = NDArray[np.floating[Any]]
_STEP = 0.025  # metres of one table entry
_LEVELS = 7  # each averages twice the width of the one before: 2.5 cm to 1.6 m
_ROAD = 1  # in the table of drivable ground


def draw_ground(
    random: Random, canvas: Canvas, view: View, plan: Plan, shared: Bank, below: list[Float], cast: list[Float]
) -> tuple[GroundMaps, NDArray[np.uint8]]:
    """Paint the ground.

    Args:
        below, cast: outlines in the picture, (n, 2): of ground under vehicles, and of shadows of the sun.

    Returns:
        the maps, and a mask uint8 (rows, columns) of 0 and 255: road that we may drive on.
    """
    maps = view.camera.ground(view.shape)
    colours, drivable = _tables(random, plan, view)
    index = np.clip((maps.d + OUTER) * (1 / _STEP), 0, 2 * OUTER / _STEP - 1).astype(np.int32)
    road = drivable[index]
    index = _side_roads(index, maps, plan)
    row_s = np.median(maps.s[:, :: max(1, maps.s.shape[1] // 16)], axis=1)
    level = np.clip(np.log2(np.maximum(row_s / view.camera.focal * 1.5 / _STEP, 1)).astype(np.int32), 0, _LEVELS - 1)
    flat = colours.reshape(-1).view(np.uint32)
    packed = flat[index + (level * colours.shape[1])[:, None]].view(np.uint8).reshape(*index.shape, 4)
    gain = _texture(random, maps, packed[..., 3], shared, row_s)
    _details(random, gain, view, plan, maps)
    shade = _shade(random, view, plan, maps, shared, below, cast)
    surface = packed[..., :3].astype(np.float32) * gain[..., None]
    surface = _marked(random, surface, view, plan, maps, shared, canvas)
    light = _light(view, maps, shade)
    surface *= light
    if view.look.wet > 0:
        surface = _wet(surface, view, maps, shared, packed[..., 3])
    fade = (1 - np.exp(maps.s * np.float32(-1 / view.look.visibility)))[..., None]
    surface += (view.look.haze - surface) * fade
    target = canvas.frame[maps.top :]
    whole = np.clip(surface, 0, 255).astype(np.uint8)
    cv2.copyTo(whole, maps.seen.astype(np.uint8), target)
    canvas.ids[maps.top :][maps.seen] = GROUND
    mask = np.zeros(canvas.ids.shape, np.uint8)
    mask[maps.top :] = road * (maps.seen & (maps.s < view.shape.far)).astype(np.uint8) * 255
    return maps, mask


_KINDS = {  # BGR in white light, variation, texture strength
    "road": ((104, 104, 103), 0.28, 90),
    "against": ((104, 104, 103), 0.28, 90),
    "shoulder": ((104, 105, 106), 0.28, 110),
    "parking": ((100, 100, 99), 0.28, 100),
    "pavement": ((140, 148, 153), 0.15, 60),
    "verge": ((62, 104, 96), 0.3, 165),
}


def _tables(random: Random, plan: Plan, view: View) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colour and texture strength over d, uint8 (levels, n, 4), and drivable ground, uint8 (n)."""
    count = int(2 * OUTER / _STEP)
    centre = (np.arange(count) + 0.5) * _STEP - OUTER
    table = np.zeros((count, 4), np.float32)
    drivable = np.zeros(count, np.uint8)
    tone = random.normal(1.0, 0.22, 0.55, 1.25)  # old asphalt is light, new is dark; paint shows on all of it
    warm = random.normal(0, 0.035, -0.08, 0.08)
    grass = random.pick([(52, 84, 74), (62, 96, 92), (108, 134, 146), (84, 104, 110), (46, 72, 60)])
    for strip in plan.strips:
        base, vary, strength = _KINDS[strip.kind]
        colour = np.array(grass if strip.kind == "verge" else base, np.float32)
        if strip.kind in ("pavement", "verge"):
            colour = colour * random.uniform(1 - vary, 1 + vary)
            if view.look.snow:
                share = 0.92 * view.look.snow * (1.0 if strip.kind == "verge" else 0.8)
                colour = colour * (1 - share) + np.array([228, 224, 220], np.float32) * share
        else:
            same = strip.kind in ("road", "against") or random.chance(0.6)
            colour = colour * tone * (1.0 if same else random.uniform(0.75, 1.3)) * np.array([1 - warm, 1, 1 + warm])
        inside = (centre >= strip.left) & (centre < strip.right)
        table[inside, :3], table[inside, 3] = colour, strength
        if strip.kind == "road":
            drivable[inside] = _ROAD
    wheel = random.normal(-0.02, 0.06, -0.16, 0.10)
    oil = random.uniform(0, 0.12)
    for lane in plan.lanes:
        across = (centre - lane.centre) / (lane.width / 2)
        inside = np.abs(across) < 1
        tracks = np.exp(-(((np.abs(across) - 0.48) / 0.2) ** 2)) * wheel - np.exp(-((across / 0.25) ** 2)) * oil
        table[inside, :3] *= (1 + tracks[inside])[:, None]
        if view.look.snow > 0.5:  # slush between the tracks
            slush = 0.45 * view.look.snow * np.clip(1 - 2.2 * np.exp(-(((np.abs(across) - 0.48) / 0.22) ** 2)), 0, 1)
            table[inside, :3] += (190 - table[inside, :3]) * slush[inside][:, None]
    for d, _ in plan.kerbs:
        inside = np.abs(centre - d) < 0.22
        table[inside, :3] = table[inside, :3] * 0.35 + np.array([150, 154, 156]) * 0.65 * random.uniform(0.8, 1.1)
        gutter = (np.abs(centre - d) < 0.6) & ~inside
        table[gutter, :3] *= 0.88
    levels = []
    for level in range(_LEVELS):
        width = 2**level
        smooth = cv2.blur(table[None], (width, 1))[0] if width > 1 else table
        levels.append(np.clip(smooth, 0, 255))
    return np.ascontiguousarray(np.stack(levels).astype(np.uint8)), drivable


def _side_roads(index: NDArray[np.int32], maps: GroundMaps, plan: Plan) -> NDArray[np.int32]:
    """Colours of the crossing road: those of our own."""
    junction = plan.junction
    if junction is None:
        return index
    inside = (maps.s > junction.start) & (maps.s < junction.end)
    middle = np.int32((plan.right - 0.5 + OUTER) / _STEP)
    if junction.left:
        index = np.where(inside & (maps.d < plan.paved_left + 0.6), middle, index)
    if junction.right:
        index = np.where(inside & (maps.d > plan.paved_right - 0.6), middle, index)
    return index


def _texture(random: Random, maps: GroundMaps, strength: NDArray[np.uint8], shared: Bank, row_s: Float) -> Float:
    """Brightness factor of the surface's texture, around 1."""
    a, b = random.uniform(0, 500), random.uniform(0, 500)
    fine = _grain(shared.grain, maps, random.uniform(80, 150), a, b)
    coarse = _sample(shared.blotch, maps, 9.0, b, a)
    stretched = _sample(shared.blotch, maps, 40.0, a, b, along=0.04)  # wear runs along the road
    near = (random.uniform(0.2, 0.85) * np.exp(-row_s / 16.0))[:, None].astype(np.float32)
    middle = (random.uniform(0.25, 0.8) * np.exp(-row_s / 120.0))[:, None].astype(np.float32)
    streak = (random.uniform(0.0, 0.55) * np.exp(-row_s / 60.0))[:, None].astype(np.float32)
    power = strength.astype(np.float32) * np.float32(1 / 90 / 128)
    return 1 + power * ((fine - 128) * near + (coarse - 128) * middle + (stretched - 128) * streak * 0.5)


def _sample(
    texture: NDArray[np.uint8], maps: GroundMaps, per_metre: float, a: float, b: float, along: float = 1.0
) -> Float:
    """A soft texture over the ground, float32 (rows, columns) of 0..255, from every second row and column."""
    size = texture.shape[0]
    x = np.mod(maps.d[::2, ::2] * np.float32(per_metre) + np.float32(a), np.float32(size - 1))
    y = np.mod(maps.s[::2, ::2] * np.float32(per_metre * along) + np.float32(b), np.float32(size - 1))
    small = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    wide = (maps.s.shape[1], maps.s.shape[0])
    return cv2.resize(small, wide, interpolation=cv2.INTER_LINEAR).astype(np.float32)


def _grain(texture: NDArray[np.uint8], maps: GroundMaps, per_metre: float, a: float, b: float) -> Float:
    """A texture as fine as pixels, without interpolation: its size must be a power of two."""
    last = texture.shape[0] - 1
    x = (maps.d * np.float32(per_metre) + np.float32(a)).astype(np.int32) & last
    y = (maps.s * np.float32(per_metre) + np.float32(b)).astype(np.int32) & last
    return texture.reshape(-1)[y * texture.shape[0] + x].astype(np.float32)


def _details(random: Random, gain: Float, view: View, plan: Plan, maps: GroundMaps) -> None:
    """Patches, joints, cracks, manholes and tyre marks: factors into `gain`."""
    layer = np.full(gain.shape, 128, np.uint8)
    shift = np.array([0, -maps.top], np.float32)
    span = (plan.paved_left, plan.paved_right)

    def fill(points: Float, value: float) -> None:
        cv2.fillPoly(layer, [pixels(points + shift)], 128 * value, cv2.LINE_AA, SHIFT)

    for _ in range(random.integer(0, 5)):
        s, length = random.uniform(3, 50), random.uniform(1, 14)
        fill(stripe(view, random.uniform(*span), random.uniform(0.5, 3.4), s, s + length), random.uniform(0.68, 1.22))
    if random.chance(0.25):
        step = random.uniform(4, 9)
        for s in np.arange(random.uniform(2, 6), 70, step):
            fill(stripe(view, sum(span) / 2, span[1] - span[0], float(s), float(s) + 0.05), 0.72)
    for _ in range(random.integer(0, 9)):
        s, d = random.uniform(3, 30), random.uniform(*span)
        steps = random.integer(4, 12)
        turn = random.numpy.normal(0, 0.22, (steps, 2)).cumsum(axis=0)
        along = np.linspace(0, random.uniform(-8, 8), steps)
        path_s = np.maximum(s + along + turn[:, 0], START).astype(np.float32)
        path, _ = view.project(path_s, (d + turn[:, 1] + 0.2 * along).astype(np.float32))
        wide = max(1, round(0.03 * view.camera.focal / s))
        cv2.polylines(layer, [pixels(path + shift)], False, 128 * random.uniform(0.5, 0.8), wide, cv2.LINE_AA, SHIFT)
    for _ in range(random.integer(0, 2)):
        angle = np.linspace(0, 2 * np.pi, 20).astype(np.float32)
        s, d = random.uniform(6, 30), random.uniform(*span)
        fill(view.project(s + 0.35 * np.sin(angle), d + 0.35 * np.cos(angle))[0], random.uniform(0.5, 0.75))
    if random.chance(0.25):
        s, d = random.uniform(4, 20), random.uniform(*span)
        for offset in (-0.75, 0.75):
            fill(stripe(view, d + offset, 0.2, s, s + random.uniform(6, 30)), random.uniform(0.72, 0.9))
    layer = cv2.GaussianBlur(layer, (3, 3), 0.8)
    gain *= layer.astype(np.float32) * np.float32(1 / 128)


def _shade(
    random: Random, view: View, plan: Plan, maps: GroundMaps, shared: Bank, under: list[Float], outlines: list[Float]
) -> Float:
    """Share of the light in the open that is left, (rows, columns)."""
    rows, columns = maps.s.shape
    shift = np.array([0, -maps.top], np.float32)
    cast = np.zeros((rows, columns), np.uint8)
    if view.look.sun.any():
        if view.shade:
            cast[:] = 255
        for _ in range(random.integer(0, 4)):  # buildings and poles
            s, wide = random.uniform(2, 70), random.uniform(0.2, 14)
            side, slant = random.sign(), random.uniform(-8, 8)
            reach = random.uniform(plan.paved_left, plan.paved_right + 5)
            edge = side * 40.0
            corners = np.array([(s, reach), (s + wide, reach), (s + wide + slant, edge), (s + slant, edge)], np.float32)
            corners[:, 0] = np.maximum(corners[:, 0], START)
            cv2.fillPoly(cast, [pixels(view.project(corners[:, 0], corners[:, 1])[0] + shift)], 255, cv2.LINE_AA, SHIFT)
        if random.chance(0.4):
            light = _sample(shared.dapple, maps, random.uniform(14, 34), random.uniform(0, 500), random.uniform(0, 500))
            trees = _sample(shared.cloud, maps, random.uniform(6, 14), random.uniform(0, 500), random.uniform(0, 500))
            leaf = np.clip((trees - random.uniform(120, 170)) * 8, 0, 255) * np.clip((light - 96) * 0.03 + 0.35, 0, 1)
            cv2.max(cast, np.clip(leaf, 0, 255).astype(np.uint8), dst=cast)
        for outline in outlines:
            cv2.fillPoly(cast, [pixels(outline + shift)], 255, cv2.LINE_AA, SHIFT)
        cast = cv2.GaussianBlur(cast, (5, 5), 1.2)
    below = np.zeros((rows, columns), np.uint8)
    for outline in under:
        cv2.fillPoly(below, [pixels(outline + shift)], 255, cv2.LINE_AA, SHIFT)
    if under:
        below = cv2.GaussianBlur(below, (0, 0), 2.5 * view.camera.scale)
    dark = below.astype(np.float32) * np.float32(0.62 / 255)
    missing = cast.astype(np.float32) * np.float32((1 - view.look.shadow) / 255)
    return (1 - missing) * (1 - dark)


def _marked(
    random: Random, surface: Float, view: View, plan: Plan, maps: GroundMaps, shared: Bank, canvas: Canvas
) -> Float:
    """Paint over the surface, worn by a noise threshold."""
    white, yellow = draw_paint(random, view, plan, canvas.rows, canvas.columns)
    wear = random.uniform(60, 125) if random.chance(0.6) else random.uniform(100, 150)
    for cover, colour in (
        (white, (212, 215, 216)),
        (yellow, random.pick([(60, 165, 210), (75, 185, 215), (45, 140, 190)])),
    ):
        cover = cover[maps.top :]
        ys, xs = np.nonzero(cover)
        if not len(ys):
            continue
        u = (maps.d[ys, xs] * 130).astype(np.int32) & 1023
        v = (maps.s[ys, xs] * 60).astype(np.int32) & 1023
        noise = shared.blotch[v, u].astype(np.float32)
        left = np.clip((noise - wear) * 0.035 + 1.0, 0.3, 1)
        alpha = (cover[ys, xs] * left * np.float32(random.uniform(0.8, 0.97) / 255) * (1 - 0.5 * view.look.snow))[
            :, None
        ]
        tone = np.array(colour, np.float32) * random.uniform(0.82, 1.08)
        under = surface[ys, xs]
        surface[ys, xs] = under + (tone * (0.94 + 0.06 * noise / 128)[:, None] - under) * alpha
    return surface


def _light(view: View, maps: GroundMaps, shade: Float) -> Float:
    """BGR factors on the ground, (rows, columns, 3)."""
    look = view.look
    light = shade[..., None] * look.ground
    if not look.lamps:
        return light
    top, step = maps.s[::4, ::4], (maps.s.shape[1], maps.s.shape[0])
    beam = view.beam_at(top, maps.x[::4, ::4])
    lamps = beam[..., None] * np.array([0.92, 1.0, 1.02], np.float32)
    if view.street.any():
        lamps = lamps + view.street_at(top, maps.d[::4, ::4])[..., None] * view.street
    return (
        light
        + cv2.resize(lamps.astype(np.float32), step, interpolation=cv2.INTER_LINEAR)
        * np.minimum(shade * 1.4, 1)[..., None]
    )


def _wet(surface: Float, view: View, maps: GroundMaps, shared: Bank, strength: NDArray[np.uint8]) -> Float:
    """Water darkens the ground and mirrors the sky, more so far away; puddles more than the rest."""
    puddles = np.clip((_sample(shared.cloud, maps, 24.0, 40.0, 90.0) - 118) * 0.03, 0, 1)
    smooth = np.where(strength < 150, np.float32(1), np.float32(0.25))
    grazing = np.clip((maps.s - 3) / 45, 0.05, 0.75)
    share = view.look.wet * smooth * grazing * (0.45 + 0.55 * puddles)
    sky = view.look.horizon * 0.62 + view.look.zenith * 0.1
    surface = surface * (1 - 0.38 * view.look.wet * smooth)[..., None]
    return surface + (sky - surface) * share[..., None]
