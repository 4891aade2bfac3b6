"""Shards put together: `hnx eval --shard I/N --json FILE` here and there, then `hnx eval --merge FILE FILE ...`.

A shard leaves FILE and beside it the folder FILE-without-suffix.records with the records of its images. The merged
figures are computed from all records, as those of one run are, and are equal to them to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks.accuracy.config import Shard
from benchmarks.accuracy.metrics import Accumulator
from benchmarks.accuracy.protocols import Heads
from benchmarks.accuracy.report import EvalReport, read_report
from benchmarks.accuracy.rows import EvalRow
from benchmarks.accuracy.store import Chunk, load_chunks, write_chunk
from benchmarks.accuracy.summary import EvalResult, build_report, names_digest, trouble_json
from hybridnets.config import SegMode
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import atomic_directory

__all__ = ["merge_shards", "records_folder", "write_shard"]

# what must be the same in all shards: part of the report, its key, and how to say it
SAME = (
    ("data", "names_sha256", "the list of images"),
    ("data", "truth", "the project"),
    ("data", "split", "the split"),
    ("protocol", None, "the protocol"),
    ("bundle", "files_sha256", "the bundle"),
    ("bundle", "classes", "the detection classes"),
    ("bundle", "seg_classes", "the segmentation classes"),
    ("bundle", "seg_mode", "the segmentation mode"),
    ("environment", "hnx", "the version of hnx"),
)


def records_folder(report: Path) -> Path:
    """Where the records of a shard's report lie."""
    return report.with_suffix(".records")


def _row_folder(report: Path, runtime: str, precision: str) -> Path:
    return records_folder(report) / re.sub(r"[^A-Za-z0-9_-]+", "-", f"{runtime}-{precision}")


def write_shard(result: EvalResult, report: Path) -> None:
    """Write the records of every row that ran, beside its report.

    Raises:
        HnxError: the folder cannot be written.
    """
    with atomic_directory(records_folder(report)) as inside:
        for row in result.rows:
            if row.live:
                folder = inside / _row_folder(report, row.runtime, row.precision).name
                folder.mkdir()
                write_chunk(folder, Chunk(list(row.accumulator), row.broken, sorted(row.nonfinite), row.dropped))


def merge_shards(paths: Sequence[Path], *, baseline: tuple[str, str] | None = None, draws: int = 200) -> EvalResult:
    """The evaluation of all images from those of its shards.

    A row is in the result when it ran in every shard.

    Args:
        paths: JSON reports of all shards, in any order.
        baseline: runtime and precision; None as in a run.
        draws: resamplings of the intervals.

    Raises:
        HnxError: a shard is missing, there twice, or of another evaluation; records are missing or damaged.
    """
    reports = [read_report(path) for path in paths]
    _check_shards(paths, reports)
    _check_same(paths, reports)
    first = reports[0]
    heads = _heads(first, paths[0])
    names = list(dict.fromkeys((row["runtime"], row["precision"]) for report in reports for row in report.rows))
    if baseline is not None and baseline not in names:
        raise HnxError(
            f"Baseline {':'.join(baseline)} is in none of the shards",
            why=f"they hold {', '.join(map(':'.join, names))}",
            fix="name one of these",
            code=ExitCode.USAGE,
        )
    rows = [_row(paths, reports, heads, runtime, precision) for runtime, precision in names]
    data = {
        **first.data,
        "images": first.data["of"],
        "shard": None,
        "digest": None,
        "merged": [path.name for path in paths],
        **trouble_json(rows),
    }
    report = build_report(
        rows,
        heads,
        asked=baseline,
        data=data,
        protocol=first.protocol,
        bundle=first.bundle,
        environment=first.environment,
        settings={**first.settings, "draws": draws},
    )
    return EvalResult(report, rows)


