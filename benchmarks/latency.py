"""`hnx bench`: every runtime and precision measured side by side, in slices that take turns.

Rows are loaded one after another, warmed up, and then measured in rounds: each round gives every row a short slice of
forward-only and a slice of end-to-end samples, the order of the rows reversed from round to round. A disturbance of
the machine hits all rows alike, and ratios are taken inside rounds.

Each row has a process of its own, also where two precisions share a runtime: a crash then costs one row, and peak
memory, thread pools and a library's global settings (OpenCV's number of threads, PyTorch's default type) are not those
of the row before. All processes live until the end, so what they need together is checked first: `benchmarks.memory`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.children import ChildWorker, Worker, WorkerDiedError, closing_all
from benchmarks.config import EXTENSION, BenchConfig, Preset, planned_rows
from benchmarks.environment import available_memory_mb, describe_environment, throttle_counters, throttled_since
from benchmarks.frames import decode_jpeg, load_frames, tensor_sha256
from benchmarks.memory import estimate_mb, shortage
from benchmarks.power.meter import Meter
from benchmarks.report import Report
from benchmarks.results import make_report
from benchmarks.rows import Row
from benchmarks.sampling import KINDS, WarmUpRule
from hybridnets.errors import HnxError
from hybridnets.files import temporary_directory
from runtimes.opening import obstacle
from runtimes.registry import entry, runtime_class

__all__ = ["Progress", "run_bench"]

# what a row costs to load: torch.compile aside, the slowest seen is 10 s
LOAD_TIMEOUT_S = 600.0
# the other rows' caches and sleeping cores: two iterations refill them; one is enough when it lasts this long
DISCARD = 2
LONG_ITERATION_MS = 500.0
PAUSE_S = 0.02


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        phase: `loading`, `measuring` or `going on`, for many steps.
        text: what happens now.
        done, total: steps; the total grows when rows go on.
    """

    phase: str
    text: str
    done: int
    total: int


@dataclass
class _Run:
    """The state of one `run_bench`."""

    config: BenchConfig
    rows: list[Row]
    frames: list[str]
    input_sha256: str
    start: Callable[[], Worker]
    report_progress: Callable[[Progress], None]
    meter: Meter
    cache: Path
    workers: list[Worker] = field(default_factory=list)
    phase: str = "loading"
    rounds: int = 0
    done: int = 0

    def step(self, text: str) -> None:
        """Tell the caller what begins now, if anything; steps are the loading of each row, then its turns."""
        if text:
            self.tell(text)
        self.done += 1

    def tell(self, text: str) -> None:
        """Say what happens now, without taking a step."""
        total = len(self.rows) * (1 + max(self.rounds, self.config.effective.rounds))
        self.report_progress(Progress(self.phase, text, self.done, total))

    def launch(self) -> Worker:
        """A new child, closed at the end of the run."""
        worker = self.start()
        self.workers.append(worker)
        return worker


def run_bench(
    config: BenchConfig,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    start: Callable[[], Worker] = ChildWorker,
) -> Report:
    """Measure every row of a configuration; rows that cannot run are reported as skipped.

    Args:
        start: makes the process of one row; tests put something else here.

    Raises:
        HnxError: the source cannot be read. Failures of single rows are in the report instead.
    """
    encoded = load_frames(config.source)
    expected = tensor_sha256(config.bundle.preprocessor()(decode_jpeg(encoded[0]))[0])
    environment = describe_environment()
    counters = throttle_counters()
    rows = [Row(runtime, precision) for runtime, precision in planned_rows(config.runtimes, config.bundle)]
    with Meter(config.power) as meter, temporary_directory("hnx-bench-") as folder:
        names = []
        for index, data in enumerate(encoded):
            path = folder / f"{index:03d}.jpg"
            path.write_bytes(data.tobytes())
            names.append(str(path))
        cache = folder / "compiled"
        run = _Run(config, rows, names, expected, start, on_progress or (lambda progress: None), meter, cache)
        _rest(run)
        with closing_all(run.workers):
            _load_all(run)
            _measure_all(run)
            _finish(run)
        _rest(run)
    account = meter.account()
    for row in rows:
        row.power = account.row(row.turns) if row.live else None
    environment["throttled"] = throttled_since(counters, throttle_counters())
    # Windows has none; the state before the run is in the environment already
    if hasattr(os, "getloadavg"):
        environment["load_average_after"] = [round(value, 2) for value in os.getloadavg()]
    settings = {"discarded_after_switch": DISCARD, "pause_s": PAUSE_S, "input_sha256": expected}
    return make_report(config, rows, encoded, environment, settings, meter.to_json())


def _rest(run: _Run) -> None:
    if run.meter.active:
        run.tell("measuring power at rest")
        run.meter.idle()


# -- loading -------------------------------------------------------------------------------------------------


def _load_all(run: _Run) -> None:
    """One after another, so that no row is loaded while another one works."""
    for runtime in dict.fromkeys(row.runtime for row in run.rows):
        rows = [row for row in run.rows if row.runtime == runtime]
        # the process that looks whether the runtime is there becomes that of its first row
        first = run.launch()
        try:
            found = first.call("probe", LOAD_TIMEOUT_S, runtime=runtime)
        except HnxError as error:
            first.close()
            for row in rows:
                run.step(f"looking for {runtime}")
                row.fail(error, f"looking for {runtime}")
            continue
        spare: Worker | None = first
        for row in rows:
            run.step(f"loading {row.name}")
            problem = _obstacle(run, row, found)
            if problem is not None:
                row.skip(**problem)
                continue
            row.worker = spare or run.launch()
            spare = None
            _load(run, row)
        if spare is not None:
            spare.close()


