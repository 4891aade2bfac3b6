"""The search of `hnx quantize --max-drop` and of `hnx sensitivity`."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hnx.fitted import Pace, fit_json, fit_table
from hybridnets.cache import cache_folder
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from benchmarks.tuning.timing import Timed
    from calibration.engine import Calibrated, QuantiseConfig
    from calibration.search import Fit, Journal, Measure, Sensitivity, Trial
    from hnx.trials import Trials
    from hybridnets.bundle import Bundle
    from hybridnets.dataset import Split

__all__ = ["Budget", "Fitted", "rank", "search"]


@dataclass(frozen=True)
class Budget:
    """What a search may cost, and where it measures.

    Attributes:
        max_drop: points that every task may lose.
        max_ratio: share of FP32's time that the network may take; None sets no limit.
        split: labelled images, of `hnx.early.labelled_split`.
        limit: how many of them.
        threads: of the network.
        report: JSON file of everything that was tried; None writes none. With several targets each has one of its own.
    """

    max_drop: float
    split: Split
    limit: int
    threads: int
    report: Path | None = None
    max_ratio: float | None = None


@dataclass(frozen=True)
class Fitted:
    """The end of a search.

    Attributes:
        trial: what was chosen.
        times: precision -> its times, INT8 those of the chosen network; None where nothing was timed.
    """

    trial: Trial
    times: dict[str, Timed] | None


def search(bundle: Bundle, config: QuantiseConfig, target: str, found: Calibrated, budget: Budget) -> Fitted:
    """The fewest blocks in float that keep the budget, for one target of a configuration.

    Everything that was tried is timed in turns, printed and reported, whether or not something fits.

    Raises:
        HnxError: no mixture keeps it (exit code 3), or nothing can be measured (exit code 4).
    """
    from calibration.search import fit_budget
    from hnx.console import status, stdout, steps
    from hybridnets.files import write_json

    with _journal(bundle, config, target, found, budget) as (journal, networks):
        with steps() as show:
            sensitivity = _ranked(journal, found, config, target, functools.partial(show, f"{target}: ranking blocks"))
            told = functools.partial(show, f"{target}: fitting the budget")
            fit = fit_budget(sensitivity, journal, budget.max_drop, told)
        with status(f"timing what was tried for {target}") as step:
            pace = _timed(networks, fit, step)
    if pace is not None and budget.max_ratio is not None:
        fit = replace(fit, chosen=_quick_enough(fit, pace, budget.max_ratio))
    stdout().print(fit_table(fit, target, pace))
    if budget.report is not None:
        path = budget.report.with_name(f"{budget.report.stem}-{target}{budget.report.suffix or '.json'}")
        content = {**fit_json(target, sensitivity, fit, pace), "not_guarded": journal.remarks or {}}
        write_json(path if len(config.targets) > 1 else budget.report, content)
    if fit.chosen is None:
        closest = min(fit.trials, key=lambda trial: trial.worst)
        raise HnxError(
            f"No mixture of INT8 and float keeps every task within {budget.max_drop:g} points for {target}",
            why=f"the closest one loses {closest.worst:.2f} with {len(closest.kept)} blocks in float",
            fix="allow more, calibrate on more frames, or try --method mse",
            code=ExitCode.GATE_FAILED,
        )
    timed = None if pace is None else pace.mixtures.get(fit.chosen.kept)
    return Fitted(fit.chosen, None if pace is None or timed is None else {**pace.floats, "int8": timed})


def _timed(networks: Trials, fit: Fit, on_step: Callable[[str], None]) -> Pace | None:
    """Times of everything that was tried, or of what was chosen where a small machine cannot hold all of it."""
    from hnx.console import note

    each = [[trial.kept for trial in fit.trials], [] if fit.chosen is None else [fit.chosen.kept]]
    for mixtures in each:
        try:
            floats, found = networks.times(mixtures, on_step)
        except HnxError as error:
            note(f"{error.what}: {error.why}")
        else:
            return Pace(floats, dict(zip(mixtures, found, strict=True)))
        if networks.runtime != networks.target:
            break
    return None


def _quick_enough(fit: Fit, pace: Pace, limit: float) -> Trial | None:
    """The fewest blocks in float that keep both limits; where nothing does, those that lose little enough."""
    ratios = pace.ratios()
    fitting = [
        trial
        for trial in fit.trials
        if trial.worst <= fit.max_drop and trial.kept in ratios and ratios[trial.kept][1] <= limit
    ]
    return min(fitting, key=lambda trial: len(trial.kept), default=fit.chosen)


def rank(bundle: Bundle, config: QuantiseConfig, target: str, found: Calibrated, budget: Budget) -> Sensitivity:
    """What each block costs when it alone is quantised; goes on where it was stopped.

    Raises:
        HnxError: nothing can be measured (exit code 4).
    """
    from hnx.console import steps

    with _journal(bundle, config, target, found, budget) as (journal, _), steps() as show:
        return _ranked(journal, found, config, target, functools.partial(show, "ranking blocks"))


def _ranked(
    measure: Measure, found: Calibrated, config: QuantiseConfig, target: str, show: Callable[[int, int, str], None]
) -> Sensitivity:
    from calibration.placement import make_plan, placement
    from calibration.search import rank_blocks
    from hybridnets.blocks import sort_blocks

    plan = make_plan(found.model, placement(target), exclude=config.exclude)
    blocks = sort_blocks(name for name, (quantised, _) in plan.blocks.items() if quantised)
    return rank_blocks(blocks, measure, show)


@contextlib.contextmanager
def _journal(
    bundle: Bundle, config: QuantiseConfig, target: str, found: Calibrated, budget: Budget
) -> Iterator[tuple[Journal, Trials]]:
    """What measures networks and keeps what it found in the user's cache, and the networks themselves."""
    from benchmarks.accuracy.measurable import warnings_of
    from benchmarks.accuracy.protocols import Heads
    from benchmarks.accuracy.quick import task_names
    from calibration.search import Journal
    from hnx.console import note, status
    from hnx.trials import place_of, trials

    split, heads = budget.split, Heads.for_bundle(bundle)
    parts = {
        **found.key.to_json(),
        "target": target,
        "place": place_of(target),
        "exclude": config.exclude,
        "bias": config.bias_correction,
        "per_tensor": config.per_tensor,
        "data": split.digest(),
        "tasks": task_names(heads),
        "images": min(budget.limit, len(split)),
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / "trials" / f"{key[:32]}.json"
    with trials(bundle, target, found, config, split, budget.limit, budget.threads) as networks:
        journal = Journal(path, key, networks)
        if journal.damage:
            note(f"{path} is damaged and is replaced: {journal.damage}")
        if journal.found:
            note(f"{len(journal.found)} network(s) of this search were measured before, and are not again: {path}")
        try:
            if journal.remarks is None:
                with status(f"{target}: measuring the float network"):
                    journal.once(networks.unmeasurable)
            for text in warnings_of(journal.remarks or {}, heads, untrained=bundle.untrained):
                note(text)
            yield journal, networks
        except KeyboardInterrupt:
            note(f"the same command goes on from here: {len(journal.found)} measured network(s) are kept in {path}")
            raise
