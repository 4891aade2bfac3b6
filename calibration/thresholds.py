"""Where to clip: from a histogram of |x| to the largest value that INT8 shall hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.histogram import Histogram

__all__ = ["LEVELS", "entropy", "mean_square", "percentile"]

LEVELS = 128  # magnitudes of a symmetric INT8: 0 to 127


def percentile(histogram: Histogram, share: float) -> float:
    """Upper end of the bin up to which `share` percent of all values lie, zeros included."""
    counts = histogram.counts
    below = histogram.zeros + np.cumsum(counts)
    index = int(np.searchsorted(below, share / 100 * below[-1]))
    last = _last(counts)
    return (min(index, last) + 1) * histogram.width


def mean_square(histogram: Histogram) -> float:
    """The threshold with the smallest expected squared error of rounding and clipping.

    Values are taken to lie in the middle of their bins. Ends of bins from an eighth of the largest value on are tried
    (clipping more never pays for 128 levels): every sixteenth, then each one around the best.
    """
    counts = histogram.counts.astype(np.float64)
    stop = _last(histogram.counts) + 1
    middles = (np.arange(counts.size) + 0.5) * histogram.width

    def error(end: int) -> float:
        step = end * histogram.width / (LEVELS - 1)
        found = np.minimum(np.rint(middles / step), LEVELS - 1) * step
        return float(counts @ (found - middles) ** 2)

    least = max(1, stop // 8)
    best = min({*range(least, stop + 1, 16), stop}, key=error)
    best = min(range(max(least, best - 15), min(stop, best + 15) + 1), key=error)
    return best * histogram.width


def entropy(histogram: Histogram) -> float:
    """The threshold whose quantised distribution tells most of the true one: smallest Kullback-Leibler divergence.

    The method of TensorRT's entropy calibrator (Migacz, GTC 2017): the bins below a threshold, with all that lies above
    added to the last, against the same bins merged into 128 levels and spread out again over those that are not empty.
    """
    counts = histogram.counts.astype(np.float64)
    last = _last(histogram.counts)
    best, best_divergence = (last + 1) * histogram.width, np.inf
    for end in range(LEVELS, last + 2, 8):  # 2048 bins in steps of 8: 0.05 s, and finer ones choose the same
        divergence = _divergence(counts, end)
        if divergence < best_divergence:
            best, best_divergence = end * histogram.width, divergence
    return best


def _divergence(counts: NDArray[np.float64], end: int) -> float:
    inside = counts[:end]
    reference = inside.copy()
    reference[-1] += counts[end:].sum()
    starts = np.arange(LEVELS) * end // LEVELS
    filled = inside > 0
    members = np.maximum(np.add.reduceat(filled, starts, dtype=np.int64), 1)
    levels = np.add.reduceat(inside, starts) / members
    spread = np.repeat(levels, np.diff(np.append(starts, end))) * filled
    total, spread_total = reference.sum(), spread.sum()
    if not total or not spread_total:
        return np.inf
    p, q = reference / total, spread / spread_total
    known = p > 0
    # a bin that only the clipped tail fills has no counterpart: an outcome the quantised one calls impossible
    return float((p[known] * np.log(p[known] / np.maximum(q[known], 1e-12))).sum())


def _last(counts: NDArray[np.int64]) -> int:
    """Index of the last bin that is not empty, 0 where all are."""
    filled = np.nonzero(counts)[0]
    return int(filled[-1]) if filled.size else 0
