"""Power rails of a Jetson through jtop, where its service runs: a program of its own, asked through its library."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.power.reading import Reading, Unit, Unreadable, total_rails
from hybridnets.errors import first_line
from runtimes.sysfs import Tree

__all__ = ["Jtop"]

# jtop's shortest sensible interval: its service reads every file of the board each time. Asking waits for the next
# values, so the sampler has nothing left to wait for; the figure says how far apart they may be.
INTERVAL_S = 0.5


class Jtop:
    """See the module. Only what a rail draws now is taken: jtop's `avg` is half of the last value, not a mean.

    Raises:
        Unreadable: jetson-stats is not installed, its service does not run, or it knows no rails.
    """

    name = "jtop"
    unit: Unit = "W"
    interval_s = INTERVAL_S

    def __init__(self, tree: Tree) -> None:
        del tree  # its service reads the machine it runs on
        try:
            module = importlib.import_module("jtop")
        except Exception as error:
            raise Unreadable(
                f"jtop could not be imported: {first_line(error)}", "sudo pip install jetson-stats"
            ) from error
        self.details: Mapping[str, Any] = {"jetson_stats": str(getattr(module, "__version__", ""))}
        self._client: Any = None
        self._names: frozenset[str] = frozenset()
        try:
            self._client = module.jtop(interval=INTERVAL_S)
            self._client.start()
            self._names = frozenset(self.read().rails)
            self.total = total_rails(self._names)
        except Exception as error:
            self.close()
            reason = error.reason if isinstance(error, Unreadable) else first_line(error)
            raise Unreadable(f"jtop: {reason}", "sudo systemctl restart jtop.service") from error

    def read(self) -> Reading:
        """See `Source.read`: waits for the service's next values."""
        try:
            if not self._client.ok():
                raise Unreadable("its service has ended")
            power, sensors = self._client.power, self._client.temperature
            rails = {str(name): float(rail["power"]) / 1e3 for name, rail in power["rail"].items()}
            total = power.get("tot") or {}
            # the rail that holds the others is taken out of the list and put here
            if total.get("name"):
                rails[str(total["name"])] = float(total["power"]) / 1e3
            celsius = {
                str(name): float(sensor["temp"]) for name, sensor in sensors.items() if sensor.get("online", True)
            }
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable(f"its answer cannot be used: {first_line(error)}") from error
        if not rails:
            raise Unreadable("it knows no power rails")
        # one whose files it cannot read at the moment is left out of its answer
        if not self._names <= rails.keys():
            raise Unreadable(f"its answer lacks {', '.join(sorted(self._names - rails.keys()))}")
        return Reading(time.monotonic_ns(), rails, celsius)

    def close(self) -> None:
        """See `Source.close`."""
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close()
