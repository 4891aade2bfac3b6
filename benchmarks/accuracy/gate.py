"""`--max-drop`: did a row lose more than is allowed?"""

from __future__ import annotations

from collections.abc import Collection

from benchmarks.accuracy.report import EvalReport
from benchmarks.report import row_name

__all__ = ["lost", "not_compared"]


def not_compared(report: EvalReport, required: Collection[tuple[str, str]] = ()) -> list[str]:
    """Rows that failed, and those of `required` that could not run here.

    Rows that nobody asked for by name and that cannot run here (bf16 of `--runtime all` on an old processor) are not
    looked at. Where no row is left beside the baseline nothing was compared, and that is no pass.

    Args:
        required: (runtime, precision) of rows that must have run.
    """
    sentences = []
    for row in report.skipped:
        skipped = row["skipped"]
        if skipped.get("failed") or (row["runtime"], row["precision"]) in required:
            sentences.append(f"{row_name(row)} did not run: {skipped['reason']}")
    if report.baseline is None:
        sentences.append("there is no baseline row to compare with")
    elif not any("drop" in row for row in report.measured):
        sentences.append(f"no row ran beside {report.baseline}: nothing was compared with it")
    return sentences


def lost(report: EvalReport, max_drop: float) -> list[str]:
    """Figures that lie further below the baseline's.

    Args:
        max_drop: percent points that a figure may lie below.
    """
    sentences = []
    for row in report.measured:
        drops = row.get("drop")
        if drops is None:
            continue
        for name in report.settings["watched"]:
            drop = drops["metrics"].get(name)
            if drop is not None and drop["points"] > max_drop:
                interval = drop.get("interval")
                words = f", 95 % interval {interval[0]:+.2f} to {interval[1]:+.2f}" if interval else ""
                sentences.append(
                    f"{row_name(row)} {name}: {drop['points']:.2f} points below {drops['baseline']}{words} "
                    f"(at most {max_drop:g})"
                )
    return sentences
