"""Energy of stretches of time out of readings: trapezoids under power, differences of counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.power.reading import Reading, Unit, Unreadable

__all__ = ["Series", "Slice"]

# Readings come 50 to 500 ms apart. Where none came for this long, or for five intervals, nothing was measured.
GAP_S = 1.0
GAP_INTERVALS = 5


@dataclass(frozen=True)
class Slice:
    """A stretch of time in which frames were run and nothing else.

    Attributes:
        start_ns, end_ns: of `time.monotonic_ns`.
        frames: how many.
    """

    start_ns: int
    end_ns: int
    frames: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end_ns - self.start_ns) / 1e9


class Series:
    """The readings of one source, or of one rail of it.

    Args:
        times_ns: of `time.monotonic_ns`, rising.
        values: watts at those times (unit `W`), or joules counted up to then (`J`).
        interval_s: the pause intended between two readings.
    """

    def __init__(self, unit: Unit, times_ns: Sequence[int], values: Sequence[float], interval_s: float) -> None:
        self._unit = unit
        # float64 holds nanoseconds since boot exactly for 104 days, and to 2 ns for the next ones
        self._times: NDArray[np.float64] = np.asarray(times_ns, np.float64)
        self._values: NDArray[np.float64] = np.asarray(values, np.float64)
        self._gap_ns = max(GAP_S, GAP_INTERVALS * interval_s) * 1e9

    @classmethod
    def of(cls, unit: Unit, readings: Sequence[Reading], rails: Sequence[str], interval_s: float) -> Series:
        """The sum of some rails."""
        values = [sum(reading.rails[name] for name in rails) for reading in readings]
        return cls(unit, [reading.time_ns for reading in readings], values, interval_s)

    def readings(self, start_ns: int, end_ns: int) -> int:
        """How many fell into a stretch of time."""
        low, high = np.searchsorted(self._times, (start_ns, end_ns))
        return int(high - low)

    def joules(self, start_ns: int, end_ns: int) -> float:
        """Energy of a stretch of time; values at its ends lie on the line between their neighbours.

        Raises:
            Unreadable: no reading before or after it, or too long a pause between two.
        """
        if end_ns <= start_ns:
            return 0.0
        self._check(start_ns, end_ns)
        ends = np.interp((start_ns, end_ns), self._times, self._values)
        if self._unit == "J":
            return float(ends[1] - ends[0])
        inside = slice(*np.searchsorted(self._times, (start_ns, end_ns)))
        times = np.concatenate(([start_ns], self._times[inside], [end_ns])) / 1e9
        watts = np.concatenate((ends[:1], self._values[inside], ends[1:]))
        return float(np.sum((watts[1:] + watts[:-1]) / 2 * np.diff(times)))

    def _check(self, start_ns: int, end_ns: int) -> None:
        if not len(self._times):
            raise Unreadable("there was no reading")
        first = int(np.searchsorted(self._times, start_ns, side="right")) - 1
        last = int(np.searchsorted(self._times, end_ns))
        if first < 0 or last >= len(self._times):
            raise Unreadable("readings do not reach over its whole time")
        pause = float(np.max(np.diff(self._times[first : last + 1]), initial=0.0))
        if pause > self._gap_ns:
            raise Unreadable(f"there was no reading for {pause / 1e9:.1f} s")
