"""From the scored images of every row to the report: metrics, intervals, drops, and what was evaluated."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.accuracy.bootstrap import intervals
from benchmarks.accuracy.config import EvalConfig
from benchmarks.accuracy.protocols import Heads
from benchmarks.accuracy.report import EvalReport, figures, watched
from benchmarks.accuracy.rows import EvalRow, inputs_json, shown
from benchmarks.accuracy.store import bundle_files
from benchmarks.results import bundle_json
from hybridnets.errors import printable
from hybridnets.project import Project

__all__ = ["EvalResult", "build_report", "names_digest", "summarise", "trouble_json"]

LEVEL = 0.95
SEED = 0


@dataclass(frozen=True)
class EvalResult:
    """A report, and the records it was made of, for pictures and shards.

    Attributes:
        rows: all of them, in the order of the report.
    """

    report: EvalReport
    rows: Sequence[EvalRow]


def summarise(
    config: EvalConfig, rows: Sequence[EvalRow], environment: Mapping[str, Any], *, data_digest: str
) -> EvalResult:
    """The result of a run.

    Args:
        data_digest: of the whole split, as the store's key has it.
    """
    heads = Heads.for_bundle(config.bundle)
    bundle = {
        **bundle_json(config.bundle),
        "path": str(config.bundle.path),
        "files_sha256": bundle_files(config.bundle),
        "classes": list(heads.classes),
        "seg_classes": list(heads.seg_classes),
        "seg_mode": heads.seg_mode,
    }
    settings = {
        "runtimes": config.runtimes,
        "threads": config.thread_count,
        "workers": config.worker_count,
        "draws": config.draws,
    }
    report = build_report(
        rows,
        heads,
        asked=config.baseline_row,
        data={**_data_json(config), "digest": data_digest, **trouble_json(rows)},
        protocol=asdict(config.effective),
        bundle=bundle,
        environment=environment,
        settings=settings,
    )
    return EvalResult(report, rows)


def build_report(
    rows: Sequence[EvalRow],
    heads: Heads,
    *,
    asked: tuple[str, str] | None,
    data: Mapping[str, Any],
    protocol: Mapping[str, Any],
    bundle: Mapping[str, Any],
    environment: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> EvalReport:
    """Metrics of every row, and what one can say about them together.

    Args:
        asked: runtime and precision of the baseline that was asked for.
        settings: with `draws`, the number of resamplings.
    """
    baseline = _baseline(rows, asked)
    live = {row.name: row for row in rows if row.live}
    spread = intervals(
        {name: row.accumulator for name, row in live.items()}, baseline, draws=settings["draws"], seed=SEED, level=LEVEL
    )
    values = [row.to_json() for row in rows]
    found = {row.name: figures(value["metrics"]) for row, value in zip(rows, values, strict=True) if row.live}
    for row, value in zip(rows, values, strict=True):
        if not row.live:
            continue
        value["intervals"] = {key: list(ends) for key, ends in spread.rows.get(row.name, {}).items()}
        if baseline is not None and row.name != baseline:
            ends = spread.drops.get(row.name, {})
            value["drop"] = {
                "baseline": baseline,
                "metrics": {
                    key: {
                        "points": (found[baseline][key] - figure) * 100,
                        "interval": [end * 100 for end in ends[key]] if key in ends else None,
                    }
                    for key, figure in found[row.name].items()
                    if key in found[baseline]
                },
            }
    return EvalReport(
        rows=values,
        data=data,
        protocol=protocol,
        inputs=inputs_json(rows),
        bundle=bundle,
        environment=environment,
        settings={
            **settings,
            "baseline": baseline,
            "level": LEVEL,
            "seed": SEED,
            "watched": watched(heads.seg_classes, boxes=bool(heads.classes)),
        },
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _baseline(rows: Sequence[EvalRow], asked: tuple[str, str] | None) -> str | None:
    """The row asked for if it ran, else torch:fp32, else the first fp32 row, else none."""
    live = [row for row in rows if row.live]
    if asked is not None:
        return next((row.name for row in live if (row.runtime, row.precision) == asked), None)
    full = [row for row in live if row.precision == "fp32"]
    # what the network was trained and proved with
    torch = [row for row in full if row.runtime == "torch"]
    return next((row.name for row in [*torch, *full]), None)


# -- the data ------------------------------------------------------------------------------------------------


def names_digest(names: Iterable[str]) -> str:
    """Hex SHA-256 over names, in their order."""
    return hashlib.sha256("".join(f"{name!r}\n" for name in sorted(names)).encode()).hexdigest()


def _data_json(config: EvalConfig) -> dict[str, Any]:
    split = config.split
    folders = [split.images, split.labels, *split.masks]
    return {
        "path": _common(folders),
        "folders": [printable(str(folder)) for folder in folders],
        "project": split.project.name,
        "truth": _truth_json(split.project),
        "split": split.split,
        "images": len(config.names),
        "of": len(config.all_names),
        "limit": config.limit,
        "shard": None if config.shard is None else str(config.shard),
        "names_sha256": names_digest(config.all_names),
    }


def _truth_json(project: Project) -> dict[str, Any]:
    """What of a project decides the truth."""
    return {
        "classes": list(project.classes),
        "combine": list(project.combine),
        "traffic_light_color": project.traffic_light_color,
        "seg_classes": list(project.seg_list),
        "seg_mode": project.seg_mode,
        "org_img_size": list(project.dataset.org_img_size),
    }


def _common(folders: Sequence[Path]) -> str:
    try:
        return printable(os.path.commonpath(folders) or ".")
    except ValueError:  # some absolute, some not
        return printable(str(folders[0]))


def trouble_json(rows: Sequence[EvalRow]) -> dict[str, Any]:
    """Images and labels that could not be used, of all rows together."""
    broken: dict[str, str] = {}
    dropped: dict[str, Sequence[str]] = {}
    for row in rows:
        broken.update(row.broken)
        dropped.update(row.dropped)
    sentences = [sentence for name in sorted(dropped) for sentence in dropped[name]]
    names = sorted(broken)
    return {
        "broken": {
            "count": len(broken),
            "images": [
                {"name": text, "reason": printable(broken[name])}
                for name, text in zip(names, shown(names), strict=False)
            ],
        },
        "dropped_boxes": {"count": len(sentences), "reasons": shown(sentences)},
    }
