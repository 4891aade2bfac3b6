"""One row of the table: what is known of it while it is measured, and its JSON afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.children import Worker
from benchmarks.config import BenchConfig, Preset
from benchmarks.device import device_json
from benchmarks.power.energy import Slice
from benchmarks.sampling import KINDS, STAGES
from benchmarks.statistics import Evidence, Summary, imprecise, judge, percentile, summarise
from hybridnets.errors import HnxError
from runtimes.base import TUNED
from runtimes.tuned import look_up

__all__ = ["Machine", "Row", "row_json"]


@dataclass
class Row:
    """One row while it is measured.

    Attributes:
        worker: its process; None before it is loaded and after it was given up.
        skipped: reason and fix, once it was given up.
        opened, warmup: what its process told about loading and warming up.
        cached: what another process told about loading from a cache; None where the runtime keeps none.
        samples: kind or stage to samples in ms, one list for each round.
        per_second: kind to requests per second of each round, with several streams only.
        spent_s: warm-up and measuring so far, what was not recorded included.
        turns: kind to the recorded stretches of time, for the power drawn in them.
        wall_s: kind to recorded seconds.
        foreign_s: core-seconds of other programs meanwhile; None where the system does not tell.
        idle: its threads slept after each of its turns.
        exhausted: no time is left for another turn.
        device: part of an inference to times in ms by the GPU's clock; empty where there is none.
        power: of `benchmarks.power.account`, once everything has ended; None where nothing could be read.
    """

    runtime: str
    precision: str
    worker: Worker | None = None
    skipped: dict[str, str] | None = None
    opened: dict[str, Any] = field(default_factory=dict)
    cached: dict[str, Any] | None = None
    warmup: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[list[float]]] = field(default_factory=lambda: {name: [] for name in (*KINDS, *STAGES)})
    per_second: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    spent_s: float = 0.0
    turns: dict[str, list[Slice]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    wall_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    foreign_s: float | None = 0.0
    idle: bool = True
    finite: bool = True
    exhausted: bool = False
    peak_mb: float | None = None
    device: dict[str, list[float]] = field(default_factory=dict)
    power: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """`runtime:precision`."""
        return f"{self.runtime}:{self.precision}"

    @property
    def live(self) -> bool:
        """It is loaded, or was to the end."""
        return self.skipped is None and self.worker is not None

    def skip(self, reason: str, fix: str) -> None:
        """Give the row up, with its process."""
        self.skipped = {"reason": reason, "fix": fix}
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def fail(self, error: HnxError, during: str = "") -> None:
        """`skip` with an error's sentences."""
        reason = ": ".join(filter(None, [error.what, error.why]))
        self.skip(f"{reason} (while {during})" if during else reason, error.fix)

    def iteration_s(self, kind: str) -> float:
        """Seconds one iteration takes, as far as is known."""
        return percentile(_flat(self.samples[kind]) or self.warmup.get("samples_ms") or [0.0], 50) / 1e3

    def warmed(self, reply: Mapping[str, Any]) -> None:
        """Take in the reply to `warm_up`."""
        self.warmup = {"samples_ms": _milliseconds(reply["samples_ns"]), "stable": reply["stable"]}
        self.spent_s = sum(self.warmup["samples_ms"]) / 1e3
        self.idle = bool(reply["idle"])

    def record(self, kind: str, reply: Mapping[str, Any], discarded: int) -> None:
        """Take in the reply to `measure`: one round of one kind."""
        self.samples[kind].append(_milliseconds(reply["total_ns"]))
        if kind == "end_to_end":
            for stage in STAGES:
                self.samples[stage].append(_milliseconds(reply[f"{stage}_ns"]))
        if reply["per_second"] is not None:
            self.per_second[kind].append(reply["per_second"])
        start, end = reply["span_ns"]
        self.turns[kind].append(Slice(start, end, len(reply["total_ns"])))
        self.wall_s[kind] += reply["wall_s"]
        foreign = reply["foreign_s"]
        self.foreign_s = None if foreign is None or self.foreign_s is None else self.foreign_s + foreign
        self.spent_s += reply["wall_s"] + discarded * self.iteration_s(kind)
        self.idle = self.idle and bool(reply["idle"])

    def summary(self, name: str) -> Summary:
        """Of a kind or stage, over all rounds."""
        return summarise(_flat(self.samples[name]))

    def below_minima(self, preset: Preset) -> bool:
        """Time ran out before there were enough samples of both kinds."""
        return any(
            sum(map(len, self.samples[kind])) < preset.iterations or self.wall_s[kind] < preset.duration_s
            for kind in KINDS
        )

    def wants_more(self, preset: Preset, frames: int) -> bool:
        """Both minima are reached, a median is still not fixed well enough, and there is time left."""
        if not self.live or self.exhausted or self.below_minima(preset):
            return False
        return any(imprecise(kind, self.summary(kind), frames) for kind in KINDS)


