"""The joined report for terminals, Markdown, CSV, JSON, and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.joined.join import JoinedReport, JoinedRow
from benchmarks.report import REPORT_SUFFIXES, check_output
from hybridnets.errors import HnxError, printable
from hybridnets.files import atomic_path, write_bytes, write_json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["COMPARE", "NOT_COMPARED", "markdown", "print_joined", "write_joined", "write_picture"]

WIDTH = 120
NOT_COMPARED = "no row was compared with a baseline, or the labels hold none of the tasks"
COMPARE = "evaluate the baseline, too: hnx eval --runtime torch:fp32,openvino --json FILE"
Column = tuple[str, bool, Callable[[JoinedRow], str]]
# Okabe-Ito without its yellow, which cannot be read on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def _task(row: JoinedRow, name: str) -> str:
    """`62.10 (-0.35)`: percent, and what it gained or lost against the baseline."""
    if name not in row.figures:
        return ""
    drop = row.drops.get(name)
    # minus 0.00 would be a riddle
    change = "" if drop is None else f" ({round(-drop, 2) + 0.0:+.2f})"
    return f"{row.figures[name] * 100:.2f}{change}"


def _worst(row: JoinedRow) -> str:
    if row.worst is None:
        return ""
    return f"{round(-row.worst, 2) + 0.0:+.2f}" if row.drops else "baseline"


def columns(report: JoinedReport) -> list[Column]:
    """Heading, whether it is aligned to the right, and the cell; what no row has is left out."""
    several = len({row.network for row in report.rows}) > 1
    return [
        *([("network", False, lambda row: printable(row.network))] if several else []),
        ("runtime", False, lambda row: row.name),
        *(
            [("executed", False, lambda row: row.executed)]
            if any(row.executed != row.name.rpartition(":")[2] for row in report.rows)
            else []
        ),
        ("p50 ms", True, lambda row: _ms(row.p50_ms)),
        ("p99 ms", True, lambda row: _ms(row.p99_ms)),
        *(
            [("ratio", True, lambda row: "" if row.ratio is None else f"{row.ratio:.2f}")]
            if any(row.ratio is not None for row in report.rows)
            else []
        ),
        *(
            [("J/frame", True, lambda row: "" if row.joules is None else f"{row.joules:.3f}")]
            if any(row.joules is not None for row in report.rows)
            else []
        ),
        *((name, True, lambda row, name=name: _task(row, name)) for name in report.tasks),
        ("worst", True, _worst),
        ("best", False, lambda row: "*" if row.pareto else ""),
    ]


def _legend(report: JoinedReport) -> str:
    latency = "the network alone" if report.kind == "forward" else "frame to boxes and masks"
    return (
        f"Latency of {latency}; accuracy in percent, in brackets the change against the baseline in points. "
        "* no faster row of the network loses as little in its worst task."
    )


def print_joined(report: JoinedReport, console: Console) -> None:
    """The table and its sentences; plain ASCII where the console is no terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    pretty = console.is_terminal
    table = Table(box=box.SIMPLE_HEAD if pretty else box.ASCII2, padding=(0, 1), show_edge=False, pad_edge=False)
    for heading, right, _ in columns(report):
        table.add_column(escape(heading), justify="right" if right else "left", no_wrap=True)
    for row in report.rows:
        table.add_row(*(escape(cell(row)) for _, _, cell in columns(report)), style="bold" if row.pareto else None)
    console.print(table, width=min(WIDTH, console.width))
    console.print()
    for line in (_legend(report), *report.remarks):
        console.print(printable(line), markup=False, soft_wrap=True)


