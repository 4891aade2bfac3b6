"""Intervals of figures, and of their drops, by resampling the images.

The images of a data set are a sample of the road; another sample would have given other figures. Drawing images with
replacement shows by how much. All rows get the same draws, so a drop is computed within each draw: what makes an
image hard is common to both rows and falls out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.metrics import Accumulator

__all__ = ["Interval", "Intervals", "draw_weights", "intervals"]

Interval = tuple[float, float]


@dataclass(frozen=True)
class Intervals:
    """Lower and upper ends, fractions of 1, under the names that `Weighted.figures` gives.

    Attributes:
        rows: row to figure to interval.
        drops: row to figure to the interval of baseline minus row: positive where the row is worse. The baseline
            itself has none; empty without a baseline.
    """

    rows: dict[str, dict[str, Interval]]
    drops: dict[str, dict[str, Interval]]

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        return {
            kind: {row: {key: list(value) for key, value in found.items()} for row, found in parts.items()}
            for kind, parts in (("rows", self.rows), ("drops", self.drops))
        }


def draw_weights(images: int, draws: int, seed: int) -> NDArray[np.int64]:
    """How often each image stands in each resampling: int64 (draws, images), rows sum to `images`."""
    random = np.random.Generator(np.random.PCG64(seed))
    return np.stack([np.bincount(random.integers(0, images, images), minlength=images) for _ in range(draws)])


def intervals(
    accumulators: Mapping[str, Accumulator],
    baseline: str | None,
    *,
    draws: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Intervals:
    """Percentile intervals of every figure of every row, and of the drops against the baseline.

    Args:
        accumulators: by the name of the row. An image that a row lacks is drawn all the same and counts nothing there.
        baseline: one of them, or None.
        draws: resamplings; 200 fix the ends of a 95 % interval to about a tenth of its width.
        level: share of the draws inside.
    """
    names = sorted({name for accumulator in accumulators.values() for name in accumulator.names})
    if draws < 1 or not names:
        return Intervals({}, {})
    weights = draw_weights(len(names), draws, seed)
    place = {name: index for index, name in enumerate(names)}
    drawn = {
        row: accumulator.weighted().figures(weights[:, [place[name] for name in accumulator.names]])
        for row, accumulator in accumulators.items()
        if len(accumulator)
    }
    base = drawn.get(baseline) if baseline is not None else None
    drops = {
        row: {key: base[key] - values for key, values in found.items() if key in base}
        for row, found in drawn.items()
        if base is not None and row != baseline
    }
    return Intervals(*({row: _ends(found, level) for row, found in part.items()} for part in (drawn, drops)))


def _ends(found: Mapping[str, NDArray[np.float64]], level: float) -> dict[str, Interval]:
    ends = {}
    for key, values in found.items():
        known = values[np.isfinite(values)]  # a draw may hold none of the images of an incomplete row
        if len(known):
            low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
            ends[key] = (float(low), float(high))
    return ends
