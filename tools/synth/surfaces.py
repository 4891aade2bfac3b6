"""Flat things with a texture: fronts, walls, signs, and sprites that face us."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.canvas import SHIFT, STATIC, Canvas, pixels
from tools.synth.plants import Sprite
from tools.synth.view import View

__all__ = ["lighting", "paste_sprite", "textured_quad"]

Float = NDArray[np.floating[Any]]
Picture = NDArray[np.uint8]


def lighting(view: View, light: Float, distance: float) -> Picture:
    """A table (1, 256, 3) from albedo to the colour seen: lit by `light` and faded by distance."""
    share = float(view.look.fade(distance))
    values = np.arange(256, dtype=np.float32)[:, None] * light * (1 - share) + view.look.haze * share
    return np.clip(values, 0, 255).astype(np.uint8)[None]


def textured_quad(
    canvas: Canvas, picture: Picture, corners: Float, owner: int = STATIC, alpha: Picture | None = None
) -> None:
    """A picture between four corners (upper left, upper right, lower right, lower left), pixels."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    window = canvas.window(low[0], low[1], high[0], high[1])
    if window is None:
        return
    rows, columns = window
    h, w = picture.shape[:2]
    # shrink first: warping alone would skip texels and glitter
    wide = max(np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[2] - corners[3]))
    tall = max(np.linalg.norm(corners[3] - corners[0]), np.linalg.norm(corners[2] - corners[1]))
    size = (int(np.clip(wide, 2, w)), int(np.clip(tall, 2, h)))
    if size != (w, h):
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        alpha = None if alpha is None else cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    inside = corners - np.array([columns.start, rows.start], np.float32)
    source = np.array([(0, 0), (size[0], 0), (size[0], size[1]), (0, size[1])], np.float32)
    matrix = cv2.getPerspectiveTransform(source, inside.astype(np.float32))
    shape = (columns.stop - columns.start, rows.stop - rows.start)
    warped = cv2.warpPerspective(picture, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if alpha is not None:
        mask = cv2.warpPerspective(alpha, matrix, shape, flags=cv2.INTER_LINEAR)
    else:
        mask = np.zeros((shape[1], shape[0]), np.uint8)
        cv2.fillConvexPoly(mask, pixels(inside), 255, cv2.LINE_AA, SHIFT)
    canvas.paste(window, warped, mask, owner)


def paste_sprite(
    canvas: Canvas,
    sprite: Sprite,
    table: Picture,
    foot: tuple[float, float],
    height: float,
    owner: int = STATIC,
    *,
    flip: bool = False,
    detail: Picture | None = None,
) -> None:
    """A sprite whose lower middle stands at `foot`, `height` pixels high; `detail` is noise for magnified ones."""
    h, w = sprite.alpha.shape
    scale = height / h
    x0, y0 = foot[0] - w * scale / 2, foot[1] - height
    window = canvas.window(x0, y0, x0 + w * scale - 1, foot[1])
    if window is None or height < 2:
        return
    rows, columns = window
    size = (columns.stop - columns.start, rows.stop - rows.start)
    colour, alpha = sprite.colour, sprite.alpha
    if flip:
        colour, alpha = np.ascontiguousarray(colour[:, ::-1]), alpha[:, ::-1]
    magnified = scale > 0.9
    if scale >= 0.75:  # light where there are fewer pixels
        colour = cv2.LUT(colour, table)
    else:
        small = (max(1, round(w * scale)), max(1, round(height)))
        colour = cv2.resize(colour, small, interpolation=cv2.INTER_AREA)
        colour = cv2.LUT(colour, table)
        alpha = cv2.resize(alpha, small, interpolation=cv2.INTER_AREA)
        scale = 1.0
    matrix = np.array([[scale, 0, x0 - columns.start], [0, scale, y0 - rows.start]], np.float32)
    colour = cv2.warpAffine(colour, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(alpha, matrix, size, flags=cv2.INTER_LINEAR)
    if magnified and detail is not None:
        colour, alpha = _detailed(colour, alpha, detail)
    canvas.paste(window, colour, alpha, owner)


def _detailed(colour: Picture, alpha: Picture, detail: Picture) -> tuple[Picture, Picture]:
    """Leaves where magnification has left smooth patches: frayed rims and uneven light."""
    rows, columns = alpha.shape
    side = max(256, -(-max(rows, columns) // 2))
    noise = cv2.resize(detail[:side, :side], (side * 2, side * 2), interpolation=cv2.INTER_LINEAR)[:rows, :columns]
    uneven = cv2.addWeighted(noise, 0.9, noise, 0, 128 * 0.1)
    frayed = cv2.addWeighted(alpha, 1.5, noise, 3.2, -128 * 3.2 - 64)
    frayed[round(0.66 * rows) :] = alpha[round(0.66 * rows) :]  # the trunk
    inside = cv2.compare(alpha, 12, cv2.CMP_GT)
    return cv2.multiply(colour, cv2.merge([uneven, uneven, uneven]), scale=1 / 128), cv2.bitwise_and(frayed, inside)
