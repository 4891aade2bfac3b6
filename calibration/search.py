"""Which blocks of a network suffer from INT8, and the fewest to put back into float so that no task loses too much.

Nothing here runs a network: a `Measure` does, and is asked for figures of a network in which some blocks stay float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridnets.errors import HnxError
from hybridnets.files import read_json, write_json

__all__ = ["Figures", "Fit", "Journal", "Measure", "Sensitivity", "Trial", "fit_budget", "front", "rank_blocks"]

# task -> accuracy in points, 0 to 100; more is better
Figures = Mapping[str, float]
# blocks that stay float -> figures of the network; None asks for the float network itself
Measure = Callable[[Collection[str] | None], Figures]

_FLOAT = "float"


@dataclass(frozen=True)
class Trial:
    """One network that was measured.

    Attributes:
        kept: blocks that stay float.
        drops: task -> points lost against the float network; negative is a gain.
    """

    kept: tuple[str, ...]
    drops: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest loss of a task."""
        return max(self.drops.values())

    def to_json(self) -> dict[str, Any]:
        """As it stands in reports."""
        return {"kept_float": list(self.kept), "drops": self.drops}


@dataclass(frozen=True)
class Sensitivity:
    """What each block does to each task when it alone is quantised.

    Attributes:
        baseline: figures of the float network.
        alone: block -> task -> points lost, in the order of the network.
    """

    baseline: dict[str, float]
    alone: dict[str, dict[str, float]]

    def ranked(self) -> list[str]:
        """Blocks, the most harmful first: by their largest loss of a task."""
        return sorted(self.alone, key=lambda block: -max(self.alone[block].values()))


@dataclass(frozen=True)
class Fit:
    """The end of a search.

    Attributes:
        trials: everything that was measured, in that order.
        chosen: the fewest blocks in float that keep the budget; None where no mixture does.
        max_drop: the budget in points.
    """

    trials: tuple[Trial, ...]
    chosen: Trial | None
    max_drop: float


class Journal:
    """Figures that were measured, in a file that is whole after every one of them.

    Args:
        path: of a JSON file in a cache; None keeps nothing.
        key: everything that decides figures; a file of another key, or a damaged one, starts anew.
        measure: called for what is not there yet.

    Attributes:
        found: blocks in float, as a text -> figures; what was measured before to begin with.
        remarks: see `once`; None until they are made.
        damage: why the file that lay there is not used; empty where nothing is wrong with it.
    """

    def __init__(self, path: Path | None, key: str, measure: Measure) -> None:
        self.path, self.key, self.measure = path, key, measure
        self.found: dict[str, dict[str, float]] = {}
        self.remarks: dict[str, str] | None = None
        self.damage = ""
        if path is not None and path.exists():
            try:
                self.found, self.remarks = _stored(path, key)
            except HnxError as error:  # it is no JSON, or cannot be read
                self.damage = error.why
            except (AttributeError, TypeError, ValueError, OverflowError) as error:
                self.damage = str(error)

    def __call__(self, kept: Collection[str] | None) -> Figures:
        """Figures, from the file where they are there."""
        label = _FLOAT if kept is None else ",".join(sorted(kept))
        if label in self.found:
            return self.found[label]
        figures = {task: float(value) for task, value in self.measure(kept).items()}
        self.found[label] = figures
        self._keep()
        return figures

    def once(self, make: Callable[[], Mapping[str, str]]) -> dict[str, str]:
        """Remarks on the whole search, made once and kept with its figures."""
        if self.remarks is None:
            self.remarks = dict(make())
            self._keep()
        return self.remarks

    def _keep(self) -> None:
        if self.path is not None:
            value = {"kind": "hnx trials", "key": self.key, "remarks": self.remarks, "figures": self.found}
            write_json(self.path, value)


def _stored(path: Path, key: str) -> tuple[dict[str, dict[str, float]], dict[str, str] | None]:
    """Figures and remarks of a file; none of those of another key."""
    value = read_json(path, limit=16 << 20)
    if not isinstance(value, dict) or value.get("kind") != "hnx trials" or not isinstance(value.get("figures"), dict):
        raise ValueError("it is no journal of trials")
    if value.get("key") != key:
        return {}, None
    found = {
        str(label): {str(task): float(number) for task, number in figures.items()}
        for label, figures in value["figures"].items()
    }
    numbers = [number for figures in found.values() for number in figures.values()]
    if len({frozenset(figures) for figures in found.values()}) > 1 or not all(map(math.isfinite, numbers)):
        raise ValueError("its figures do not fit together")
    remarks = value.get("remarks")
    return found, None if remarks is None else {str(task): str(why) for task, why in remarks.items()}


def rank_blocks(
    blocks: Sequence[str], measure: Measure, on_trial: Callable[[int, int, str], None] = lambda *_: None
) -> Sensitivity:
    """Quantise one block after the other, each alone.

    Args:
        blocks: those that hold something to quantise, in the order of the network.
        on_trial: told how many networks are measured, how many there are, and what comes next.
    """
    total = len(blocks) + 1
    on_trial(0, total, "the float network")
    baseline = dict(measure(None))
    alone = {}
    for done, block in enumerate(blocks, 1):
        on_trial(done, total, block)
        alone[block] = _drops(baseline, measure([other for other in blocks if other != block]))
    return Sensitivity(baseline, alone)


def fit_budget(
    sensitivity: Sensitivity,
    measure: Measure,
    max_drop: float,
    on_trial: Callable[[int, int, str], None] = lambda *_: None,
) -> Fit:
    """Put back the most harmful blocks until no task loses more than `max_drop` points.

    Blocks are put back in the order of their harm alone. The fewest that suffice are found by halving, which takes the
    drop to fall as more blocks return; noise breaks that now and then, so what is chosen is always one that was
    measured inside the budget.

    Args:
        on_trial: told how many networks are measured, how many there will be at most, and what comes next.
    """
    order = sensitivity.ranked()
    trials: list[Trial] = []
    steps = max(1, len(order).bit_length() + 1)

    def trial(count: int) -> Trial:
        kept = tuple(order[:count])
        on_trial(len(trials), steps, f"{count} of {len(order)} blocks in float" if count else "all blocks in INT8")
        found = Trial(kept, _drops(sensitivity.baseline, measure(kept)))
        trials.append(found)
        return found

    best = trial(0)
    if best.worst <= max_drop:
        return Fit(tuple(trials), best, max_drop)
    chosen: Trial | None = None
    low, high = 1, len(order) - 1  # all of them in float would be no INT8 network
    while low <= high:
        middle = (low + high) // 2
        found = trial(middle)
        if found.worst <= max_drop:
            chosen, high = found, middle - 1
        else:
            low = middle + 1
    return Fit(tuple(trials), chosen, max_drop)


def front(trials: Sequence[Trial], times: Mapping[tuple[str, ...], float]) -> list[Trial]:
    """Those that no other one beats in its worst loss and its time together: the Pareto front, the fastest first.

    Args:
        times: blocks in float -> time, in any unit; trials without one are left out.
    """
    found: list[Trial] = []
    for trial in sorted((t for t in trials if t.kept in times), key=lambda t: (times[t.kept], t.worst)):
        if not found or trial.worst < found[-1].worst:
            found.append(trial)
    return found


def _drops(baseline: Figures, figures: Figures) -> dict[str, float]:
    return {task: baseline[task] - figures[task] for task in baseline}
