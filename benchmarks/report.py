"""What a measurement becomes: JSON is the truth, the table, Markdown and CSV are views of it."""

from __future__ import annotations

import csv
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.device import device_lines
from benchmarks.forms import all_objects, numbers, optional_numbers
from benchmarks.power import words as power_words
from benchmarks.sampling import KINDS, STAGES
from benchmarks.skips import skipped_lines
from benchmarks.statistics import LONGER, more_samples
from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.files import read_json, write_bytes, write_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "REPORT_SUFFIXES",
    "SCHEMA_VERSION",
    "Report",
    "check_output",
    "csv_text",
    "markdown",
    "print_report",
    "read_report",
    "remarks",
    "row_name",
    "write_report",
]

SCHEMA_VERSION = 1
WIDTH = 120
# what a glance at a terminal can take in; JSON holds everything
SHOWN_REASONS = 2
SHOWN_ADVICE = 3
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """One measurement.

    Attributes:
        rows: one object for each runtime and precision, skipped ones too.
        environment, settings, bundle: what ran, on what, and how.
        power: what was read of power, with its raw readings; empty where nothing was asked for.
        created: UTC time, ISO 8601.
    """

    rows: Sequence[Row]
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    bundle: Mapping[str, Any]
    power: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def measured(self) -> list[Row]:
        """Rows that ran."""
        return [row for row in self.rows if "skipped" not in row]

    @property
    def skipped(self) -> list[Row]:
        """Rows that could not run."""
        return [row for row in self.rows if "skipped" in row]

    def to_json(self) -> dict[str, Any]:
        """The whole report; plain JSON values without NaN."""
        return {
            "schema_version": self.schema_version,
            "created": self.created,
            "rows": list(self.rows),
            "environment": dict(self.environment),
            "settings": dict(self.settings),
            "bundle": dict(self.bundle),
            **({"power": dict(self.power)} if self.power else {}),
        }


def row_name(row: Row) -> str:
    """`runtime:precision`."""
    return f"{row['runtime']}:{row['precision']}"


def read_report(path: Path) -> Report:
    """An earlier report.

    Raises:
        HnxError: missing, not a report, or written by a newer hnx.
    """
    value = read_json(path)
    version = value.get("schema_version") if isinstance(value, dict) else None
    # reports of `hnx bench` name no kind
    other = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(version, int) or not isinstance(value.get("rows"), list) or other is not None:
        raise HnxError(
            f"{path} is not a report of `hnx bench`",
            why="it has no schema_version and rows" if other is None else f"it is one of another kind: {other}",
            fix="write one with `hnx bench --json FILE`",
        )
    if version > SCHEMA_VERSION:
        raise HnxError(
            f"Cannot use {path}",
            why=f"its schema version is {version}, this hnx reads {SCHEMA_VERSION}",
            fix="update hnx",
        )
    for number, row in enumerate(value["rows"], 1):
        if not isinstance(row, dict) or not _complete(row):
            raise HnxError(f"Cannot use {path}", why=f"row {number} has the wrong form", fix="measure again")
    for key in ("environment", "settings", "bundle", "power"):
        if not all_objects(value.get(key)):
            raise HnxError(f"Cannot use {path}", why=f"its {key!r} is no object", fix="measure again")
    return Report(
        rows=value["rows"],
        environment=value.get("environment") or {},
        settings=value.get("settings") or {},
        bundle=value.get("bundle") or {},
        power=value.get("power") or {},
        created=str(value.get("created", "")),
        schema_version=version,
    )


def _complete(row: Row) -> bool:
    if not all(isinstance(row.get(key), str) for key in ("runtime", "precision")):
        return False
    if "skipped" in row:
        return isinstance(row["skipped"], dict)
    timed = all(numbers(row.get(f"{kind}_ms"), ("p50", "p95", "p99")) for kind in KINDS)
    power = row.get("power")
    read = all_objects(power) and all_objects(*((power or {}).get(kind) for kind in KINDS))
    return timed and read and optional_numbers(row.get("ratio"), KINDS) and all_objects(row.get("network"))


# -- views ---------------------------------------------------------------------------------------------------


def _ms(value: float | None) -> str:
    """Three significant figures from 1 ms on, three decimals below; always milliseconds."""
    if value is None:
        return ""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def _ratio(row: Row) -> str:
    value = (row.get("ratio") or {}).get("forward")
    return "" if value is None else f"{value:.2f}"


def _memory(row: Row) -> str:
    peak = row.get("memory_mb", {}).get("peak")
    return "" if peak is None else f"{peak:.0f}"


def _cached(row: Row, key: str) -> str:
    value = (row.get("cached") or {}).get(key)
    return "" if value is None else f"{value:.0f}" if key == "load_ms" else _ms(value)


