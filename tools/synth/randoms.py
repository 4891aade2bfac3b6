"""Random numbers of a scene: a function of (version, seed, split, index, purpose), never of the order of work."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

__all__ = ["VERSION", "Random", "scene_random"]

# Of the pictures: raise it whenever the same seed gives other pixels, so that no folder mixes two generators.
VERSION = 2

T = TypeVar("T")


class Random:
    """The few kinds of draws that scenes need, on one numpy generator."""

    def __init__(self, *key: int) -> None:
        self._key = key
        self.numpy = np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(key))))

    def child(self, purpose: str) -> Random:
        """An independent stream: what one part draws does not change another."""
        return Random(*self._key, zlib.crc32(purpose.encode()))

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return float(self.numpy.uniform(low, high))

    def normal(self, mean: float, deviation: float, low: float, high: float) -> float:
        """A normal number, clipped."""
        return float(np.clip(self.numpy.normal(mean, deviation), low, high))

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high], both included."""
        return int(self.numpy.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.numpy.random() < probability)

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self.chance(0.5) else -1

    def pick(self, values: Sequence[T]) -> T:
        """One of them, all equally likely."""
        return values[int(self.numpy.integers(len(values)))]

    def toned(self, colour: Sequence[float], low: float, high: float) -> tuple[float, float, float]:
        """A colour times one factor in [low, high): the hue stays."""
        factor = self.uniform(low, high)
        b, g, r = (min(255.0, value * factor) for value in colour)
        return b, g, r

    def painted(self, low: float, high: float) -> tuple[float, float, float]:
        """A colour as people paint things: mostly near grey, seldom loud."""
        grey, loud = self.uniform(low, high), self.uniform(0.05, 1.0) ** 2 * 0.6
        b, g, r = (float(grey + loud * (value - grey)) for value in self.numpy.uniform(low, high, 3))
        return b, g, r

    def weighted(self, weights: Mapping[T, float]) -> T:
        """A key, as likely as its weight."""
        keys, values = list(weights), np.array(list(weights.values()))
        return keys[int(np.searchsorted(np.cumsum(values), self.numpy.random() * values.sum(), side="right"))]


def scene_random(seed: int, split: str, index: int) -> Random:
    """The stream of one scene."""
    return Random(VERSION, seed, zlib.crc32(split.encode()), index)
