"""Textures that every scene shares: made once in each process from fixed seeds, so the same everywhere."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.synth.facades import Facade, make_facades
from tools.synth.noise import fractal, unit_noise
from tools.synth.people import make_people
from tools.synth.plants import Sprite, make_trees
from tools.synth.randoms import Random
from tools.synth.vehicles.models import make_vehicles
from tools.synth.vehicles.vehicle import Vehicle
from tools.synth.walls import Wall, make_walls

__all__ = ["Bank", "bank"]

_SHAPES = 1  # of the things themselves, which stay what they are while scenes change

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Bank:
    """Shared material.

    Attributes:
        grain: uint8 (1024, 1024), fine noise around 128; blotch: the same, of many sizes; both wrap around.
        cloud: uint8 (512, 512), soft shapes, wraps around.
        dapple: uint8 (512, 512), light through leaves: bright where the sun comes through; wraps around.
        sensor: uint8 (900, 1500, 3), noise around 128.
        facades, walls, trees, people, vehicles: things to stand about; walls and vehicles by kind.
    """

    grain: Picture
    blotch: Picture
    cloud: Picture
    dapple: Picture
    sensor: Picture
    facades: tuple[Facade, ...]
    walls: dict[str, Wall]
    trees: tuple[Sprite, ...]
    people: tuple[Sprite, ...]
    vehicles: dict[str, tuple[Vehicle, ...]]


@functools.lru_cache(maxsize=1)
def bank() -> Bank:
    """The bank of this process; about a second the first time."""
    random = Random(_SHAPES, 2)
    generator = random.numpy
    grain = cv2.GaussianBlur(generator.normal(0, 1, (1024, 1024)).astype(np.float32), (3, 3), 0.6)
    grain += (generator.random((1024, 1024)) > 0.985) * generator.normal(0, 2.5, (1024, 1024)).astype(np.float32)
    grain = grain / grain.std() * 34 + 128
    cloud = fractal(generator, 512, 3, 8, 0.52)
    leaves = fractal(generator, 512, 12, 5, 0.75)
    noise = generator.normal(0, 1, (900, 1500, 3)).astype(np.float32)
    noise = noise + cv2.resize(generator.normal(0, 0.7, (450, 750, 3)).astype(np.float32), (1500, 900))
    return Bank(
        np.clip(grain, 0, 255).astype(np.uint8),
        unit_noise(fractal(generator, 1024, 4, 8, 0.72), 40),
        unit_noise(cloud, 52),
        unit_noise(leaves, 90),
        np.clip(noise * 32 + 128, 0, 255).astype(np.uint8),
        make_facades(Random(_SHAPES, 3)),
        make_walls(Random(_SHAPES, 7)),
        make_trees(Random(_SHAPES, 4)),
        make_people(Random(_SHAPES, 5)),
        make_vehicles(Random(_SHAPES, 6)),
    )