def _name(row: Row) -> str:
    executed = row.get("executed", row["precision"])
    return row_name(row) if executed == row["precision"] else f"{row_name(row)} ran {executed}"


# heading (two lines in the table), right-aligned, cell; the main table
_COLUMNS: tuple[tuple[str, bool, Callable[[Row], str]], ...] = (
    ("runtime", False, _name),
    ("forward\np50", True, lambda row: _ms(row["forward_ms"]["p50"])),
    ("p95", True, lambda row: _ms(row["forward_ms"]["p95"])),
    ("p99", True, lambda row: _ms(row["forward_ms"]["p99"])),
    ("end to end\np50", True, lambda row: _ms(row["end_to_end_ms"]["p50"])),
    ("p95", True, lambda row: _ms(row["end_to_end_ms"]["p95"])),
    ("p99", True, lambda row: _ms(row["end_to_end_ms"]["p99"])),
    ("frames\nper s", True, lambda row: f"{row['frames_per_second']['end_to_end']:.1f}"),
    ("ratio", True, _ratio),
    ("load", True, lambda row: f"{row['load_ms']:.0f}"),
    ("peak\nMB", True, _memory),
    ("n", True, lambda row: str(row["forward_ms"]["count"])),
    ("valid", False, lambda row: "yes" if row["valid"] else "NO"),
)
_STAGE_COLUMNS: tuple[tuple[str, bool, Callable[[Row], str]], ...] = (
    ("p50 of\nstages", False, _name),
    *((stage, True, lambda row, stage=stage: _ms(row["stages_ms"][stage]["p50"])) for stage in STAGES),
    ("end\nto end", True, lambda row: _ms(row["end_to_end_ms"]["p50"])),
    ("forward\nonly", True, lambda row: _ms(row["forward_ms"]["p50"])),
    ("first\ninference", True, lambda row: _ms(row["first_inference_ms"])),
    ("load from\ncache", True, lambda row: _cached(row, "load_ms")),
    ("first in-\nference then", True, lambda row: _cached(row, "first_inference_ms")),
)  # fmt: skip
_POWER_COLUMNS = (("power", False, _name), *power_words.COLUMNS)


def _tables(report: Report) -> list[Sequence[tuple[str, bool, Callable[[Row], str]]]]:
    """Those that have something to show."""
    if not report.measured:
        return []
    return [_COLUMNS, _STAGE_COLUMNS, *([_POWER_COLUMNS] if power_words.has_figures(report.measured) else [])]


def headline(report: Report) -> str:
    """What was measured, in one line."""
    settings, cpu = report.settings, report.environment.get("cpu") or {}
    streams = "" if settings.get("scenario") == "single" else f" with {settings.get('streams')} streams"
    return (
        f"{report.bundle.get('name', 'bundle')} on {cpu.get('model', 'this machine')}, "
        f"{settings.get('threads')} threads, scenario {settings.get('scenario')}{streams}. All times in ms."
    )


def remarks(report: Report) -> list[str]:
    """Sentences below the table: what the ratio means, what speaks against rows, what to do, what was skipped.

    Of each row the most decisive reasons only, and of all advice what most rows need.
    """
    lines = []
    baseline = report.settings.get("baseline")
    if baseline is not None and len(report.measured) > 1:
        lines.append(f"ratio: forward-only time over that of {baseline} in the same rounds; below 1 is faster")
    for row in report.measured:
        if row["reasons"]:
            hidden = len(row["reasons"]) - SHOWN_REASONS
            more = f" (+{hidden} in the JSON report)" if hidden > 0 else ""
            lines.append(f"{row_name(row)} is not valid: {'; '.join(row['reasons'][:SHOWN_REASONS])}{more}")
    lines.extend(device_lines(report.measured, row_name))
    lines.extend(power_words.remarks(report.power, report.measured, row_name))
    lines.extend(f"advice: {sentence}" for sentence in _advice(report.measured))
    lines.extend(skipped_lines(report.skipped))
    if report.bundle.get("untrained"):
        lines.append("the weights are untrained: times hold, boxes and masks mean nothing")
    return lines


def _advice(rows: Sequence[Row]) -> list[str]:
    """What most rows need comes first. The rows' own numbers of samples become one: the largest serves all."""
    enough = [row["enough_samples"] for row in rows if row["enough_samples"] is not None]
    last = [more_samples(max(enough))] if enough else []
    replaced = {LONGER, *map(more_samples, enough)} if enough else set()
    counts = Counter(sentence for row in rows for sentence in row["advice"] if sentence not in replaced)
    return [*(sentence for sentence, _ in counts.most_common(SHOWN_ADVICE - len(last))), *last]


def _table(report: Report, columns: Sequence[tuple[str, bool, Callable[[Row], str]]], pretty: bool) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if pretty else box.ASCII2, padding=(0, 1), show_edge=False, pad_edge=False)
    for heading, right, _ in columns:
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for row in report.measured:
        table.add_row(*(cell(row) for _, _, cell in columns), style=None if row["valid"] or not pretty else "yellow")
    return table


