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

from benchmarks.accuracy.names import safe_name
from hybridnets.errors import printable
from hybridnets.files import write_bytes
from hybridnets.sinks import OutputNames

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.accuracy.records import ImageRecord

__all__ = ["ClassCurve", "CurveFiles", "Ranking", "write_curves"]

# IoU and its place among the ten thresholds 0.50, 0.55 ... 0.95
SHOWN_IOUS = {0.5: 0, 0.75: 5}
RECALLS = np.linspace(0, 1, 101)
CONFIDENCES = np.linspace(0, 1, 201)
# Okabe-Ito without its yellow, which cannot be read on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
NO_MATPLOTLIB = 'no pictures of the curves: matplotlib is not installed (pip install "hnx[eval]")'


@dataclass(frozen=True)
class ClassCurve:
    """One class of one row at one IoU threshold.

    Attributes:
        labels: boxes in the labels.
        scores: float32 (n,), best first.
        found: int64 (n,): true positives among the best 1, 2, ... n predictions.
    """

    labels: int
    scores: NDArray[np.float32]
    found: NDArray[np.int64]

    @property
    def envelope(self) -> NDArray[np.float64]:
        """(101,) precision at the recalls 0, 0.01 ... 1: the best of any recall at or beyond."""
        if not self.labels or not len(self.found) or not self.found[-1]:
            return np.zeros(len(RECALLS))
        recall = self.found / self.labels
        precision = self.found / np.arange(1, len(self.found) + 1)
        edge = np.concatenate([[1.0], precision, [0.0]])
        highest = np.maximum.accumulate(edge[::-1])[::-1]
        return np.interp(RECALLS, np.concatenate([[0.0], recall, [1.0]]), highest)

    @property
    def area(self) -> float:
        """AP: trapezoids below the envelope."""
        heights = self.envelope
        return float(((heights[1:] + heights[:-1]) / 2 * np.diff(RECALLS)).sum())

    def at(self, confidences: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Precision, recall and F1 of the boxes scored strictly above each confidence.

        NaN where there is nothing to divide by: precision without boxes, recall without labels, F1 without both.
        """
        count = np.searchsorted(-self.scores.astype(np.float64), -confidences, side="left")
        found = np.concatenate([[0], self.found])[count].astype(np.float64)
        labels = np.full(len(confidences), self.labels)
        return _ratio(found, count), _ratio(found, labels), _ratio(2 * found, count + labels)


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


def _ratio(part: NDArray[np.float64], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


class Ranking:
    """All predictions of one row, best first; sorted once for all classes and thresholds.

    Equal scores are ranked by the name of the image, so that the order of the records changes nothing.
    """

    def __init__(self, records: Iterable[ImageRecord]) -> None:
        ordered = sorted(records, key=lambda record: record.name)
        scores = np.concatenate([np.zeros(0, np.float32), *(record.scores for record in ordered)])
        best_first = np.argsort(-scores, kind="stable")
        self._scores = scores[best_first]
        self._classes = _joined([record.classes for record in ordered])[best_first]
        self._hits = _joined([record.hits for record in ordered])[best_first]
        self._labels = _joined([record.labels for record in ordered])

    def curve(self, number: int, threshold: int) -> ClassCurve:
        """One class.

        Args:
            number: of the class.
            threshold: index of the IoU threshold, 0 is 0.50 and 9 is 0.95.
        """
        mine = self._classes == number
        found = np.cumsum(self._hits[mine] > threshold, dtype=np.int64)
        return ClassCurve(int((self._labels == number).sum()), self._scores[mine], found)


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.uint8)


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
    confidences = CONFIDENCES[conf <= CONFIDENCES]
    rankings = {row: Ranking(records) for row, records in rows.items()}
    for number, name in enumerate(classes):
        curves = {
            row: {iou: ranking.curve(number, index) for iou, index in SHOWN_IOUS.items()}
            for row, ranking in rankings.items()
        }
        for kind, text in (
            ("precision_recall", _recall_table(curves)),
            ("confidence", _confidence_table(curves, confidences)),
        ):
            tables.append(names(f"{kind}_{safe_name(name)}", ".csv"))
            write_bytes(tables[-1], text.encode("utf-8", "backslashreplace"))
        if drawable:
            pictures.append(names(f"curve_{safe_name(name)}", ".png"))
            write_bytes(pictures[-1], _draw(name, curves, confidences))
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


def _confidence_table(curves: Curves, confidences: NDArray[np.float64]) -> str:
    return _table(
        ("row", "iou", "confidence", "precision", "recall", "F1"),
        (
            (row, f"{iou:.2f}", f"{confidence:.3f}", *map(_cell, values))
            for row, by_iou in curves.items()
            for iou, curve in by_iou.items()
            for confidence, *values in zip(confidences, *curve.at(confidences), strict=True)
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


def _draw(name: str, curves: Curves, confidences: NDArray[np.float64]) -> bytes:
    """PNG of four plots and a legend, all rows in each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # the last row is the legend's: 0.24 inches a line
    legend = 0.24 * (len(curves) + 1)
    figure = Figure(figsize=(11, 8.4 + legend), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, height_ratios=(4, 4, legend))
    axes = [figure.add_subplot(grid[place // 2, place % 2]) for place in range(4)]
    handles, words = _lines(axes, curves, confidences)
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


def _lines(axes: Sequence[Axes], curves: Curves, confidences: NDArray[np.float64]) -> tuple[list[Any], list[str]]:
    """Draw every row; handles and words of the legend."""
    ranked, f1, precision, recall = axes
    handles, words = [], []
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
        values = by_iou[0.5].at(confidences)
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