def _milliseconds(nanoseconds: Sequence[int]) -> list[float]:
    return [value / 1e6 for value in nanoseconds]


def _flat(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [value for samples in rounds for value in samples]


@dataclass(frozen=True)
class Machine:
    """What all rows share when they are judged.

    Attributes:
        cores: those this process may use.
        load_before: load average before the run; None where the system has none.
        throttled: what slowed the processor during the run, in words.
    """

    cores: int
    load_before: float | None
    throttled: Sequence[str]


def row_json(row: Row, config: BenchConfig, frames: int, machine: Machine) -> dict[str, Any]:
    """As it stands in the report, apart from the ratio, which needs the other rows; `frames` is their number."""
    head: dict[str, Any] = {"runtime": row.runtime, "precision": row.precision}
    if row.precision == TUNED and (tuning := look_up(config.bundle, row.runtime).tuning) is not None:
        head["network"] = tuning.network
    if not row.live:
        return {**head, "valid": False, "skipped": row.skipped or {"reason": "it was not measured", "fix": ""}}
    summaries = {name: row.summary(name) for name in row.samples}
    execution = row.opened["execution"]
    wall = sum(row.wall_s.values())
    # without accounts of each core (not Linux): the load before we began was all somebody else's
    foreign = machine.load_before if row.foreign_s is None or wall <= 0 else max(0.0, row.foreign_s / wall)
    verdict = judge(
        Evidence(
            forward=summaries["forward"],
            end_to_end=summaries["end_to_end"],
            forward_rounds=row.samples["forward"],
            frames=frames,
            # what a tuned row asks for stands in the bundle, and opening it checks that it runs
            asked=execution["precision"] if row.precision == TUNED else row.precision,
            executed=execution["precision"],
            finite=row.finite,
            warmed_up=row.warmup["stable"],
            went_idle=row.idle,
            foreign_cores=foreign,
            cores=machine.cores,
            throttled=[*machine.throttled, *(row.power or {}).get("throttled", ())],
            latency_bound=config.scenario == "single",
        )
    )
    return {
        **head,
        "executed": execution["precision"],
        **verdict.to_json(),
        "forward_ms": summaries["forward"].to_json(),
        "end_to_end_ms": summaries["end_to_end"].to_json(),
        "stages_ms": {stage: summaries[stage].to_json() for stage in STAGES},
        "frames_per_second": {kind: _throughput(row.per_second[kind], summaries[kind]) for kind in KINDS},
        "load_ms": round(row.opened["load_ms"], 3),
        "first_inference_ms": round(row.opened["first_inference_ms"], 3),
        "cached": row.cached and {key: round(row.cached[key], 3) for key in ("load_ms", "first_inference_ms")},
        "memory_mb": {**row.opened["memory_mb"], "peak": row.peak_mb},
        **({"device_ms": device_json(row.device)} if row.device else {}),
        **({"power": row.power} if row.power else {}),
        "execution": {key: value for key, value in execution.items() if key != "precision"},
        "warmup": {"stable": row.warmup["stable"], "iterations": len(row.warmup["samples_ms"])},
        "rounds": len(row.samples["forward"]),
        "hit_time_limit": row.below_minima(config.effective),
        "foreign_cores": None if foreign is None else round(foreign, 3),
        "samples_ms": {"warmup": row.warmup["samples_ms"], **row.samples},
    }


def _throughput(measured: Sequence[float], summary: Summary) -> float:
    """Measured with several streams (median of the rounds); with one it is what the mean latency allows."""
    if measured:
        return round(percentile(measured, 50), 3)
    return round(1e3 / summary.mean, 3) if summary.mean > 0 else 0.0
