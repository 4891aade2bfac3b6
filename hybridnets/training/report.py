"""The end of a run in one folder: report.json with everything, and the curves as a picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridnets.errors import HnxError
from hybridnets.files import atomic_path, write_json

__all__ = ["draw_curves", "finite", "read_table", "write_report"]

_LOSSES = ("loss", "cls", "reg", "seg")


def finite(value: Any) -> Any:
    """Nested values fit for JSON: numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_report(path: Path, values: Mapping[str, Any]) -> None:
    """Write the report as JSON."""
    write_json(path, finite(values))


def read_table(path: Path) -> dict[str, list[float]]:
    """Columns of a log as numbers, NaN where a cell is none; no columns where there is no file, or a damaged one."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as stream:
            rows = list(csv.DictReader(stream))
    except csv.Error:  # damaged: what it held is in the checkpoint, too
        return {}
    names = list(rows[0]) if rows else []
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def draw_curves(train: Path, validation: Path, picture: Path) -> None:
    """Losses, learning rate and validation metrics of both logs as one picture.

    Raises:
        HnxError: matplotlib is missing, or the picture cannot be written.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HnxError("Curves are left out", why=f"{error}", fix='pip install -e ".[eval]"') from error
    steps, checks = read_table(train), read_table(validation)
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    _plot(axes[0], steps, [name for name in _LOSSES if name in steps], "training loss", log=True)
    _plot(axes[1], steps, ["lr"], "learning rate")
    _plot(axes[2], checks, [name for name in _LOSSES if name in checks], "validation loss", log=True)
    measured = [name for name in checks if name not in ("step", "epoch", "seconds", *_LOSSES)]
    _plot(axes[3], checks, [name for name in measured if _any_number(checks[name])], "validation metrics")
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def _any_number(values: Sequence[float]) -> bool:
    return any(math.isfinite(value) for value in values)


def _plot(axis: Any, table: Mapping[str, Sequence[float]], names: Sequence[str], title: str, log: bool = False) -> None:
    axis.set_title(title)
    axis.set_xlabel("step")
    axis.grid(alpha=0.3)
    for name in names:
        if _any_number(table.get(name, ())):
            marker = "o" if len(table["step"]) < 2 else None
            axis.plot(table["step"], table[name], label=name, linewidth=1.2, marker=marker)
    if axis.has_data():
        axis.legend(fontsize=8)
        if log and all(value > 0 for name in names for value in table[name] if math.isfinite(value)):
            axis.set_yscale("log")
