"""`hnx bench`: every runtime and precision measured side by side, in slices that take turns.

Rows are loaded one after another, warmed up, and then measured in rounds: each round gives every row a short slice of
forward-only and a slice of end-to-end samples, the order of the rows reversed from round to round. A disturbance of
the machine hits all rows alike, and ratios are taken inside rounds.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.environment import (
    available_cores,
    describe_environment,
    throttle_counters,
    throttled_since,
)
from benchmarks.report import SCHEMA_VERSION, Report
from benchmarks.statistics import PERCENTILES, Evidence, judge, paired_ratio, percentile, summarise
from benchmarks.worker import (
    STAGES,
    ChildWorker,
    WarmUpRule,
    Worker,
    WorkerDiedError,
    closing_all,
    decode_jpeg,
    tensor_sha256,
)
from hybridnets.bundle import Bundle
from hybridnets.errors import ExitCode, HnxError, did_you_mean
from hybridnets.files import sha256_file
from hybridnets.sources import open_source, read_image
from runtimes.base import parse_precision
from runtimes.registry import entry, parse_runtimes

__all__ = ["PRESETS", "BenchConfig", "Preset", "Progress", "Scenario", "load_frames", "planned_rows", "run_bench"]

Scenario = Literal["single", "multi", "offline"]
KINDS = ("forward", "end_to_end")
# enough to vary the content, little enough to stay in memory: 32 frames of 1280x720 are 10 MB as JPEG
MAX_FRAMES = 32
# what a row costs to load: torch.compile aside, the slowest seen is 10 s
LOAD_TIMEOUT_S = 600.0
# the other rows' caches and sleeping cores: two iterations refill them; one is enough when it lasts this long
DISCARD = 2
LONG_ITERATION_MS = 500.0
PAUSE_S = 0.02


@dataclass(frozen=True)
class Preset:
    """How much is measured.

    Attributes:
        iterations: forward-only and end-to-end samples of each row, at least.
        duration_s: seconds of each of the two, at least.
        max_time_s: seconds of one row altogether (warm-up and measuring, not loading), after which it ends anyway.
        rounds: turns of every row.
        warmup_s: seconds after which a warm-up is given up.
    """

    iterations: int
    duration_s: float
    max_time_s: float
    rounds: int
    warmup_s: float


PRESETS: Mapping[str, Preset] = {
    "fast": Preset(20, 1.0, 20.0, 4, 3.0),
    "default": Preset(50, 5.0, 180.0, 10, 10.0),
    "rigorous": Preset(300, 30.0, 900.0, 20, 30.0),
}


@dataclass(frozen=True)
class BenchConfig:
    """What to measure. Checked when it is made, before anything is loaded.

    Attributes:
        bundle: the network.
        runtimes: `all` or `runtime[:precision],...`; a runtime without precision means all of its precisions.
        preset: name in `PRESETS`; the four values below override its own.
        scenario: `single` one request at a time; `multi` as many as `streams`; `offline` one stream for each core.
        streams: requests side by side, for `multi` only.
        threads: CPU threads; None is all this process may use.
        source: image, folder, pattern, video or camera; None is the frame that ships with the package.
        baseline: `runtime:precision` that ratios refer to; None is the first valid row.
        conf, iou: thresholds of the postprocessing.
    """

    bundle: Bundle
    runtimes: str = "all"
    preset: str = "default"
    iterations: int | None = None
    duration_s: float | None = None
    max_time_s: float | None = None
    rounds: int | None = None
    scenario: Scenario = "single"
    streams: int | None = None
    threads: int | None = None
    source: str | Path | None = None
    baseline: str | None = None
    conf: float = 0.25
    iou: float = 0.3

    def __post_init__(self) -> None:
        _check_choice("preset", self.preset, tuple(PRESETS))
        _check_choice("scenario", self.scenario, get_args(Scenario))
        for name in ("iterations", "rounds", "threads", "streams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise _usage(f"--{name} {value}", "it counts from 1", f"for example --{name} 2")
        for name in ("duration_s", "max_time_s"):
            value = getattr(self, name)
            option = name.removesuffix("_s").replace("_", "-")
            if value is not None and not (math.isfinite(value) and value > 0):
                raise _usage(f"--{option} {value}", "it is a time in seconds above 0", f"for example --{option} 5")
        if self.streams is not None and self.scenario != "multi":
            raise _usage("--streams without --scenario multi", "other scenarios choose it", "add --scenario multi")
        rows = planned_rows(self.runtimes)
        if self.baseline is not None and self.baseline_row not in rows:
            raise _usage(
                f"Baseline {self.baseline!r} is not measured",
                did_you_mean(":".join(self.baseline_row or ()), [":".join(row) for row in rows]),
                "name one of the rows",
            )

    @property
    def effective(self) -> Preset:
        """The preset with this configuration's own values in it."""
        base = PRESETS[self.preset]
        return Preset(
            self.iterations or base.iterations,
            self.duration_s or base.duration_s,
            self.max_time_s or base.max_time_s,
            self.rounds or base.rounds,
            base.warmup_s,
        )

    @property
    def stream_count(self) -> int:
        """Requests side by side."""
        if self.scenario == "offline":
            return available_cores()
        return (self.streams or 2) if self.scenario == "multi" else 1

    @property
    def thread_count(self) -> int:
        """CPU threads, the default resolved."""
        return self.threads or available_cores()

    @property
    def baseline_row(self) -> tuple[str, str] | None:
        """Runtime and precision of the baseline, aliases resolved."""
        if self.baseline is None:
            return None
        name, _, precision = self.baseline.partition(":")
        return entry(name).name, parse_precision(precision or "fp32")


