"""Temperatures, what throttles, and the GPU's clock, from files that no power source needs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.jetson import gpu_clock
from runtimes.sysfs import Tree

__all__ = ["Conditions", "State", "hottest"]

# Zones warm up over seconds, and some of them take a message to another processor to read.
INTERVAL_S = 0.5
# the chip that makes the voltages tells a constant; radios, batteries and disks do not limit a network
_NOT_THE_CHIP = re.compile(r"pmic|wifi|iwl|ath\d|battery|nvme|bms|charger", re.IGNORECASE)
# a Jetson's junction zone is the maximum of its others
_JUNCTION = re.compile(r"\btj", re.IGNORECASE)
_CHIP_MONITORS = ("coretemp", "k10temp", "zenpower")
# Jetson's own cooling devices; fans and caps of a power mode have states above 0 in ordinary use
_ALERT = re.compile(r"(.+)-alert")
# a clock that jetson_clocks fixed moves only when something takes it down; governors round by less than this
_CLOCK_LIMIT = 0.95


@dataclass(frozen=True)
class State:
    """One look.

    Attributes:
        time_ns: of `time.monotonic_ns`.
        celsius: zone to degrees.
        throttled: what slows the processor at this moment, in words.
        gpu_mhz: clock of the GPU; None where it is not told.
    """

    time_ns: int
    celsius: Mapping[str, float]
    throttled: tuple[str, ...]
    gpu_mhz: float | None


def hottest(celsius: Mapping[str, float]) -> tuple[str, float] | None:
    """The zone that decides, and its temperature: the junction where there is one, else the hottest; None without any.

    >>> hottest({"cpu-thermal": 50.0, "gpu-thermal": 52.5})
    ('gpu-thermal', 52.5)
    """
    junction = {name: value for name, value in celsius.items() if _JUNCTION.search(name)}
    return max((junction or celsius).items(), key=lambda item: item[1], default=None)


class Conditions:
    """See the module. Files that cannot be read are left out, each time anew: a GPU that sleeps has no temperature."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._zones: dict[str, Path] = {}
        for zone in tree.glob("sys/class/thermal/thermal_zone*"):
            self._add(tree.text(zone / "type") or zone.name, zone / "temp")
        for monitor in tree.glob("sys/class/hwmon/hwmon*"):
            name = tree.text(monitor / "name") or ""
            if name in _CHIP_MONITORS:
                self._add(name, monitor / "temp1_input")
        self._alerts: dict[str, Path] = {}
        for device in tree.glob("sys/class/thermal/cooling_device*"):
            match = _ALERT.fullmatch(tree.text(device / "type") or "")
            if match:
                self._alerts[match[1]] = device / "cur_state"
        self._clock = gpu_clock(tree)
        self._fixed = self._clock.fixed_mhz(tree) if self._clock else None

    def _add(self, name: str, path: Path) -> None:
        if not _NOT_THE_CHIP.search(name):
            self._zones[name if name not in self._zones else f"{name} {path.parent.name}"] = path

    @property
    def known(self) -> bool:
        """There is something to read."""
        return bool(self._zones or self._alerts or self._clock)

    def read(self) -> State:
        """Look; never fails."""
        tree = self._tree
        start = time.monotonic_ns()
        celsius = {}
        for name, path in self._zones.items():
            value = tree.number(path)
            if value is not None and value > -200_000:  # switched off: -256 degrees
                celsius[name] = value / 1e3
        throttled = [
            f"{name.replace('-throttle', '')} alert of the thermal driver"
            for name, path in self._alerts.items()
            if (tree.number(path) or 0) > 0
        ]
        mhz = self._clock.current_mhz(tree) if self._clock else None
        if self._fixed and mhz is not None and mhz < _CLOCK_LIMIT * self._fixed:
            throttled.append(f"the GPU's clock fell below the {self._fixed:.0f} MHz it was fixed to")
        return State((start + time.monotonic_ns()) // 2, celsius, tuple(throttled), mhz)
