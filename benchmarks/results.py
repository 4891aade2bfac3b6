"""The report of a finished run: rows, the ratio to the baseline, settings and bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.config import EXTENSION, BenchConfig
from benchmarks.frames import decode_jpeg
from benchmarks.report import SCHEMA_VERSION, Report
from benchmarks.rows import Machine, Row, row_json
from benchmarks.sampling import KINDS, WarmUpRule
from benchmarks.statistics import PERCENTILES, paired_ratio
from hybridnets.bundle import Bundle
from hybridnets.files import sha256_file
from runtimes.base import available_threads

__all__ = ["bundle_json", "make_report"]


def make_report(
    config: BenchConfig,
    rows: Sequence[Row],
    encoded: Sequence[NDArray[np.uint8]],
    environment: Mapping[str, Any],
    measuring: Mapping[str, Any],
    power: Mapping[str, Any] | None = None,
) -> Report:
    """Judge every row and put everything together.

    Args:
        encoded: the frames as JPEG bytes.
        environment: of `describe_environment`, with `throttled` of the run in it.
        measuring: further settings of the run.
        power: of the meter, with its raw readings; None where it was off.
    """
    machine = Machine(
        cores=available_threads(),
        load_before=next(iter(environment.get("load_average", [])), None),
        throttled=environment["throttled"],
    )
    values = [row_json(row, config, len(encoded), machine) for row in rows]
    baseline = _baseline(config, list(zip(rows, values, strict=True)))
    for row, value in zip(rows, values, strict=True):
        if baseline is not None and row.live:
            ratios = {kind: paired_ratio(row.samples[kind], baseline.samples[kind]) for kind in KINDS}
            value["ratio"] = {
                "baseline": baseline.name,
                **{kind: None if ratio is None else round(ratio, 4) for kind, ratio in ratios.items()},
            }
    return Report(
        rows=values,
        environment=environment,
        settings=_settings_json(config, encoded, None if baseline is None else baseline.name) | dict(measuring),
        bundle=bundle_json(config.bundle),
        power=power or {},
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        schema_version=SCHEMA_VERSION,
    )


def _baseline(config: BenchConfig, rows: Sequence[tuple[Row, Mapping[str, Any]]]) -> Row | None:
    """The row asked for, else the first valid one, else the first that was measured."""
    measured = [(row, values) for row, values in rows if row.live]
    asked = config.baseline_row
    if asked is not None:
        return next((row for row, _ in measured if (row.runtime, row.precision) == asked), None)
    valid = [row for row, values in measured if values["valid"]]
    return next(iter([*valid, *(row for row, _ in measured)]), None)


def _settings_json(config: BenchConfig, encoded: Sequence[NDArray[np.uint8]], baseline: str | None) -> dict[str, Any]:
    sizes = sorted({tuple(decode_jpeg(data).shape[:2]) for data in encoded})
    return {
        "runtimes": config.runtimes,
        "scenario": config.scenario,
        "streams": config.stream_count,
        "threads": config.thread_count,
        "compiled": config.compiled,
        "preset": config.preset,
        **asdict(config.effective),
        "extension": EXTENSION,
        "warmup": asdict(WarmUpRule(seconds=config.effective.warmup_s)),
        "percentiles": {"levels": list(PERCENTILES), "method": "linear"},
        "clock": "perf_counter_ns",
        "conf": config.thresholds[0],
        "iou": config.thresholds[1],
        "model_cache": False,
        "baseline": baseline,
        "frames": {
            "count": len(encoded),
            "sizes": [f"{width}x{height}" for height, width in sizes],
            "sha256": hashlib.sha256(b"".join(data.tobytes() for data in encoded)).hexdigest(),
        },
    }


def bundle_json(bundle: Bundle) -> dict[str, Any]:
    """What a report says about the bundle, with the SHA-256 of every network in it."""
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
        "pipeline": bundle.form.to_json(),
        "untrained": bundle.untrained,
        "notes": list(bundle.notes),
        "files_sha256": dict(sorted(files.items())),
    }
