"""Energy of the CPU's packages and memory from the counters of RAPL (Intel, and AMD since Zen)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.power.reading import Reading, Unit, Unreadable
from runtimes.sysfs import Tree

__all__ = ["Counter", "Rapl"]

# The counters move every millisecond; a reading takes microseconds.
INTERVAL_S = 0.05
_ZONE = re.compile(r"intel-rapl:(\d+)(?::\d+)?")  # not intel-rapl-mmio: another way to the same packages


@dataclass
class Counter:
    """A counter of microjoules that begins again at 0 when it is full: at 200 W a package's does so every 20 minutes.

    Attributes:
        limit: its largest value; None where the system does not tell.
        last: its last value.
        counted: microjoules since it was made.
    """

    limit: int | None
    last: int
    counted: int = 0

    def joules(self, value: int) -> float:
        """Energy since the counter was made, at its new value.

        Raises:
            Unreadable: it went back and does not say how far it counts.
        """
        step = value - self.last
        if step < 0:
            if self.limit is None:
                raise Unreadable("an energy counter went back and does not tell its range")
            step += self.limit
        if step < 0:
            raise Unreadable("an energy counter went back by more than its range")
        self.last = value
        self.counted += step
        return self.counted / 1e6


class Rapl:
    """See the module.

    Raises:
        Unreadable: the processor has no such counters, or they are closed to us.
    """

    name = "rapl"
    unit: Unit = "J"
    interval_s = INTERVAL_S

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        zones = _zones(tree)
        if not zones:
            raise Unreadable("no RAPL energy counters in /sys/class/powercap")
        self._files = {name: zone / "energy_uj" for name, zone in zones.items()}
        self._counters: dict[str, Counter] = {}
        for name, zone in zones.items():
            limit = tree.number(zone / "max_energy_range_uj")
            self._counters[name] = Counter(None if limit is None else int(limit), self._value(name))
        # memory is beside its package; cores and graphics are inside, the platform's counter holds everything twice
        self.total = tuple(
            sorted(n for n in zones if n.startswith("package") and ("/" not in n or n.endswith("/dram")))
        )
        if not self.total:
            self.total = tuple(sorted(zones))
        self.details: Mapping[str, Any] = {"zones": {name: zone.name for name, zone in zones.items()}}

    def _value(self, name: str) -> int:
        path = self._files[name]
        try:
            return int(self._tree.read(path))
        except PermissionError as error:
            raise Unreadable(
                f"{path} may not be read: the kernel shows it to root alone",
                "run it as root, or: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj "
                "/sys/class/powercap/intel-rapl:*:*/energy_uj",
            ) from error
        except (OSError, ValueError) as error:
            raise Unreadable(f"{name} cannot be read: {error}") from error

    def read(self) -> Reading:
        """See `Source.read`. Its time is the middle of the reads."""
        start = time.monotonic_ns()
        values = {name: counter.joules(self._value(name)) for name, counter in self._counters.items()}
        return Reading((start + time.monotonic_ns()) // 2, values)

    def close(self) -> None:
        """Nothing is held."""


def _zones(tree: Tree) -> dict[str, Path]:
    """`package-0`, `package-0/dram` and so on to folders."""
    packages: dict[str, str] = {}
    zones: dict[str, Path] = {}
    for folder in tree.glob("sys/class/powercap/intel-rapl:*"):
        match = _ZONE.fullmatch(folder.name)
        name = tree.text(folder / "name")
        if match is None or not name or not (folder / "energy_uj").exists():
            continue
        number = match[1]
        if folder.name == f"intel-rapl:{number}":
            packages[number] = name
            zones[name] = folder
        else:
            zones[f"{packages.get(number, number)}/{name}"] = folder
    return zones
