"""Precision against recall, and precision, recall and F1 against confidence: one picture and two tables for a class.

The area below the drawn curve is the AP of the report: precision is the running maximum from the right, read at 101
recalls, the area is that of trapezoids. Without matplotlib the tables are written all the same.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.detection import RECALLS, rank
from benchmarks.accuracy.names import safe_name
from hybridnets.errors import printable
from hybridnets.files import write_bytes
from hybridnets.sinks import OutputNames

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.accuracy.records import ImageRecord

__all__ = ["ClassCurve", "CurveFiles", "class_curves", "write_curves"]

# IoU and its place among the ten thresholds 0.50, 0.55 ... 0.95
SHOWN_IOUS = {0.5: 0, 0.75: 5}
CONFIDENCES = np.linspace(0, 1, 201)
_GRID = CONFIDENCES.astype(np.float32)  # scores are float32, and so the postprocessing compares them
# Okabe-Ito without its yellow, which cannot be read on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
NO_MATPLOTLIB = 'no pictures of the curves: matplotlib is not installed (pip install "hnx[eval]")'


@dataclass(frozen=True)
class ClassCurve:
    """One class of one row at one IoU threshold.

    Attributes:
        labels, predictions: boxes in all images.
        ranks: int64 (m,): place of each true positive among the predictions, best score first, counted from 1.
        above, found: int64 (201,): predictions, and true positives among them, scored strictly above each of
            `CONFIDENCES`.
    """

    labels: int
    predictions: int
    ranks: NDArray[np.int64]
    above: NDArray[np.int64]
    found: NDArray[np.int64]

    @property
    def envelope(self) -> NDArray[np.float64]:
        """(101,) precision at the recalls 0, 0.01 ... 1: the best of any recall at or beyond.

        Behind the last true positive it falls straight from the precision of all predictions to 0 at recall 1.
        """
        true = np.arange(1, len(self.ranks) + 1)
        if not len(true):
            return np.zeros(len(RECALLS))
        recall = true / self.labels
        highest = np.maximum.accumulate((true / self.ranks)[::-1])[::-1]
        heights = np.append(highest, 0.0)[np.searchsorted(recall, RECALLS, side="right")]
        if recall[-1] < 1:
            behind = recall[-1] <= RECALLS
            heights[behind] = len(true) / self.predictions * (1 - RECALLS[behind]) / (1 - recall[-1])
        return heights

    @property
    def area(self) -> float:
        """AP: trapezoids below the envelope."""
        heights = self.envelope
        return float(((heights[1:] + heights[:-1]) / 2 * np.diff(RECALLS)).sum())

    def at_confidences(self) -> tuple[NDArray[np.float64], ...]:
        """Precision, recall and F1 at each of `CONFIDENCES`.

        NaN where there is nothing to divide by: precision without boxes, recall without labels, F1 without both.
        """
        labels = np.full(len(self.above), self.labels)
        return (
            _ratio(self.found, self.above),
            _ratio(self.found, labels),
            _ratio(2 * self.found, self.above + labels),
        )


@dataclass(frozen=True)
class CurveFiles:
    """What was written.

    Attributes:
        pictures: PNG, one for each class; none without matplotlib.
        tables: CSV, two for each class.
        note: why there are no pictures; empty when there are.
    """

    pictures: tuple[Path, ...]
    tables: tuple[Path, ...]
    note: str = ""


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def class_curves(records: Sequence[ImageRecord], number: int) -> dict[float, ClassCurve]:
    """Curves of one class for each of `SHOWN_IOUS`.

    Image by image, because a run under the paper protocol may hold 30 million predictions.

    Args:
        records: in the order of their names, which decides between equal scores.
        number: of the class.
    """
    ranking = rank(records, number)
    once = np.ones((1, len(records)), np.int64)
    ranks = ranking.misses_before(once)[0] + np.arange(1, len(ranking.hits) + 1)
    counts = np.zeros((1 + len(SHOWN_IOUS), len(CONFIDENCES) + 1), np.int64)
    for record in records:
        mine = record.classes == number
        # scores lie between grid points: how many of these are below?
        passed = np.searchsorted(_GRID, record.scores[mine], side="left")
        hits = record.hits[mine]
        for row, kept in enumerate((slice(None), *(hits > index for index in SHOWN_IOUS.values()))):
            counts[row] += np.bincount(passed[kept], minlength=counts.shape[1])
    above = counts[:, :0:-1].cumsum(axis=1)[:, ::-1]
    return {
        iou: ClassCurve(
            labels=int(ranking.labels.sum()),
            predictions=int(ranking.predictions.sum()),
            ranks=ranks[ranking.hits > index],
            above=above[0],
            found=above[row],
        )
        for row, (iou, index) in enumerate(SHOWN_IOUS.items(), start=1)
    }


def write_curves(
    folder: Path, rows: Mapping[str, Iterable[ImageRecord]], classes: Sequence[str], *, conf: float = 0.0
) -> CurveFiles:
    """Write `curve_<class>.png`, `precision_recall_<class>.csv` and `confidence_<class>.csv`.

    Args:
        rows: name of the row to its records; all rows share a picture.
        classes: names of the detection classes.
        conf: the protocol's confidence threshold: there are no boxes below it, so the curves start there.

    Raises:
        HnxError: the folder cannot be written, or the disk is full.
    """
    names = OutputNames(folder)
    pictures: list[Path] = []
    tables: list[Path] = []
    drawable = _has_matplotlib()
    kept = conf <= CONFIDENCES
    ordered = {row: sorted(records, key=lambda record: record.name) for row, records in rows.items()}
    for number, name in enumerate(classes):
        curves = {row: class_curves(records, number) for row, records in ordered.items()}
        for kind, text in (
            ("precision_recall", _recall_table(curves)),
            ("confidence", _confidence_table(curves, kept)),
        ):
            tables.append(names(f"{kind}_{safe_name(name)}", ".csv"))
            write_bytes(tables[-1], text.encode("utf-8", "backslashreplace"))
        if drawable:
            pictures.append(names(f"curve_{safe_name(name)}", ".png"))
            write_bytes(pictures[-1], _draw(name, curves, kept))
    return CurveFiles(tuple(pictures), tuple(tables), "" if drawable or not classes else NO_MATPLOTLIB)


Curves = Mapping[str, Mapping[float, ClassCurve]]


def _table(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(lines)
    return stream.getvalue()


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _recall_table(curves: Curves) -> str:
    return _table(
        ("row", "iou", "recall", "precision"),
        (
            (row, f"{iou:.2f}", f"{recall:.2f}", _cell(precision))
            for row, by_iou in curves.items()
            for iou, curve in by_iou.items()
            for recall, precision in zip(RECALLS, curve.envelope, strict=True)
        ),
    )


def _confidence_table(curves: Curves, kept: NDArray[np.bool_]) -> str:
    return _table(
        ("row", "iou", "confidence", "precision", "recall", "F1"),
        (
            (row, f"{iou:.2f}", f"{confidence:.3f}", *map(_cell, values))
            for row, by_iou in curves.items()
            for iou, curve in by_iou.items()
            for confidence, *values in zip(
                CONFIDENCES[kept], *(part[kept] for part in curve.at_confidences()), strict=True
            )
        ),
    )


# -- drawing -------------------------------------------------------------------------------------------------


def _has_matplotlib() -> bool:
    try:
        from matplotlib.backends import backend_agg  # noqa: F401 - only whether it can be used
    except Exception:  # a broken installation fails with more than ImportError
        return False
    return True


def _plain(text: str) -> str:
    """Text that matplotlib neither reads as a formula nor hides: it does the latter with a leading underscore."""
    text = printable(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _draw(name: str, curves: Curves, kept: NDArray[np.bool_]) -> bytes:
    """PNG of four plots and a legend, all rows in each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # the last row is the legend's: 0.24 inches a line
    legend = 0.24 * (len(curves) + 1)
    figure = Figure(figsize=(11, 8.4 + legend), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, height_ratios=(4, 4, legend))
    axes = [figure.add_subplot(grid[place // 2, place % 2]) for place in range(4)]
    handles, words = _lines(axes, curves, kept)
    labels = next((by_iou[0.5].labels for by_iou in curves.values()), 0)
    figure.suptitle(_plain(f"{name}: {labels} labels") + ("" if labels else " - nothing to be found"), fontsize=14)
    below = figure.add_subplot(grid[2, :])
    below.axis("off")
    if handles:
        below.legend(handles, words, loc="center", frameon=False, prop={"family": "monospace", "size": 10})
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names in scripts that the font lacks come out as boxes
        canvas.print_png(stream, metadata={"Software": "hnx eval"})
    return stream.getvalue()


def _lines(axes: Sequence[Axes], curves: Curves, kept: NDArray[np.bool_]) -> tuple[list[Any], list[str]]:
    """Draw every row; handles and words of the legend."""
    ranked, f1, precision, recall = axes
    handles, words = [], []
    confidences = CONFIDENCES[kept]
    longest = max((len(_plain(row)) for row in curves), default=0)
    for place, (row, by_iou) in enumerate(curves.items()):
        colour = COLOURS[place % len(COLOURS)]
        # rows that agree lie upon each other: the earlier ones show as a rim
        width = max(1.2, 3.6 - 0.8 * place)
        for iou, curve in by_iou.items():
            style = "-" if iou == 0.5 else (0, (4, 2))
            (handle,) = ranked.plot(RECALLS, curve.envelope, color=colour, lw=width, ls=style)
            if iou == 0.5:
                handles.append(handle)
        values = [part[kept] for part in by_iou[0.5].at_confidences()]
        for plot, value in zip((precision, recall, f1), values, strict=True):
            plot.plot(confidences, value, color=colour, lw=width)
        areas = "  ".join(f"AP{round(iou * 100)} {curve.area:.3f}" for iou, curve in by_iou.items())
        words.append(f"{_plain(row):<{longest}}  {areas}{_best(f1, values[2], confidences, colour)}")
    for plot, title, across in (
        (ranked, "precision (solid: IoU 0.50, dashed: 0.75)", "recall"),
        (f1, "F1 at IoU 0.50", "confidence"),
        (precision, "precision at IoU 0.50", "confidence"),
        (recall, "recall at IoU 0.50", "confidence"),
    ):
        plot.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=across, ylabel=title.split(" ")[0])
        plot.set_title(title, fontsize=11)
        plot.grid(alpha=0.3)
    return handles, words


def _best(plot: Axes, f1: NDArray[np.float64], confidences: NDArray[np.float64], colour: str) -> str:
    """Mark the highest F1 and say where it lies."""
    if not len(f1) or np.isnan(f1).all() or not np.nanmax(f1):
        return ""
    top = int(np.nanargmax(f1))
    plot.plot(confidences[top], f1[top], "o", color=colour, ms=6)
    return f"  best F1 {f1[top]:.3f} at confidence {confidences[top]:.2f}"
