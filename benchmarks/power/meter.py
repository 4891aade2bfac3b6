"""Power over a whole run of `hnx bench`: sources are read all the time, each row's own turns are cut out afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from benchmarks.power.account import Account, Record
from benchmarks.power.conditions import INTERVAL_S, Conditions, State, hottest
from benchmarks.power.config import PowerConfig
from benchmarks.power.energy import Slice
from benchmarks.power.reading import Reading, Source
from benchmarks.power.registry import open_sources
from benchmarks.power.sampler import Sampler
from runtimes.sysfs import Tree

__all__ = ["Meter"]

COOL_DOWN_LOOK_S = 1.0
# tegrastats waits for itself, a tenth of a second; a board that is busy takes longer
LONGEST_PAUSE_S = 0.5


class Meter:
    """The sources of a run. A context: readings are taken inside it, results asked for after it.

    Args:
        config: what is asked for; where it is off nothing is opened and nothing waits.
        sleep: what waiting is, for tests.
    """

    def __init__(self, config: PowerConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        self._config, self._sleep = config, sleep
        tree = Tree(config.root)
        opened = open_sources(config.source, tree)
        self._missing, self._fixes = opened.missing, opened.fixes
        self._sources: list[Source] = opened.sources
        self._samplers: list[Sampler[Reading]] = [Sampler(s.read, s.interval_s) for s in self._sources]
        self._conditions = Conditions(tree)
        self._watch: list[Sampler[State]] = []
        if not config.off and self._conditions.known:
            self._watch.append(Sampler(self._conditions.read, INTERVAL_S))
        self._rests: list[Slice] = []
        self._cool_downs: list[dict[str, Any]] = []

    def __enter__(self) -> Meter:
        for sampler in self._all():
            sampler.start()
        return self

    def _all(self) -> list[Sampler[Any]]:
        return [*self._samplers, *self._watch]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # all are told before any is waited for: they end at the same time
        for timeout in (0.0, 6.0):
            for sampler in self._all():
                sampler.stop(timeout)
        for source in self._sources:
            source.close()

    @property
    def active(self) -> bool:
        """Power can be read here."""
        return bool(self._sources)

    def idle(self) -> None:
        """Measure the machine at rest: called before anything is loaded, and again when everything has ended."""
        self.settle()
        if self.active and self._config.idle_s > 0:
            start = time.monotonic_ns()
            self._sleep(self._config.idle_s)
            self._rests.append(Slice(start, time.monotonic_ns(), 0))
        self.settle()

    def settle(self) -> None:
        """Wait until a reading lies between what was and what comes."""
        if self.active:
            self._sleep(3 * max(source.interval_s or LONGEST_PAUSE_S for source in self._sources))

    def cool_down(self, tell: Callable[[str], None] = lambda text: None) -> None:
        """Wait until the hottest zone is below the limit, where one was given; called before each round."""
        limit = self._config.cool_down_c
        if limit is None:
            return
        first = zone = hottest(self._temperatures())
        waited = 0.0
        while zone is not None and zone[1] > limit and waited < self._config.cool_down_limit_s:
            tell(f"cooling down: {zone[0]} is at {zone[1]:.1f} C, at most {limit:g} C are asked for")
            self._sleep(COOL_DOWN_LOOK_S)
            waited += COOL_DOWN_LOOK_S
            zone = hottest(self._temperatures())
        self._cool_downs.append(
            {
                "waited_s": waited,
                "from_c": None if first is None else round(first[1], 1),
                "to_c": None if zone is None else round(zone[1], 1),
                "reached": zone is not None and zone[1] <= limit,
            }
        )

    def _temperatures(self) -> Mapping[str, float]:
        """Of the thermal zones, else what the sources told last."""
        celsius = self._conditions.read().celsius
        last = [sampler.taken[-1] for sampler in self._samplers if sampler.taken]
        return celsius or {name: value for reading in last for name, value in reading.celsius.items()}

    def account(self) -> Account:
        """Everything that was read."""
        records = [
            Record(source.name, source.unit, source.interval_s, source.total, list(sampler.taken), sampler.problem)
            for source, sampler in zip(self._sources, self._samplers, strict=True)
        ]
        states = [state for sampler in self._watch for state in list(sampler.taken)]
        return Account(records, states, self._rests[0] if self._rests else None)

    def to_json(self) -> dict[str, Any] | None:
        """What a report says about the measurement itself, with the raw readings; None where nothing was asked for."""
        if self._config.off and self._config.cool_down_c is None:
            return None
        account = self.account()
        value: dict[str, Any] = {
            "asked": self._config.source,
            "sources": [
                _source_json(source, record, sampler.cpu_s)
                for source, record, sampler in zip(self._sources, account.records, self._samplers, strict=True)
            ],
            "missing": self._missing,
            "fixes": self._fixes,
        }
        watts = account.watts(account.rest)
        if account.rest is not None and watts is not None:
            end = account.watts(self._rests[-1]) if len(self._rests) > 1 else None
            value["idle"] = {
                "seconds": round(account.rest.seconds, 3),
                "watts": round(watts, 4),
                "watts_at_the_end": None if end is None else round(end, 4),
            }
        if self._config.cool_down_c is not None:
            value["cool_down"] = {
                "limit_c": self._config.cool_down_c,
                "limit_s": self._config.cool_down_limit_s,
                "rounds": self._cool_downs,
            }
        return value


def _source_json(source: Source, record: Record, cpu_s: float) -> dict[str, Any]:
    start = record.readings[0].time_ns if record.readings else 0
    return {
        "name": source.name,
        "unit": source.unit,
        "interval_s": source.interval_s,
        "rails": record.rails,
        "total": list(source.total),
        "details": dict(source.details),
        "problem": record.problem,
        "cpu_s": round(cpu_s, 3),
        "readings": {
            "start_ns": start,
            "s": [round((reading.time_ns - start) / 1e9, 4) for reading in record.readings],
            "total": [round(sum(reading.rails[name] for name in source.total), 4) for reading in record.readings],
        },
    }
