"""Histograms of |x| that grow with what they see and do not depend on the order in which they see it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "Histogram"]

# 2048 bins, as TensorRT's and ONNX Runtime's calibrators have; 16 for each of the 128 levels of INT8
BINS = 2048
# no activation that matters is smaller, and the scale of its bins would leave float32
_TINY = 2.0**-100


class Histogram:
    """Counts of |x| in equal bins of [0, limit), where the limit is a power of two.

    When a larger value comes the limit doubles and pairs of bins are added: edges of powers of two are exact, so the
    counts are those of one histogram over everything, whatever came first.

    Attributes:
        counts: int64 (bins,).
        limit: upper end of the last bin; 0 while everything seen was 0.
        zeros: values of 0.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.counts: NDArray[np.int64] = np.zeros(bins, np.int64)
        self.limit = 0.0
        self.zeros = 0

    def add(self, values: NDArray[Any]) -> None:
        """Count finite values of any shape."""
        size = np.abs(values).ravel()
        top = float(size.max(initial=0.0))
        if top < _TINY:
            self.zeros += size.size
            return
        limit = 2.0 ** (math.floor(math.log2(top)) + 1)  # top < limit
        while self.limit and self.limit < limit:
            self._double()
        self.limit = max(self.limit, limit)
        bins = self.counts.size
        # exact in float32: a power of two only changes the exponent
        indices = (size * np.float32(bins / self.limit)).astype(np.int32)
        np.minimum(indices, bins - 1, out=indices)
        self.counts += np.bincount(indices, minlength=bins)
        zeros = int(size.size - np.count_nonzero(size))
        self.counts[0] -= zeros
        self.zeros += zeros

    def _double(self) -> None:
        pairs = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.concatenate([pairs, np.zeros_like(pairs)])
        self.limit *= 2

    @property
    def width(self) -> float:
        """Of one bin."""
        return self.limit / self.counts.size

    @property
    def total(self) -> int:
        """Values seen, zeros included."""
        return int(self.counts.sum()) + self.zeros
