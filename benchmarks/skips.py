"""Rows that did not run, in words: those of one runtime with one reason share a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["skipped_lines"]


def skipped_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """`skipped tensorrt:fp16,int8,fp32: TensorRT is not installed (fix: ...)`, in the order of the rows.

    Args:
        rows: of a report, each with `skipped`; one that was tried and ended badly says FAILED instead.
    """
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        skipped = row["skipped"]
        word = "FAILED" if skipped.get("failed") else "skipped"
        key = (word, str(row["runtime"]), str(skipped["reason"]), str(skipped.get("fix") or ""))
        groups.setdefault(key, []).append(str(row["precision"]))
    return [
        f"{word} {runtime}:{','.join(precisions)}: {reason}" + (f" (fix: {fix})" if fix else "")
        for (word, runtime, reason, fix), precisions in groups.items()
    ]
