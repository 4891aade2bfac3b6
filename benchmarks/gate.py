"""Holding a report against an earlier one: did a row become slower?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.report import Report, row_name
from hybridnets.errors import HnxError

__all__ = ["check_comparable", "gate"]

# settings that must agree before two reports may be held against each other
COMPARABLE = ("scenario", "streams", "threads", "input_sha256")


def check_comparable(settings: Mapping[str, Any], rows: Iterable[str], earlier: Report) -> None:
    """Refuse a comparison that means nothing. Possible before anything is measured, as far as settings are known then.

    Args:
        settings: those of the new report that are known.
        rows: names of its rows.

    Raises:
        HnxError: the two are measured under other conditions, or have no row in common.
    """
    for key in COMPARABLE:
        then = earlier.settings.get(key)
        if key in settings and then is not None and settings[key] != then:
            raise HnxError(
                "The two reports cannot be compared",
                why=f"{key.replace('_', ' ')} was {then}, now it is {settings[key]}",
                fix="measure both in the same way",
            )
    if not {row_name(row) for row in earlier.measured} & set(rows):
        raise HnxError(
            "The two reports cannot be compared",
            why="no row measured then was asked for now",
            fix="measure the same runtimes and precisions",
        )


def gate(report: Report, earlier: Report, max_regression: float) -> list[str]:
    """One sentence for each row of `report` that became worse than `earlier` allows; empty when it passes.

    A row that ran then and cannot run now is worse, too. Rows that were not asked for now are not looked at.

    Args:
        max_regression: percent by which a p50 may have grown.

    Raises:
        HnxError: see `check_comparable`.
    """
    check_comparable(report.settings, [row_name(row) for row in report.rows], earlier)
    before = {row_name(row): row for row in earlier.measured}
    sentences = []
    for row in report.rows:
        old = before.get(row_name(row))
        if old is None:
            continue
        if "skipped" in row:
            sentences.append(
                f"{row_name(row)} ran in the earlier report and is skipped now: {row['skipped']['reason']}"
            )
            continue
        for key, words in (("forward_ms", "forward only"), ("end_to_end_ms", "end to end")):
            now, then = row[key]["p50"], old[key]["p50"]
            change = (now / then - 1) * 100 if then > 0 else 0.0
            if change > max_regression:
                doubt = "" if row.get("valid") else " (the row is not valid: measure again)"
                sentences.append(
                    f"{row_name(row)} {words}: p50 went from {then:.3f} to {now:.3f} ms, "
                    f"{change:+.1f} % (at most {max_regression:+g} %){doubt}"
                )
    return sentences