def _check_shards(paths: Sequence[Path], reports: Sequence[EvalReport]) -> None:
    found: dict[int, Path] = {}
    counts = set()
    for path, report in zip(paths, reports, strict=True):
        text = report.data.get("shard")
        if not isinstance(text, str):
            raise HnxError(
                f"{path} is not the report of a shard",
                why="it was made without --shard, so there is nothing to add",
                fix="name reports that were made with --shard I/N --json FILE",
                code=ExitCode.USAGE,
            )
        shard = Shard.parse(text)
        counts.add(shard.count)
        if shard.index in found and len(counts) == 1:
            raise HnxError(
                f"{found[shard.index]} and {path} are both shard {shard}", fix="name each once", code=ExitCode.USAGE
            )
        found[shard.index] = path
    if len(counts) > 1:
        raise HnxError(
            "The shards do not belong together",
            why=f"some are of {' and some of '.join(map(str, sorted(counts)))} parts",
            fix="cut the data set in the same way everywhere",
        )
    count = counts.pop()
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in found]
    if missing:
        raise HnxError(
            f"{'Shard' if len(missing) == 1 else 'Shards'} {', '.join(missing)} missing",
            why=f"{len(found)} of {count} are named",
            fix="name the reports of all shards",
            code=ExitCode.USAGE,
        )


def _check_same(paths: Sequence[Path], reports: Sequence[EvalReport]) -> None:
    for section, key, words in SAME:
        values = [getattr(report, section) for report in reports]
        if key is not None:
            values = [value.get(key) for value in values]
        for path, value in zip(paths[1:], values[1:], strict=True):
            if value != values[0]:
                raise HnxError(
                    f"{path} does not belong to {paths[0]}",
                    why=f"{words} is not the same",
                    fix="evaluate all shards in the same way, on copies of the same data",
                )


def _heads(report: EvalReport, path: Path) -> Heads:
    bundle: Mapping[str, Any] = report.bundle
    classes, seg_classes, mode = (bundle.get(key) for key in ("classes", "seg_classes", "seg_mode"))
    known: dict[Any, SegMode] = {name: name for name in get_args(SegMode)}
    if not isinstance(classes, list) or not isinstance(seg_classes, list) or mode not in known:
        raise HnxError(f"Cannot use {path}", why="it does not name the network's classes", fix="evaluate again")
    return Heads(tuple(map(str, classes)), tuple(map(str, seg_classes)), known[mode])


def _row(paths: Sequence[Path], reports: Sequence[EvalReport], heads: Heads, runtime: str, precision: str) -> EvalRow:
    row = EvalRow(runtime, precision, Accumulator(heads))
    for path, report in zip(paths, reports, strict=True):
        found = next((r for r in report.rows if (r["runtime"], r["precision"]) == (runtime, precision)), None)
        if found is None or "skipped" in found:
            reason = "it was not asked for" if found is None else str(found["skipped"].get("reason"))
            row.skip(f"in shard {report.data['shard']} ({path.name}): {reason}", "evaluate that shard again")
            row.failed = bool(found and found["skipped"].get("failed"))
            return row
        if row.execution and row.execution["precision"] != found["executed"]:
            row.skip(
                f"it ran {row.execution['precision']} in one shard and {found['executed']} in {path.name}",
                "evaluate all shards on machines of one kind",
            )
            return row
        if path != paths[0] and found.get("network") != row.network:
            row.skip(f"{path.name} was tuned to another network", "evaluate all shards with one tuned bundle")
            return row
        row.network = found.get("network")
        row.execution = {**(found.get("execution") or {}), "precision": found["executed"]}
        row.restarts += int(found.get("restarts") or 0)
        row.seconds += float(found.get("seconds") or 0.0)
        chunks, damaged = load_chunks(_row_folder(path, runtime, precision), None)
        if damaged or not chunks:
            raise HnxError(
                f"The records of {row.name} beside {path} are {'damaged' if damaged else 'missing'}",
                why=f"they are expected in {_row_folder(path, runtime, precision)}",
                fix="copy the folder together with the report, or evaluate that shard again",
            )
        for chunk in chunks:
            row.add(chunk)
    if names_digest([*row.inputs, *row.broken]) != reports[0].data["names_sha256"]:
        raise HnxError(
            f"The shards of {row.name} do not make up the whole data set",
            why="records are of other images than the reports say",
            fix="copy each folder of records together with its report",
        )
    return row
