"""Views of a report: tables for terminals, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy.report import EvalReport, Row, figures, thin
from benchmarks.report import REPORT_SUFFIXES, check_output, row_name
from benchmarks.skips import skipped_lines
from hybridnets.errors import printable
from hybridnets.files import write_bytes, write_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["csv_text", "headline", "markdown", "print_report", "remarks", "write_report"]

WIDTH = 120
SHOWN_BROKEN = 5  # files in the remarks; JSON holds up to 1000
# what 120 columns take in; JSON, Markdown and CSV hold everything
SHOWN_SEG = 3
SHOWN_DROPS = 5


def _percent(value: Any) -> str:
    return f"{value * 100:.2f}" if isinstance(value, int | float) else ""


def _main_figures(report: EvalReport) -> list[str]:
    """Columns of the first table: what the papers print."""
    seg = list(report.bundle.get("seg_classes") or [])[:SHOWN_SEG]
    columns = ["mAP50", "mAP50-95", "R", "P"] if report.bundle.get("classes") else []
    for name in seg:
        columns += [f"{name} IoU", f"{name} Acc"] if thin(name) else [f"{name} mIoU"]
    return columns


def _drop_figures(report: EvalReport) -> list[str]:
    """Columns of the second table: the watched ones, and accuracy of thin things."""
    columns = [name for name in _main_figures(report) if name not in ("R", "P")]
    return columns[:SHOWN_DROPS]


def _heading(name: str) -> str:
    """Two lines, so that a column is as narrow as its numbers."""
    head, _, tail = name.rpartition(" ")
    return f"{head[:12]}\n{tail}" if head else name


def _drop(row: Row, name: str) -> str:
    """Points, and below them their interval; plus is worse."""
    drop = ((row.get("drop") or {}).get("metrics") or {}).get(name)
    if drop is None:
        return ""
    text = f"{_signed(drop['points'])}"
    interval = drop.get("interval")
    return f"{text}\n[{_signed(interval[0])}, {_signed(interval[1])}]" if interval else text


def _signed(value: float) -> str:
    # minus 0.00 would be a riddle
    return f"{round(value, 2) + 0.0:+.2f}"


Column = tuple[str, bool, Callable[[Row], str]]


def _main_columns(report: EvalReport) -> list[Column]:
    return [
        ("runtime", False, lambda row: str(row["runtime"])),
        ("precision", False, lambda row: str(row["precision"])),
        ("executed", False, lambda row: str(row["executed"])),
        ("images", True, lambda row: str(row["images"])),
        *(
            (_heading(name), True, lambda row, name=name: _percent(figures(row["metrics"]).get(name)))
            for name in _main_figures(report)
        ),
    ]


def _drop_columns(report: EvalReport) -> list[Column]:
    return [
        ("drop", False, row_name),
        *((_heading(name), True, lambda row, name=name: _drop(row, name)) for name in _drop_figures(report)),
    ]


def _class_rows(report: EvalReport) -> list[Row]:
    return [
        {"name": row_name(row), "class": name, **values}
        for row in report.measured
        for name, values in (row["metrics"].get("classes") or {}).items()
    ]


_CLASS_COLUMNS: tuple[Column, ...] = (
    ("runtime", False, lambda row: str(row["name"])),
    ("class", False, lambda row: printable(str(row["class"]))),
    ("labels", True, lambda row: str(row.get("labels", ""))),
    *((name, True, lambda row, name=name: _percent(row.get(name))) for name in ("mAP50", "mAP50-95", "R", "P")),
)


def _pooled_columns(report: EvalReport) -> list[Column]:
    names = list(((report.measured[0]["metrics"].get("pooled") or {}).get("IoU")) or {}) if report.measured else []
    return [
        ("all pixels\ntogether", False, row_name),
        (
            "mIoU",
            True,
            lambda row: _percent((row["metrics"].get("pooled") or {}).get("mIoU")),
        ),
        *(
            (
                f"{printable(name)}\nIoU",
                True,
                lambda row, name=name: _percent(row["metrics"]["pooled"]["IoU"].get(name)),
            )
            for name in names[: SHOWN_SEG + 1]
        ),
    ]


_COCO_COLUMNS: tuple[Column, ...] = (
    ("COCO", False, row_name),
    *(
        (name, True, lambda row, name=name: _percent((row["metrics"].get("coco") or {}).get(name)))
        for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100")
    ),
)


@dataclass(frozen=True)
class _Table:
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]


def _tables(report: EvalReport, verbose: bool) -> list[_Table]:
    """What there is to show, in order."""
    rows = report.measured
    if not rows:
        return []
    tables = [_Table("", _main_columns(report), rows)]
    compared = [row for row in rows if "drop" in row]
    if compared:
        level = round(report.settings.get("level", 0.95) * 100)
        words = f" and {level} % interval" if report.settings.get("draws") else ""
        title = f"Drop against {report.baseline} in percent points{words}; plus is worse"
        tables.append(_Table(title, _drop_columns(report), compared))
    if verbose:
        tables.append(_Table("Per class", _CLASS_COLUMNS, _class_rows(report)))
        tables.append(_Table("", _pooled_columns(report), [row for row in rows if row["metrics"].get("pooled")]))
        tables.append(_Table("", _COCO_COLUMNS, [row for row in rows if row["metrics"].get("coco")]))
    return [table for table in tables if table.rows]


def headline(report: EvalReport) -> str:
    """What was evaluated, in one line."""
    data, protocol = report.data, report.protocol
    part = f", shard {data['shard']}" if data.get("shard") else ""
    where = "the network's input" if protocol.get("at") == "input" else "frame size"
    return printable(
        f"{report.bundle.get('name', 'bundle')} on {data.get('path', '?')}, split {data.get('split', '?')} "
        f"({data.get('images', '?')} images{part}); protocol {protocol.get('name')}: boxes above "
        f"{protocol.get('conf')}, NMS {protocol.get('iou')}, masks at {where}. All figures in percent."
    )


def remarks(report: EvalReport) -> list[str]:
    """Sentences below the tables: inputs, broken images, what speaks against rows, what was skipped."""
    lines = []
    inputs, rows = report.inputs, report.measured
    if len(rows) > 1:
        if inputs.get("identical"):
            lines.append(f"all rows got byte-identical inputs (SHA-256 {str(inputs.get('sha256'))[:16]}...)")
        else:
            names = inputs.get("differing") or []
            lines.append(
                f"ROWS CANNOT BE COMPARED: {len(names)} images were not the same for all of them, for example "
                f"{', '.join(names[:3])}"
            )
    broken = report.data.get("broken") or {}
    if broken.get("count"):
        lines.append(f"{broken['count']} of {report.data.get('images')} images could not be read and are left out:")
        lines += [f"  {item['name']}: {item['reason']}" for item in broken["images"][:SHOWN_BROKEN]]
        if broken["count"] > SHOWN_BROKEN:
            lines.append(f"  and {broken['count'] - SHOWN_BROKEN} more, in the JSON report")
    dropped = report.data.get("dropped_boxes") or {}
    if dropped.get("count"):
        lines.append(
            f"{dropped['count']} label boxes without an area or outside their image are left out, for example "
            f"{dropped['reasons'][0]}"
        )
    for row in rows:
        count = (row.get("nonfinite") or {}).get("count")
        if count:
            lines.append(f"{row_name(row)} gave NaN or infinite values for {count} images: do not trust its figures")
    notes = {row["metrics"].get("coco_note") for row in rows} - {None, ""}
    lines += [f"no COCO figures: {note}" for note in sorted(notes)]
    lines += skipped_lines(report.skipped)
    if report.bundle.get("untrained"):
        lines.append("the weights are untrained: the figures mean nothing, only that the rows agree or not")
    return [printable(line) for line in lines]


def print_report(report: EvalReport, console: Console, *, verbose: bool = False) -> None:
    """The tables and the remarks; plain ASCII of at most 120 columns where the console is no terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    pretty = console.is_terminal
    console.print(headline(report), markup=False, soft_wrap=True)
    for part in _tables(report, verbose):
        if part.title:
            console.print(part.title, markup=False, soft_wrap=True)
        table = Table(box=box.SIMPLE_HEAD if pretty else box.ASCII2, padding=(0, 1), show_edge=False, pad_edge=False)
        for heading, right, _ in part.columns:
            table.add_column(escape(heading), justify="right" if right else "left", no_wrap=True)
        for row in part.rows:
            table.add_row(*(escape(cell(row)) for _, _, cell in part.columns))
        console.print(table, width=min(WIDTH, console.width))
        console.print()
    for line in remarks(report):
        console.print(line, markup=False, soft_wrap=True)