def print_report(report: Report, console: Console) -> None:
    """The tables and the remarks; plain ASCII of at most 120 columns where the console is no terminal."""
    pretty = console.is_terminal
    width = min(WIDTH, console.width)
    console.print(headline(report), markup=False, soft_wrap=True)
    for columns in _tables(report):
        console.print(_table(report, columns, pretty), width=width)
        console.print()
    for line in remarks(report):
        console.print(line, markup=False, soft_wrap=True)


def markdown(report: Report) -> str:
    """The report as Markdown."""
    lines = ["# Latency", "", headline(report), ""]
    for columns in _tables(report):
        lines.append("| " + " | ".join(heading.replace("\n", " ") for heading, _, _ in columns) + " |")
        lines.append("|" + "|".join("---:" if right else "---" for _, right, _ in columns) + "|")
        lines.extend("| " + " | ".join(cell(row) for _, _, cell in columns) + " |" for row in report.measured)
        lines.append("")
    lines.extend(f"- {line}" for line in remarks(report))
    environment, tensor = report.environment, report.settings.get("input_sha256", "?")
    lines.extend(
        [
            "",
            f"Measured {report.created} with hnx {environment.get('hnx', '?')} on {environment.get('os', '?')}, "
            f"{environment.get('python', '?')}; SHA-256 of the input tensor {tensor}.",
            "",
        ]
    )
    return "\n".join(lines)


def csv_text(report: Report) -> str:
    """One line for each row; every statistic in a column of its own, empty where a row was skipped."""
    groups = {"forward": "forward_ms", "end_to_end": "end_to_end_ms"}
    records: list[dict[str, Any]] = []
    for row in report.rows:
        record: dict[str, Any] = {
            "runtime": row["runtime"],
            "precision": row["precision"],
            "executed": row.get("executed", ""),
            "valid": str(bool(row.get("valid"))).lower(),
            "skipped": row.get("skipped", {}).get("reason", ""),
        }
        if "skipped" not in row:
            record.update({key: row[key] for key in ("load_ms", "first_inference_ms")})
            record.update({f"cached_{key}": value for key, value in (row.get("cached") or {}).items()})
            record.update({f"memory_{key}_mb": value for key, value in row["memory_mb"].items()})
            record.update({f"{key}_per_second": value for key, value in row["frames_per_second"].items()})
            record["ratio"] = (row.get("ratio") or {}).get("forward", "")
            for name, key in groups.items():
                record.update({f"{name}_{statistic}_ms": value for statistic, value in row[key].items()})
            for stage, summary in row["stages_ms"].items():
                record[f"{stage}_p50_ms"] = summary["p50"]
            record.update(power_words.csv_fields(row))
            record["reasons"] = "; ".join(row["reasons"])
        records.append({key.replace("count_ms", "count"): value for key, value in record.items()})
    fields = list(dict.fromkeys(key for record in records for key in record))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


_WRITERS: Mapping[str, Callable[[Report], str]] = {".md": markdown, ".csv": csv_text}
REPORT_SUFFIXES = (".json", *_WRITERS)


def check_output(path: Path, suffixes: Sequence[str] = ()) -> None:
    """Refuse a file that could not be written, before minutes of measuring; nothing is left behind.

    Args:
        suffixes: those allowed; empty allows all.

    Raises:
        HnxError: another suffix (exit code 2), not an ordinary file, or no right to write there.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise HnxError(
            f"Cannot write a report as {path.name}",
            why=f"its name must end in {' or '.join(filter(None, [', '.join(suffixes[:-1]), suffixes[-1]]))}",
            fix=f"for example {path.with_suffix(suffixes[0]).name}",
            code=ExitCode.USAGE,
        )
    what = f"Cannot write {path}"
    try:
        if path.exists() and not path.is_file():
            why = "it is a folder" if path.is_dir() else "it is a device, not an ordinary file"
            raise HnxError(what, why=why, fix="name a file", code=ExitCode.USAGE)
        # missing folders are made when the time has come: the nearest one that exists must let us
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise HnxError(
                what, why=f"{folder} is a file, not a folder", fix="name another folder", code=ExitCode.USAGE
            )
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise from_os_error(what, error) from error


def write_report(report: Report, path: Path) -> None:
    """Write JSON, Markdown or CSV, by the suffix; whole or not at all.

    Raises:
        HnxError: another suffix, or the file cannot be written.
    """
    check_output(path, REPORT_SUFFIXES)
    if path.suffix.lower() == ".json":
        write_json(path, report.to_json())
    else:
        write_bytes(path, _WRITERS[path.suffix.lower()](report).encode())