def markdown(report: JoinedReport) -> str:
    """The report as Markdown."""
    shown = columns(report)
    lines = ["# Accuracy beside latency", ""]
    lines.append("| " + " | ".join(heading for heading, _, _ in shown) + " |")
    lines.append("|" + "|".join("---:" if right else "---" for _, right, _ in shown) + "|")
    lines += [
        "| " + " | ".join(cell(row).replace("|", "\\|").replace("*", "\\*") for _, _, cell in shown) + " |"
        for row in report.rows
    ]
    lines += ["", _legend(report).replace("* no", "\\* no"), "", *(f"- {printable(line)}" for line in report.remarks)]
    return "\n".join([*lines, ""])


def csv_text(report: JoinedReport) -> str:
    """One line for each row; every figure, its drop and the drop's interval in columns of their own."""
    records = []
    for row in report.rows:
        record: dict[str, object] = {
            "network": row.network, "row": row.name, "executed": row.executed, "latency": report.kind,
            "p50_ms": row.p50_ms, "p99_ms": row.p99_ms, "ratio": "" if row.ratio is None else row.ratio,
            "joules_per_frame": "" if row.joules is None else row.joules, "valid": str(row.valid).lower(),
            "worst_drop": "" if row.worst is None else row.worst, "pareto": str(row.pareto).lower(),
        }  # fmt: skip
        for name in report.tasks:
            low, high = row.intervals.get(name, ("", ""))
            record |= {name: row.figures.get(name, ""), f"{name} drop": row.drops.get(name, "")}
            record |= {f"{name} drop low": low, f"{name} drop high": high}
        records.append(record)
    stream = io.StringIO()
    writer = csv.DictWriter(
        stream, list(dict.fromkeys(key for record in records for key in record)), restval="", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def write_joined(report: JoinedReport, path: Path) -> None:
    """Write JSON, Markdown or CSV, by the suffix; whole or not at all.

    Raises:
        HnxError: another suffix, or the file cannot be written.
    """
    check_output(path, REPORT_SUFFIXES)
    suffix = path.suffix.lower()
    if suffix == ".json":
        write_json(path, report.to_json())
    else:
        write_bytes(path, (markdown if suffix == ".md" else csv_text)(report).encode())


def write_picture(report: JoinedReport, path: Path) -> None:
    """Draw the worst task's change against p99 latency, a point for each row that has one, as PNG.

    Raises:
        HnxError: no row has one, matplotlib is missing, or the file cannot be written.
    """
    drawn = [(row, row.worst) for row in report.rows if row.worst is not None]
    if not drawn:
        raise HnxError("There is no picture", why=NOT_COMPARED, fix=COMPARE)
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HnxError("There is no picture", why=str(error), fix='pip install -e ".[eval]"') from error
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axis = figure.subplots()
    networks = list(dict.fromkeys(row.network for row, _ in drawn))
    for number, network in enumerate(networks):
        rows = [(row, -worst) for row, worst in drawn if row.network == network]
        axis.scatter(
            [row.p99_ms for row, _ in rows], [change for _, change in rows], label=printable(network),
            color=COLOURS[number % len(COLOURS)], s=[70 if row.pareto else 35 for row, _ in rows],
        )  # fmt: skip
        best = [(row, change) for row, change in rows if row.pareto]
        axis.step(
            [row.p99_ms for row, _ in best], [change for _, change in best], where="post", linewidth=1,
            color=COLOURS[number % len(COLOURS)],
        )  # fmt: skip
        for row, change in rows:
            # slanted: rows of one precision stand side by side on one level
            place = (row.p99_ms, change)
            axis.annotate(
                row.name, place, xytext=(2, 5), textcoords="offset points", fontsize=8, rotation=60,
                rotation_mode="anchor",
            )  # fmt: skip
    axis.set_xlabel(f"p99 latency of {'the network' if report.kind == 'forward' else 'frame to result'} (ms)")
    axis.set_ylabel("change of the worst task (points)")
    axis.margins(y=0.4)
    # room for the label of the last point
    axis.set_xlim(0, 1.2 * max(row.p99_ms for row, _ in drawn))
    axis.grid(alpha=0.3)
    if len(networks) > 1:
        axis.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
