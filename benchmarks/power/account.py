"""What a row drew: energy, temperature and throttling of its own turns, out of everything that was read meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.power.conditions import INTERVAL_S, State, hottest
from benchmarks.power.energy import Series, Slice
from benchmarks.power.reading import Reading, Unit, Unreadable

__all__ = ["Account", "Record"]

# Below ten readings a mean is a matter of luck. A turn of fewer than four is more edge than middle: the values at its
# ends lean on its neighbours, whose power is another.
MIN_READINGS = 10
MIN_PER_TURN = 4


@dataclass(frozen=True)
class Record:
    """Everything one source told.

    Attributes:
        name, unit, interval_s, total: of the source.
        readings: in order of time.
        problem: why they end early; empty where they do not.
    """

    name: str
    unit: Unit
    interval_s: float
    total: tuple[str, ...]
    readings: Sequence[Reading]
    problem: str = ""

    @property
    def rails(self) -> list[str]:
        """Names of all rails."""
        return sorted(self.readings[0].rails) if self.readings else []

    def series(self, rails: Sequence[str]) -> Series:
        """The sum of some rails over time."""
        return Series.of(self.unit, self.readings, rails, self.interval_s)

    def watts(self, rails: Sequence[str], turns: Sequence[Slice]) -> float:
        """Mean power over all turns.

        Raises:
            Unreadable: readings do not cover them.
        """
        series = self.series(rails)
        try:
            joules = sum(series.joules(turn.start_ns, turn.end_ns) for turn in turns)
        except Unreadable as error:
            raise Unreadable(f"{self.name}: {self.problem or error.reason}") from error
        return joules / _seconds(turns)

    def count(self, turns: Sequence[Slice]) -> int:
        """Readings that fell into the turns.

        Raises:
            Unreadable: too few for a figure.
        """
        series = self.series(self.total)
        count = sum(series.readings(turn.start_ns, turn.end_ns) for turn in turns)
        least = max(MIN_READINGS, MIN_PER_TURN * len(turns))
        if count < least:
            raise Unreadable(
                f"only {count} readings of {self.name} fell into its {len(turns)} turns, at least {least} are needed: "
                "measure longer with --duration"
            )
        return count


@dataclass(frozen=True)
class Account:
    """The records of a run.

    Attributes:
        records: of the sources, to be added up.
        states: temperatures and throttling from files of their own; empty where there are none.
        rest: a stretch in which nothing ran, before anything was loaded; None where idle was not measured.
    """

    records: Sequence[Record]
    states: Sequence[State] = ()
    rest: Slice | None = None

    def row(self, turns: Mapping[str, Sequence[Slice]]) -> dict[str, Any] | None:
        """What a row drew, as it stands in the report; None where nothing at all could be read.

        Args:
            turns: its own, by kind.

        Returns:
            For each kind `watts`, `joules`, `seconds`, `frames`, `joules_per_frame`, `joules_per_frame_above_idle`
            (None where idle is not known), `readings`, mean watts of each rail and the turns, or `missing` with the
            reason; besides `temperature_c`, where it is told, and `throttled`.
        """
        found: dict[str, Any] = {}
        for kind, stretches in turns.items() if self.records else ():
            try:
                found[kind] = self._energy(stretches)
            except Unreadable as error:
                found[kind] = {"missing": error.reason}
        everything = [turn for stretches in turns.values() for turn in stretches]
        temperature, throttled = self._temperature(everything), self._throttled(everything)
        if temperature is not None:
            found["temperature_c"] = temperature
        if found or throttled:
            found["throttled"] = throttled
        return found or None

    def watts(self, stretch: Slice | None) -> float | None:
        """Mean power of one stretch over all sources; None where it cannot be told."""
        if stretch is None or not self.records:
            return None
        try:
            return sum(record.watts(record.total, [stretch]) for record in self.records)
        except Unreadable:
            return None

    def _energy(self, turns: Sequence[Slice]) -> dict[str, Any]:
        seconds, frames = _seconds(turns), sum(turn.frames for turn in turns)
        if seconds <= 0 or frames == 0:
            raise Unreadable("it has no recorded time")
        watts = sum(record.watts(record.total, turns) for record in self.records)
        readings = min(record.count(turns) for record in self.records)
        rails = {name: record.watts([name], turns) for record in self.records for name in record.rails}
        idle = self.watts(self.rest)
        return {
            "watts": round(watts, 4),
            "joules": round(watts * seconds, 6),
            "seconds": round(seconds, 6),
            "frames": frames,
            "joules_per_frame": round(watts * seconds / frames, 6),
            "joules_per_frame_above_idle": None if idle is None else round((watts - idle) * seconds / frames, 6) + 0.0,
            "readings": readings,
            "rails_w": {name: round(value, 4) for name, value in rails.items()},
            "turns_ns": [[turn.start_ns, turn.end_ns, turn.frames] for turn in turns],
        }

    def _temperature(self, turns: Sequence[Slice]) -> dict[str, Any] | None:
        """First and highest value of the zone that became the hottest during a row's turns."""
        looks: list[tuple[int, Mapping[str, float]]] = [(state.time_ns, state.celsius) for state in self.states]
        if not any(celsius for _, celsius in looks):
            looks = [(reading.time_ns, reading.celsius) for record in self.records for reading in record.readings]
        near = [celsius for moment, celsius in looks if celsius and _during(moment, turns)]
        peaks = [zone for zone in map(hottest, near) if zone is not None]
        if not peaks:
            return None
        name, highest = max(peaks, key=lambda zone: zone[1])
        first = next(celsius[name] for celsius in near if name in celsius)
        return {"sensor": name, "start": round(first, 1), "max": round(highest, 1)}

    def _throttled(self, turns: Sequence[Slice]) -> list[str]:
        looks: list[tuple[int, tuple[str, ...]]] = [(state.time_ns, state.throttled) for state in self.states]
        looks += [(reading.time_ns, reading.throttled) for record in self.records for reading in record.readings]
        words = [word for moment, said in looks if said and _during(moment, turns) for word in said]
        return list(dict.fromkeys(words))


def _seconds(turns: Sequence[Slice]) -> float:
    return sum(turn.seconds for turn in turns)


def _during(moment: int, turns: Sequence[Slice]) -> bool:
    """A look during a turn, or at most its own interval after it: short turns would be missed altogether."""
    reach = round(INTERVAL_S * 1e9)
    return any(turn.start_ns <= moment <= turn.end_ns + reach for turn in turns)
