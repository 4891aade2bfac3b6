"""`hnx report`: accuracy beside latency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from hnx.finite import FiniteRange

__all__ = ["command"]


@click.command(
    short_help="Put accuracy and latency of every row into one table.",
    epilog="Examples:  hnx bench --json bench.json && hnx eval --json eval.json && hnx report bench.json eval.json"
    "   |   hnx report *.json --max-drop 0.5 --report table.md --picture table.png",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE.json...", type=click.Path(path_type=Path))
@click.option(
    "--latency",
    type=click.Choice(["forward", "end-to-end"]),
    default="forward",
    show_default=True,
    help="Of the network alone, or from frame to boxes and masks.",
)
@click.option(
    "--max-drop",
    type=FiniteRange(min=0),
    metavar="POINTS",
    help="Name the fastest row that loses at most so much on every task; exit code 3 when none does.",
)
@click.option(
    "--report",
    "reports",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Write it as .md, .csv or .json; may be repeated.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Draw the worst task's drop against p99 latency.",
)
def command(
    files: tuple[Path, ...], latency: str, max_drop: float | None, reports: tuple[Path, ...], picture: Path | None
) -> None:
    """Join reports of `hnx bench --json` and `hnx eval --json`: what each runtime and precision costs in accuracy, next
    to its p50 and p99.

    Reports belong together when their networks have the same SHA-256, so several bundles may be given at once, for
    example a network and its HardSwish twin.
    """
    from benchmarks.joined import join, print_joined, read_reports, write_joined
    from benchmarks.joined.views import COMPARE, NOT_COMPARED, write_picture
    from benchmarks.report import REPORT_SUFFIXES, check_output
    from hnx.console import note, stdout, success
    from hybridnets.errors import ExitCode, HnxError

    for path in reports:
        check_output(path, REPORT_SUFFIXES)
    if picture is not None:
        check_output(picture, (".png",))
    _refuse_inputs(files, [*reports, *([] if picture is None else [picture])])
    report = join(*read_reports(files, note), kind="forward" if latency == "forward" else "end_to_end")
    print_joined(report, stdout())
    for path in reports:
        write_joined(report, path)
    if picture is not None:
        write_picture(report, picture)
    if max_drop is not None:
        best = report.fastest(max_drop)
        compared = [row.worst for row in report.rows if row.worst is not None]
        if not compared:
            raise HnxError(
                "--max-drop has nothing to choose from", why=NOT_COMPARED, fix=COMPARE, code=ExitCode.GATE_FAILED
            )
        if best is None:
            raise HnxError(
                f"No row loses at most {max_drop:g} points on every task",
                why=f"the nearest loses {min(compared):.2f}",
                fix="allow more, or `hnx quantize --max-drop` with more blocks in float",
                code=ExitCode.GATE_FAILED,
            )
        success(f"fastest within {max_drop:g} points: {best.name} of {best.network}, p99 {best.p99_ms:.2f} ms")


def _refuse_inputs(files: Sequence[Path], outputs: Sequence[Path]) -> None:
    """A report holds raw samples that nobody can measure again: it is never written over by what was made of it."""
    from hybridnets.errors import ExitCode, HnxError

    read = {path.resolve() for path in files}
    for path in outputs:
        if path.resolve() in read:
            raise HnxError(
                f"{path} is one of the files that are joined",
                why="it would be replaced by the table",
                fix="name another file",
                code=ExitCode.USAGE,
            )
