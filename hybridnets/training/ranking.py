"""Which networks are the best so far, and whether it is time to stop."""

from __future__ import annotations

import math
from typing import Any

from hybridnets.training.history import History

__all__ = ["improves", "ranked"]


def improves(history: History, fitness: float, min_delta: float) -> bool:
    """Whether a fitness is better than what early stopping has seen, by more than `min_delta`."""
    return fitness > history.es_best + (min_delta if math.isfinite(history.es_best) else 0.0)


def ranked(best: list[dict[str, Any]], new: dict[str, Any], keep: int) -> tuple[list[dict[str, Any]], set[str]]:
    """The best networks with a new one among them, and the files that are among them no more.

    Of equal ones the older stays in front: upstream saves when fitness improves.
    """
    ranking = sorted([*best, new], key=lambda row: -float(row["fitness"]))
    kept = ranking[:keep]
    return kept, {row["file"] for row in ranking} - {row["file"] for row in kept}
