"""The vehicles of a world."""

from __future__ import annotations

from tools.synth.randoms import Random
from tools.synth.vehicles.cars import STYLES, make_car
from tools.synth.vehicles.heavy import make_bus, make_truck
from tools.synth.vehicles.vehicle import Vehicle

__all__ = ["make_vehicles"]


def make_vehicles(random: Random) -> dict[str, tuple[Vehicle, ...]]:
    """Cars (with pick-ups and vans), trucks and buses."""
    styles = [style for style, count in STYLES.items() for _ in range(count)]
    return {
        "car": tuple(make_car(random.child(f"car {i}"), style) for i, style in enumerate(styles)),
        "truck": tuple(make_truck(random.child(f"truck {i}"), long=i % 3 == 2) for i in range(12)),
        "bus": tuple(make_bus(random.child(f"bus {i}")) for i in range(6)),
    }
