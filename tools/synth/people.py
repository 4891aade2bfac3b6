"""Pedestrians and cyclists as sprites."""

from __future__ import annotations

import cv2
import numpy as np

from tools.synth.plants import Sprite
from tools.synth.randoms import Random

__all__ = ["make_people"]

H, W = 240, 120


def make_people(random: Random) -> tuple[Sprite, ...]:
    """People who stand or walk, and riders from behind."""
    return tuple(_person(random.child(f"person {i}"), rides=i % 5 == 4) for i in range(20))


def _person(random: Random, *, rides: bool) -> Sprite:
    colour, alpha = np.zeros((H, W, 3), np.uint8), np.zeros((H, W), np.uint8)

    def limb(points: list[tuple[float, float]], width: float, paint: tuple[float, ...]) -> None:
        corners = (np.array(points, np.float32) * 16).astype(np.int32)
        for target, value in ((colour, paint), (alpha, (255,))):
            cv2.polylines(target, [corners], False, value, max(1, round(width)), cv2.LINE_AA, 4)

    def cloth() -> tuple[float, ...]:
        base = random.pick([(40, 35, 32), (110, 70, 45), (60, 60, 150), (190, 190, 195), (70, 95, 60), (30, 30, 35)])
        return random.toned(base, 0.6, 1.2)

    skin = random.pick([(120, 150, 200), (80, 110, 160), (50, 70, 105)])
    top, legs = cloth(), cloth()
    middle, hip, shoulder, head = W / 2, 118.0, 52.0, 24.0
    if rides:
        frame, tyre = cloth(), (25, 25, 25)
        limb([(middle, 150), (middle, 236)], 9, tyre)
        limb([(middle - 26, 112), (middle + 26, 112)], 5, frame)
        limb([(middle, 110), (middle, 160)], 6, frame)
    stride = random.uniform(0, 17)
    bend = 190 if rides else 234
    for side in (-1, 1):
        knee = (middle + side * (8 + stride * 0.6), (hip + bend) / 2)
        limb([(middle + side * 9, hip), knee, (middle + side * (8 + stride), bend)], 17, legs)
        limb([(middle + side * (8 + stride), bend - 2), (middle + side * (11 + stride), bend)], 11, (30, 30, 32))
    limb([(middle, shoulder + 8), (middle, hip - 4)], 38, top)
    limb([(middle - 15, shoulder), (middle + 15, shoulder)], 17, top)
    for side in (-1, 1):
        hand = (middle + side * (24 + random.uniform(-4, 9)), 112.0 - random.uniform(0, 12))
        limb([(middle + side * 19, shoulder + 2), (middle + side * 25, 84), hand], 12, top)
        limb([hand, (hand[0], hand[1] + 6)], 8, skin)
    cv2.ellipse(colour, (W // 2, int(head)), (12, 16), 0, 0, 360, skin, -1, cv2.LINE_AA)
    cv2.ellipse(alpha, (W // 2, int(head)), (12, 16), 0, 0, 360, 255, -1, cv2.LINE_AA)
    hair = random.toned((30.0, 40.0, 55.0), 0.3, 1.4)
    cv2.ellipse(colour, (W // 2, int(head) - 2), (13, 16), 0, 170, 370, hair, -1, cv2.LINE_AA)
    shade = np.linspace(1.12, 0.72, W, dtype=np.float32)[None, :, None]  # light from one side
    shade = shade if random.chance(0.5) else shade[:, ::-1]
    noise = random.numpy.normal(1, 0.05, (H, W, 1)).astype(np.float32)
    lit = np.clip(colour * shade * noise, 0, 255).astype(np.uint8)
    height = random.uniform(1.55, 1.95) * (1.05 if rides else 1.0)
    return Sprite("rider" if rides else "person", lit, alpha, height)