def _obstacle(run: _Run, row: Row, found: dict[str, Any]) -> dict[str, str] | None:
    """Reason and fix for a row that is not even tried."""
    problem = found["reason"] or found["precisions"].get(row.precision)
    if problem:
        return {"reason": problem, "fix": found["fix"] or f"use one of: {', '.join(found['runnable'])}"}
    absent = obstacle(run.config.bundle, entry(row.runtime), row.precision)
    if absent is not None:
        return absent
    return shortage(row.name, estimate_mb(run.config.bundle, run.config.stream_count), available_memory_mb())


def _load_from_cache(run: _Run, row: Row) -> None:
    """Load the row twice in processes of their own: one fills a cache of compiled networks, one loads from it.

    Before the row's own process has its network, so that no more memory is needed at once; that one knows of no cache,
    and its figures are those of a first time. Nothing here may cost the row: what is wrong with it shows later.
    """
    if not runtime_class(entry(row.runtime)).caches:
        return
    config = run.config
    for _ in range(2):
        worker = run.start()
        try:
            reply = worker.call(
                "reload",
                LOAD_TIMEOUT_S,
                **_named(config, row),
                cache=str(run.cache),
            )
        except HnxError:
            return
        finally:
            worker.close()
    row.cached = reply if reply["cache"] == "read" else None


def _named(config: BenchConfig, row: Row) -> dict[str, Any]:
    """What a worker has to know of a row to load it."""
    return {
        "bundle": str(config.bundle.path.resolve()),
        "runtime": row.runtime,
        "precision": row.precision,
        "threads": config.thread_count,
        "streams": config.stream_count,
    }


def _load(run: _Run, row: Row) -> None:
    config = run.config
    assert row.worker is not None
    _load_from_cache(run, row)
    try:
        row.opened = row.worker.call(
            "open",
            LOAD_TIMEOUT_S,
            **_named(config, row),
            frames=run.frames,
            conf=config.thresholds[0],
            iou=config.thresholds[1],
            compiled=config.compiled and runtime_class(entry(row.runtime)).compiles,
        )
        if row.opened["input_sha256"] != run.input_sha256:
            row.skip("its process prepared another input tensor than this one did", "report this: it is a bug in hnx")
            return
        rule = WarmUpRule(seconds=config.effective.warmup_s)
        row.warmed(row.worker.call("warm_up", 6 * rule.seconds + LOAD_TIMEOUT_S, **asdict(rule)))
    except HnxError as error:
        row.fail(error, "loading" if isinstance(error, WorkerDiedError) else "")


# -- measuring -----------------------------------------------------------------------------------------------


def _measure_all(run: _Run) -> None:
    """The rounds of the preset, then further ones as long as a row is worth them.

    Rows that need no more go on with the others: they are measured in the same rounds or not at all.
    """
    preset = run.config.effective
    run.phase = "measuring"
    for index in range(EXTENSION * preset.rounds):
        if index >= preset.rounds:
            if not any(row.wants_more(preset, len(run.frames)) for row in run.rows):
                return
            run.phase = "going on"
        run.rounds = index + 1
        run.meter.cool_down(run.tell)
        _measure_round(run, index)


def _measure_round(run: _Run, index: int) -> None:
    rows = run.rows if index % 2 == 0 else run.rows[::-1]
    for row in rows:
        turn = row.live and not row.exhausted
        run.step(f"round {index + 1}: {row.name}" if turn else "")
        if turn:
            _measure_row(run.config.effective, row, index)


def _measure_row(preset: Preset, row: Row, index: int) -> None:
    count, seconds = math.ceil(preset.iterations / preset.rounds), preset.duration_s / preset.rounds
    discards = {kind: 1 if row.iteration_s(kind) * 1e3 > LONG_ITERATION_MS else DISCARD for kind in KINDS}
    # the first round is always taken, or there would be nothing to report
    least = sum((discards[kind] + 1) * row.iteration_s(kind) for kind in KINDS)
    left = preset.max_time_s - row.spent_s
    if index > 0 and least > left:
        row.exhausted = True
        return
    limit = min(preset.max_time_s / preset.rounds, max(left, 0.0)) / len(KINDS)
    assert row.worker is not None
    replies: dict[str, dict[str, Any]] = {}
    try:
        for kind in KINDS:
            replies[kind] = row.worker.call(
                "measure",
                limit + 100 * row.iteration_s(kind) + 60,
                kind=kind,
                count=count,
                seconds=seconds,
                limit=limit,
                discard=discards[kind],
                pause=PAUSE_S,
            )
    except HnxError as error:
        row.fail(error, f"measuring round {index + 1}")
        return
    for kind, reply in replies.items():
        row.record(kind, reply, discards[kind])


def _finish(run: _Run) -> None:
    for row in run.rows:
        if not row.live:
            continue
        assert row.worker is not None
        try:
            reply = row.worker.call("finish", LOAD_TIMEOUT_S)
        except HnxError as error:
            row.fail(error, "ending")
            continue
        row.finite = bool(row.opened["finite"]) and bool(reply["finite"])
        row.peak_mb, row.device = reply["peak_mb"], reply.get("device_ms", {})
        row.worker.close()
