"""How far an array is from its reference: the one measure that proofs and comparisons share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Difference", "difference"]


@dataclass(frozen=True)
class Difference:
    """How far one array is from its reference.

    Attributes:
        max_abs: largest absolute difference.
        rel_l2: norm of the difference over the norm of the reference.
        cosine: of the two arrays as vectors.
    """

    max_abs: float
    rel_l2: float
    cosine: float


def difference(found: NDArray[Any], reference: NDArray[Any]) -> Difference:
    """Difference of two arrays, computed in float64; infinite when values are not finite or shapes differ."""
    if found.shape != reference.shape or not np.isfinite(found).all():
        return Difference(math.inf, math.inf, 0.0)
    a, b = found.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    error, norm_a, norm_b = a - b, float(np.linalg.norm(a)), float(np.linalg.norm(b))
    residue = float(np.linalg.norm(error))
    rel_l2 = residue / norm_b if norm_b else (0.0 if residue == 0 else math.inf)
    cosine = float(a @ b) / (norm_a * norm_b) if norm_a and norm_b else float(residue == 0)
    return Difference(float(np.abs(error).max(initial=0.0)), rel_l2, cosine)