def markdown(report: EvalReport) -> str:
    """The report as Markdown."""
    lines = ["# Accuracy", "", headline(report), ""]
    for part in _tables(report, verbose=True):
        if part.title:
            lines += [part.title, ""]
        lines.append("| " + " | ".join(_cell(heading) for heading, _, _ in part.columns) + " |")
        lines.append("|" + "|".join("---:" if right else "---" for _, right, _ in part.columns) + "|")
        lines += ["| " + " | ".join(_cell(cell(row)) for _, _, cell in part.columns) + " |" for row in part.rows]
        lines.append("")
    lines += [f"- {line.strip()}" for line in remarks(report)]
    environment, cpu = report.environment, report.environment.get("cpu") or {}
    lines += [
        "",
        f"Evaluated {report.created} with hnx {environment.get('hnx', '?')} on {cpu.get('model', 'this machine')}, "
        f"{environment.get('os', '?')}; data digest {str(report.data.get('digest', '?'))[:16]}.",
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def csv_text(report: EvalReport) -> str:
    """One line for each row; every figure, its interval and its drop in columns of their own."""
    records: list[dict[str, Any]] = []
    for row in report.rows:
        record: dict[str, Any] = {
            "runtime": row["runtime"],
            "precision": row["precision"],
            "executed": row.get("executed", ""),
            "images": row.get("images", ""),
            "labels": row.get("labels", ""),
            "skipped": row.get("skipped", {}).get("reason", ""),
        }
        if "skipped" not in row:
            drops = (row.get("drop") or {}).get("metrics") or {}
            for name, value in figures(row["metrics"]).items():
                low, high = (row.get("intervals") or {}).get(name) or ("", "")
                drop = drops.get(name) or {}
                drop_low, drop_high = drop.get("interval") or ("", "")
                record |= {name: value, f"{name} low": low, f"{name} high": high}
                record |= {f"{name} drop": drop.get("points", ""), f"{name} drop low": drop_low}
                record |= {f"{name} drop high": drop_high}
        records.append(record)
    fields = list(dict.fromkeys(key for record in records for key in record))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


_WRITERS: Mapping[str, Callable[[EvalReport], str]] = {".md": markdown, ".csv": csv_text}


def write_report(report: EvalReport, path: Path) -> None:
    """Write JSON, Markdown or CSV, by the suffix; whole or not at all.

    Raises:
        HnxError: another suffix, or the file cannot be written.
    """
    check_output(path, REPORT_SUFFIXES)
    if path.suffix.lower() == ".json":
        write_json(path, report.to_json())
    else:
        write_bytes(path, _WRITERS[path.suffix.lower()](report).encode())
