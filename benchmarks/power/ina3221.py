"""Power rails of a Jetson from the files of its INA3221 monitors: no root needed from JetPack 5 on, no program started.

Two drivers have existed. Up to JetPack 4 an industrial I/O device names its rails in `rail_name_0` to `rail_name_2` and
tells milliwatts (`in_power0_input`). Since JetPack 5 a hardware monitor labels channels 1 to 3 (`in1_label`) and tells
millivolts and milliamperes; channel 7 is a sum of shunt voltages, not a rail. Thor adds an INA238 at its supply, whose
driver tells microwatts (`power1_input`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.power.reading import Reading, Unit, Unreadable, total_rails
from runtimes.sysfs import Tree

__all__ = ["Ina3221", "find_rails"]

# The chips convert every few milliseconds and six reads over I2C take about as long: faster would load the bus.
INTERVAL_S = 0.05
_CHANNELS = (1, 2, 3)
_HWMON = ("sys/bus/i2c/devices/*/hwmon/hwmon*", "sys/bus/i2c/drivers/ina*/*/hwmon/hwmon*", "sys/class/hwmon/hwmon*")
_IIO = ("sys/bus/i2c/drivers/ina3221x/*/iio:device*", "sys/bus/i2c/devices/*/iio:device*")
_UNUSED = ("", "NC")


@dataclass(frozen=True)
class _Rail:
    """Files whose numbers, multiplied with each other and `scale`, are watts."""

    files: tuple[Path, ...]
    scale: float

    def watts(self, tree: Tree) -> float:
        value = self.scale
        for path in self.files:
            value *= float(tree.read(path).split()[0])
        return value


def find_rails(tree: Tree) -> dict[str, _Rail]:
    """Rails by name; those of both drivers, unused channels left out."""
    rails: dict[str, _Rail] = {}
    seen: set[Path] = set()
    for patterns, look in ((_HWMON, _hwmon_rails), (_IIO, _iio_rails)):
        for pattern in patterns:
            for folder in tree.glob(pattern):
                place = folder.resolve()  # one chip is reached by several ways
                if place in seen:
                    continue
                seen.add(place)
                for name, rail in look(tree, folder).items():
                    # two chips may label a rail alike: each of them counts
                    rails[name if name not in rails else f"{name} {folder.name}"] = rail
    return rails


def _hwmon_rails(tree: Tree, folder: Path) -> dict[str, _Rail]:
    if not (tree.text(folder / "name") or "").startswith("ina"):
        return {}
    found = {}
    for channel in _CHANNELS:
        label = tree.text(folder / f"in{channel}_label")
        if label is None and channel == 1:
            label = tree.text(folder / "label")
        if label is None or label.upper() in _UNUSED:
            continue
        power = folder / f"power{channel}_input"
        pair = (folder / f"in{channel}_input", folder / f"curr{channel}_input")
        if power.exists():
            found[label] = _Rail((power,), 1e-6)
        elif all(path.exists() for path in pair):
            found[label] = _Rail(pair, 1e-6)
    return found


def _iio_rails(tree: Tree, folder: Path) -> dict[str, _Rail]:
    found = {}
    for path in tree.glob(f"{folder.relative_to(tree.root)}/rail_name_*"):
        name, channel = tree.text(path) or "", path.name.rpartition("_")[2]
        if name.upper() not in _UNUSED:
            power = folder / f"in_power{channel}_input"
            pair = (folder / f"in_voltage{channel}_input", folder / f"in_current{channel}_input")
            found[name] = _Rail((power,), 1e-3) if power.exists() else _Rail(pair, 1e-6)
    return found


class Ina3221:
    """See the module.

    Raises:
        Unreadable: no such monitor, or its files are closed to us.
    """

    name = "ina3221"
    unit: Unit = "W"
    interval_s = INTERVAL_S

    def __init__(self, tree: Tree) -> None:
        self._tree, self._rails = tree, find_rails(tree)
        if not self._rails:
            raise Unreadable("no INA3221 power monitor in /sys/bus/i2c")
        self.total = total_rails(self._rails)
        files = sorted({str(path.parent) for rail in self._rails.values() for path in rail.files})
        self.details: Mapping[str, Any] = {"folders": files}
        self.read()

    def read(self) -> Reading:
        """See `Source.read`. Its time is the middle of the reads."""
        start = time.monotonic_ns()
        values = {}
        for name, rail in self._rails.items():
            try:
                values[name] = rail.watts(self._tree)
            except PermissionError as error:
                folder = rail.files[0].parent
                raise Unreadable(
                    f"{error.filename} may not be read", f"run it as root, or: sudo chmod -R a+r {folder}"
                ) from error
            except (OSError, ValueError, IndexError) as error:
                raise Unreadable(f"rail {name} cannot be read: {error}") from error
        return Reading((start + time.monotonic_ns()) // 2, values)

    def close(self) -> None:
        """Nothing is held."""