def _usage(what: str, why: str, fix: str) -> HnxError:
    return HnxError(what, why=why, fix=fix, code=ExitCode.USAGE)


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise _usage(f"Unknown {name} {value!r}", did_you_mean(value, known), "choose one of these")


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        text: what happens now.
        done, total: steps.
    """

    text: str
    done: int
    total: int


def planned_rows(runtimes: str) -> list[tuple[str, str]]:
    """(runtime, precision) of every row, in the order of the table.

    Raises:
        HnxError: an unknown runtime or precision (exit code 2).
    """
    rows: list[tuple[str, str]] = []
    for row, precision in parse_runtimes(runtimes):
        for name in row.precisions if precision is None else (precision,):
            if (row.name, name) not in rows:
                rows.append((row.name, name))
    return rows


# -- frames --------------------------------------------------------------------------------------------------


def load_frames(source: str | Path | None) -> list[NDArray[np.uint8]]:
    """JPEG bytes of up to 32 frames: of an image, folder, pattern or video evenly spaced, of a camera the first.

    JPEG files are taken as they are; other images and video frames are encoded at quality 95.

    Raises:
        HnxError: the source is missing or holds no image, or one cannot be decoded.
    """
    if source is None:
        from hybridnets.data import demo_frame

        source = demo_frame()
    with open_source(source) as opened:
        if not opened.is_video:
            return [_read_image(opened.files[index]) for index in _spread(len(opened.files))]
        wanted = set(_spread(opened.length or MAX_FRAMES))
        frames = []
        for frame in opened:
            if frame.index in wanted:
                frames.append(_encode(frame.image))
            if frame.index >= max(wanted):
                break
    return frames


def _spread(count: int) -> list[int]:
    if count <= MAX_FRAMES:
        return list(range(count))
    return [index * count // MAX_FRAMES for index in range(MAX_FRAMES)]


def _read_image(path: Path) -> NDArray[np.uint8]:
    frame = read_image(path)
    data = np.fromfile(path, np.uint8)
    return data if bytes(data[:2]) == b"\xff\xd8" else _encode(frame)


def _encode(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    done, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not done:
        raise HnxError("OpenCV cannot encode JPEG", fix="pip install --force-reinstall opencv-python-headless")
    return np.asarray(data, np.uint8).ravel()


# -- rows ----------------------------------------------------------------------------------------------------


@dataclass
class _Row:
    """One row while it is measured."""

    runtime: str
    precision: str
    worker: Worker | None = None
    skipped: dict[str, str] | None = None
    opened: dict[str, Any] = field(default_factory=dict)
    warmup: dict[str, Any] = field(default_factory=dict)
    # kind or stage -> samples in ms, one list for each round
    samples: dict[str, list[list[float]]] = field(default_factory=lambda: {name: [] for name in (*KINDS, *STAGES)})
    per_second: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    spent_s: float = 0.0
    wall_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    foreign_s: float | None = 0.0
    idle: bool = True
    finite: bool = True
    exhausted: bool = False
    peak_mb: float | None = None

    @property
    def name(self) -> str:
        return f"{self.runtime}:{self.precision}"

    @property
    def live(self) -> bool:
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
        taken = [value for samples in self.samples[kind] for value in samples] or self.warmup.get("samples_ms") or [0.0]
        return percentile(taken, 50) / 1e3


@dataclass
class _Run:
    """The state of one `run_bench`."""

    config: BenchConfig
    rows: list[_Row]
    frames: list[str]
    input_sha256: str
    start: Callable[[], Worker]
    workers: list[Worker]
    report_progress: Callable[[Progress], None]
    done: int = 0

    def step(self, text: str) -> None:
        """Tell the caller what begins now, if anything; steps are the loading of each row, then its turns."""
        total = len(self.rows) * (1 + self.config.effective.rounds)
        if text:
            self.report_progress(Progress(text, self.done, total))
        self.done += 1

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
    preset = config.effective
    encoded = load_frames(config.source)
    expected = tensor_sha256(config.bundle.preprocessor()(decode_jpeg(encoded[0]))[0])
    environment = describe_environment()
    counters = throttle_counters()
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory(prefix="hnx-bench-") as folder, closing_all(workers):
        names = []
        for index, data in enumerate(encoded):
            path = Path(folder) / f"{index:03d}.jpg"
            path.write_bytes(data.tobytes())
            names.append(str(path))
        rows = [_Row(runtime, precision) for runtime, precision in planned_rows(config.runtimes)]
        run = _Run(config, rows, names, expected, start, workers, on_progress or (lambda progress: None))
        _load_all(run)
        for index in range(preset.rounds):
            _measure_round(run, index)
        _finish(run)
    throttled = throttled_since(counters, throttle_counters())
    # only Linux has it; the state before the run is in the environment already
    if hasattr(os, "getloadavg"):
        environment["load_average_after"] = [round(value, 2) for value in os.getloadavg()]
    environment["throttled"] = throttled
    return _make_report(run, encoded, environment, throttled)


def _load_all(run: _Run) -> None:
    """One after another, so that no row is loaded while another one works."""
    for runtime in dict.fromkeys(row.runtime for row in run.rows):
        rows = [row for row in run.rows if row.runtime == runtime]
        spare: Worker | None = run.launch()
        assert spare is not None
        try:
            found = spare.call("probe", LOAD_TIMEOUT_S, runtime=runtime)
        except HnxError as error:
            spare.close()
            for row in rows:
                run.step(f"looking for {row.runtime}")
                row.fail(error, f"looking for {runtime}")
            continue
        for row in rows:
            run.step(f"loading {row.name}")
            problem = found["reason"] or found["precisions"].get(row.precision)
            if problem:
                row.skip(problem, found["fix"] or f"use one of: {', '.join(found['runnable'])}")
                continue
            row.worker = spare or run.launch()
            spare = None
            _load(run, row)
        if spare is not None:
            spare.close()


def _load(run: _Run, row: _Row) -> None:
    config = run.config
    assert row.worker is not None
    try:
        row.opened = row.worker.call(
            "open",
            LOAD_TIMEOUT_S,
            bundle=str(config.bundle.path.resolve()),
            runtime=row.runtime,
            precision=row.precision,
            threads=config.thread_count,
            streams=config.stream_count,
            frames=run.frames,
            conf=config.conf,
            iou=config.iou,
        )
        if row.opened["input_sha256"] != run.input_sha256:
            row.skip("its process prepared another input tensor than this one did", "report this: it is a bug in hnx")
            return
        rule = WarmUpRule(seconds=config.effective.warmup_s)
        warmup = row.worker.call("warm_up", 6 * rule.seconds + LOAD_TIMEOUT_S, **asdict(rule))
    except HnxError as error:
        row.fail(error, "loading" if isinstance(error, WorkerDiedError) else "")
        return
    row.warmup = {"samples_ms": _milliseconds(warmup["samples_ns"]), "stable": warmup["stable"]}
    row.spent_s = sum(row.warmup["samples_ms"]) / 1e3
    row.idle = bool(warmup["idle"])


def _measure_round(run: _Run, index: int) -> None:
    rows = run.rows if index % 2 == 0 else run.rows[::-1]
    for row in rows:
        turn = row.live and not row.exhausted
        run.step(f"round {index + 1}: {row.name}" if turn else "")
        if turn:
            _measure_row(run.config.effective, row, index)


def _measure_row(preset: Preset, row: _Row, index: int) -> None:
    count, seconds = math.ceil(preset.iterations / preset.rounds), preset.duration_s / preset.rounds
    limit = preset.max_time_s / (len(KINDS) * preset.rounds)
    discards = {kind: 1 if row.iteration_s(kind) * 1e3 > LONG_ITERATION_MS else DISCARD for kind in KINDS}
    # the first round is always taken, or there would be nothing to report
    least = sum((discards[kind] + 1) * row.iteration_s(kind) for kind in KINDS)
    if index > 0 and row.spent_s + least > preset.max_time_s:
        row.exhausted = True
        return
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
        _record(row, kind, reply, discards[kind])


def _record(row: _Row, kind: str, reply: Mapping[str, Any], discarded: int) -> None:
    row.samples[kind].append(_milliseconds(reply["total_ns"]))
    if kind == "end_to_end":
        for stage in STAGES:
            row.samples[stage].append(_milliseconds(reply[f"{stage}_ns"]))
    if reply["per_second"] is not None:
        row.per_second[kind].append(reply["per_second"])
    row.wall_s[kind] += reply["wall_s"]
    foreign = reply["foreign_s"]
    row.foreign_s = None if foreign is None or row.foreign_s is None else row.foreign_s + foreign
    row.spent_s += reply["wall_s"] + discarded * row.iteration_s(kind)
    row.idle = row.idle and bool(reply["idle"])


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
        row.peak_mb = reply["peak_mb"]
        row.worker.close()


def _milliseconds(nanoseconds: Sequence[int]) -> list[float]:
    return [value / 1e6 for value in nanoseconds]


# -- the report ----------------------------------------------------------------------------------------------


def _flat(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [value for samples in rounds for value in samples]


def _make_report(
    run: _Run, encoded: Sequence[NDArray[np.uint8]], environment: dict[str, Any], throttled: Sequence[str]
) -> Report:
    config = run.config
    cores = environment.get("cpu", {}).get("available_cores") or available_cores()
    load_before = next(iter(environment.get("load_average", [])), None)
    rows = [_row_json(row, config, len(encoded), cores, throttled, load_before) for row in run.rows]
    baseline = _baseline(run, rows)
    for row, values in zip(run.rows, rows, strict=True):
        if baseline is not None and row.live:
            values["ratio"] = {
                "baseline": baseline.name,
                **{kind: _rounded(paired_ratio(row.samples[kind], baseline.samples[kind])) for kind in KINDS},
            }
    return Report(
        rows=rows,
        environment=environment,
        settings=_settings_json(config, encoded, run.input_sha256, baseline),
        bundle=_bundle_json(config.bundle),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        schema_version=SCHEMA_VERSION,
    )


def _baseline(run: _Run, rows: Sequence[Mapping[str, Any]]) -> _Row | None:
    """The row asked for, else the first valid one, else the first that was measured."""
    measured = [(row, values) for row, values in zip(run.rows, rows, strict=True) if row.live]
    asked = run.config.baseline_row
    if asked is not None:
        return next((row for row, _ in measured if (row.runtime, row.precision) == asked), None)
    valid = [row for row, values in measured if values["valid"]]
    return next(iter([*valid, *(row for row, _ in measured)]), None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _row_json(
    row: _Row, config: BenchConfig, frames: int, cores: int, throttled: Sequence[str], load_before: float | None
) -> dict[str, Any]:
    head: dict[str, Any] = {"runtime": row.runtime, "precision": row.precision}
    if not row.live:
        return {**head, "valid": False, "skipped": row.skipped or {"reason": "it was not measured", "fix": ""}}
    preset = config.effective
    summaries = {name: summarise(_flat(rounds)) for name, rounds in row.samples.items()}
    execution = row.opened["execution"]
    wall = sum(row.wall_s.values())
    # without accounts of each core (not Linux): the load before we began was all somebody else's
    foreign = load_before if row.foreign_s is None or wall <= 0 else max(0.0, row.foreign_s / wall)
    hit_limit = any(summaries[kind].count < preset.iterations or row.wall_s[kind] < preset.duration_s for kind in KINDS)
    verdict = judge(
        Evidence(
            forward=summaries["forward"],
            end_to_end=summaries["end_to_end"],
            forward_rounds=row.samples["forward"],
            frames=frames,
            asked=row.precision,
            executed=execution["precision"],
            finite=row.finite,
            warmed_up=row.warmup["stable"],
            went_idle=row.idle,
            foreign_cores=foreign,
            cores=cores,
            throttled=throttled,
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
        "frames_per_second": _throughput(row),
        "load_ms": round(row.opened["load_ms"], 3),
        "first_inference_ms": round(row.opened["first_inference_ms"], 3),
        "memory_mb": {**row.opened["memory_mb"], "peak": row.peak_mb},
        "execution": {key: value for key, value in execution.items() if key != "precision"},
        "warmup": {"stable": row.warmup["stable"], "iterations": len(row.warmup["samples_ms"])},
        "rounds": len(row.samples["forward"]),
        "hit_time_limit": hit_limit,
        "foreign_cores": None if foreign is None else round(foreign, 3),
        "samples_ms": {"warmup": row.warmup["samples_ms"], **row.samples},
    }


def _throughput(row: _Row) -> dict[str, float]:
    """Measured with several streams (median of the rounds); with one it is what the mean latency allows."""
    values = {}
    for kind in KINDS:
        measured = row.per_second[kind]
        mean = summarise(_flat(row.samples[kind])).mean
        values[kind] = round(percentile(measured, 50) if measured else 1e3 / mean if mean > 0 else 0.0, 3)
    return values


def _settings_json(
    config: BenchConfig, encoded: Sequence[NDArray[np.uint8]], input_sha256: str, baseline: _Row | None
) -> dict[str, Any]:
    sizes = sorted({tuple(decode_jpeg(data).shape[:2]) for data in encoded})
    return {
        "runtimes": config.runtimes,
        "scenario": config.scenario,
        "streams": config.stream_count,
        "threads": config.thread_count,
        "preset": config.preset,
        **asdict(config.effective),
        "warmup": asdict(WarmUpRule(seconds=config.effective.warmup_s)),
        "discarded_after_switch": DISCARD,
        "pause_s": PAUSE_S,
        "percentiles": {"levels": list(PERCENTILES), "method": "linear"},
        "clock": "perf_counter_ns",
        "conf": config.conf,
        "iou": config.iou,
        "model_cache": False,
        "baseline": None if baseline is None else baseline.name,
        "frames": {
            "count": len(encoded),
            "sizes": [f"{width}x{height}" for height, width in sizes],
            "sha256": hashlib.sha256(b"".join(data.tobytes() for data in encoded)).hexdigest(),
        },
        "input_sha256": input_sha256,
    }


def _bundle_json(bundle: Bundle) -> dict[str, Any]:
    recorded = bundle.manifest.get("files", {}) if isinstance(bundle.manifest, Mapping) else {}
    files: dict[str, str] = {}
    for name in {variant.file for variant in bundle.variants}:
        if name in recorded:
            files[name] = str(recorded[name].get("sha256", ""))
        elif bundle.file(name).is_file():
            files[name] = sha256_file(bundle.file(name))
    return {
        "name": bundle.name,
        "input": str(bundle.input),
        "untrained": bundle.untrained,
        "notes": list(bundle.notes),
        "files_sha256": dict(sorted(files.items())),
    }
