"""What a search of `hnx quantize --max-drop` tried, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.tuning.timing import Ratio, Timed
    from calibration.search import Fit, Sensitivity, Trial

__all__ = ["Pace", "fit_json", "fit_table"]


@dataclass(frozen=True)
class Pace:
    """Times of a search's networks, all of them taken in the same turns.

    Attributes:
        floats: precision to its times, float32 first.
        mixtures: blocks in float -> times of that network; those of the trials that were timed.
    """

    floats: dict[str, Timed]
    mixtures: dict[tuple[str, ...], Timed]

    def ratios(self) -> dict[tuple[str, ...], Ratio]:
        """Blocks in float -> time as a share of float32's, quartiles over the rounds."""
        from benchmarks.tuning.timing import ratio

        baseline = self.floats["fp32"]
        return {kept: ratio(timed, baseline) for kept, timed in self.mixtures.items()}


def fit_table(fit: Fit, target: str, pace: Pace | None) -> Table:
    """A row for each network that was tried, the one with the fewest blocks in float first."""
    from hnx.console import plain_table

    tasks = list(fit.trials[0].drops)
    ratios = {} if pace is None else pace.ratios()
    best = _front(fit, ratios)
    timing = ["time/fp32"] if ratios else []
    table = plain_table(target, "blocks in float", *(f"{task} lost" for task in tasks), *timing, "")
    for trial in sorted(fit.trials, key=lambda trial: len(trial.kept)):
        words = ["chosen" if trial is fit.chosen else "" if trial.worst <= fit.max_drop else "over the budget"]
        if trial.kept in ratios and trial not in best:
            words.append("another is no slower and loses no more")
        share = [_share(ratios.get(trial.kept))] if ratios else []
        lost = (f"{trial.drops[task]:+.2f}" for task in tasks)
        table.add_row("", str(len(trial.kept)), *lost, *share, "; ".join(filter(None, words)))
    if fit.chosen is not None and fit.chosen.kept:
        table.caption = "left in float: " + ", ".join(fit.chosen.kept)
    return table


def _share(quartiles: Ratio | None) -> str:
    if quartiles is None:
        return "-"
    low, middle, high = quartiles
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _front(fit: Fit, ratios: dict[tuple[str, ...], Ratio]) -> list[Trial]:
    from calibration.search import front

    return front(fit.trials, {kept: middle for kept, (_, middle, _) in ratios.items()})


def fit_json(target: str, sensitivity: Sensitivity, fit: Fit, pace: Pace | None) -> dict[str, Any]:
    """Everything that was measured; `time` of a trial is null where nothing was timed."""
    ratios = {} if pace is None else pace.ratios()
    best = _front(fit, ratios)
    trials = []
    for trial in fit.trials:
        share = None
        if pace is not None and trial.kept in ratios:
            rounds = pace.mixtures[trial.kept].rounds
            share = {"of_fp32": ratios[trial.kept], "rounds_ms": rounds, "pareto": trial in best}
        trials.append({**trial.to_json(), "time": share})
    return {
        "target": target,
        "max_drop": fit.max_drop,
        "baseline": sensitivity.baseline,
        "alone": sensitivity.alone,
        "order": sensitivity.ranked(),
        "float_rounds_ms": {} if pace is None else {name: timed.rounds for name, timed in pace.floats.items()},
        "trials": trials,
        "chosen": None if fit.chosen is None else fit.chosen.to_json(),
    }
