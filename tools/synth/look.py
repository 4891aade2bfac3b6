"""Weather, time of day and light of a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.synth.randoms import Random

__all__ = ["Look", "bgr", "sample_look"]

Float = NDArray[np.floating[Any]]


def bgr(*values: float) -> Float:
    """A colour, blue green red, 0..255."""
    return np.array(values, np.float32)


@dataclass(frozen=True)
class Look:
    """What light and weather do to every surface: colour = albedo * (ambient + sun * max(0, n . direction)).

    Attributes:
        time: "daytime", "dawn/dusk" or "night"; weather: BDD's word for it.
        ambient, sun: BGR factors.
        direction: towards the sun or moon, world axes.
        zenith, horizon: sky colours, BGR 0..255, before exposure.
        haze: colour that distance fades to; visibility: metres at which 63 % of a colour is gone.
        wet: 0..1; snow: 0..1, how much of verges and pavements is white.
        lamps: lamps and headlights are on.
        cover: share of clouds, 0..1.
    """

    time: str
    weather: str
    ambient: Float
    sun: Float
    direction: Float
    zenith: Float
    horizon: Float
    haze: Float
    visibility: float
    wet: float
    snow: float
    lamps: bool
    cover: float

    @property
    def night(self) -> bool:
        """Lamps, not the sky, make the light."""
        return self.time == "night"

    @property
    def ground(self) -> Float:
        """Light that falls on level ground in the open."""
        return self.ambient + self.sun * max(float(self.direction[1]), 0.0)

    @property
    def shadow(self) -> float:
        """What is left of the ground's light where the sun is hidden."""
        return float(self.ambient.mean() / self.ground.mean())

    def fade(self, distance: Float | float) -> Float:
        """Share of haze in a colour at this distance."""
        return np.asarray(1.0 - np.exp(-np.asarray(distance, np.float32) / self.visibility), np.float32)

    def through_air(self, colour: Float, distance: float) -> Float:
        """A lit colour (..., 3) as seen from this distance."""
        share = float(self.fade(distance))
        return colour * (1 - share) + self.haze * share


_WEATHER = {
    "daytime": {"clear": 0.44, "partly cloudy": 0.2, "overcast": 0.18, "rainy": 0.08, "snowy": 0.06, "foggy": 0.04},
    "dawn/dusk": {"clear": 0.4, "partly cloudy": 0.3, "overcast": 0.15, "rainy": 0.1, "foggy": 0.05},
    "night": {"clear": 0.7, "overcast": 0.08, "rainy": 0.15, "snowy": 0.05, "foggy": 0.02},
}


def sample_look(random: Random) -> Look:
    """Day, dusk and night in about BDD's shares."""
    time = random.weighted({"daytime": 0.58, "dawn/dusk": 0.12, "night": 0.30})
    weather = random.weighted(_WEATHER[time])
    azimuth = random.uniform(-math.pi, math.pi)
    elevation = math.radians(random.uniform(4, 14) if time == "dawn/dusk" else random.uniform(18, 70))
    direction = bgr(
        math.sin(azimuth) * math.cos(elevation), math.sin(elevation), math.cos(azimuth) * math.cos(elevation)
    )
    dull = weather in ("overcast", "rainy", "snowy", "foggy")
    wet = random.uniform(0.4, 1.0) if weather == "rainy" else (random.uniform(0.1, 0.6) if weather == "snowy" else 0.0)
    if weather == "clear" and random.chance(0.06):
        wet = random.uniform(0.2, 0.6)
    snow = random.uniform(0.4, 1.0) if weather == "snowy" else 0.0
    cover = {"clear": random.uniform(0, 0.25), "partly cloudy": random.uniform(0.35, 0.7)}.get(weather, 1.0)
    sees = {"foggy": random.uniform(45, 160), "rainy": random.uniform(180, 600), "snowy": random.uniform(150, 700)}
    visibility = sees.get(weather, random.uniform(700, 4000))
    if time == "night":
        return _night(random, weather, direction, visibility, wet, snow, cover)
    warm = random.uniform(-0.06, 0.10) + (0.16 if time == "dawn/dusk" else 0.0)
    power = 1.0 if time == "daytime" else random.uniform(0.35, 0.75)
    if dull:
        grey = random.uniform(160, 250) * power
        tint = bgr(1.05, 1.0, 0.97) * random.uniform(0.97, 1.03)
        zenith, horizon = grey * 0.86 * tint, grey * 1.06 * tint
        ambient, sun = power * random.uniform(0.72, 1.08) * bgr(1.03, 1.0, 0.97), np.zeros(3, np.float32)
    else:
        deep = random.uniform(0.55, 1.0)
        zenith = power * (deep * bgr(190, 120, 62) + (1 - deep) * bgr(225, 190, 150))
        horizon = power * bgr(235, 218, 200) * random.uniform(0.85, 1.05)
        if time == "dawn/dusk":
            horizon = random.uniform(0.7, 1.1) * bgr(125, 165, 225) * (0.5 + 0.5 * power)
        strength = random.uniform(0.45, 0.85) * (power if time == "daytime" else 0.6 * power)
        ambient = power * random.uniform(0.34, 0.58) * bgr(1.12, 1.0, 0.92)
        sun = strength * bgr(1 - 2 * warm, 1 - 0.4 * warm, 1 + warm) / max(0.45, float(direction[1]))
    haze = 0.8 * horizon + 0.2 * zenith
    lamps = time == "dawn/dusk" or (weather in ("rainy", "foggy") and random.chance(0.7)) or random.chance(0.08)
    return Look(
        time,
        weather,
        _f(ambient),
        _f(sun),
        direction,
        _f(np.minimum(zenith, 252)),
        _f(np.minimum(horizon, 252)),
        _f(np.minimum(haze, 245)),
        visibility,
        wet,
        snow,
        lamps,
        cover,
    )


def _night(
    random: Random, weather: str, direction: Float, visibility: float, wet: float, snow: float, cover: float
) -> Look:
    dark = random.uniform(0.06, 0.17)
    city = random.uniform(0, 1)  # glow of the town in the sky
    tint = (1 - city) * bgr(1.35, 1.0, 0.85) + city * bgr(0.8, 1.0, 1.2)
    zenith = dark * 45 * bgr(1.5, 1.0, 0.8)
    horizon = dark * (60 + 110 * city) * tint
    return Look(
        "night",
        weather,
        _f(dark * tint),
        np.zeros(3, np.float32),
        direction,
        _f(zenith),
        _f(horizon),
        _f(horizon * 0.9),
        min(visibility, 900.0),
        wet,
        snow,
        True,
        cover,
    )


def _f(value: Float) -> Float:
    return np.asarray(value, np.float32)
