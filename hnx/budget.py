"""The search of `hnx quantize --max-drop`, and what INT8 is worth on this machine."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridnets.cache import cache_folder
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.tuning.settings import Setting
    from benchmarks.tuning.timing import Timed
    from calibration.engine import Calibrated, QuantiseConfig
    from calibration.search import Fit, Journal, Measure, Sensitivity, Trial
    from hybridnets.bundle import Bundle
    from hybridnets.dataset import Split

__all__ = ["Budget", "rank", "search", "verdict"]

# of each precision: some 6 s altogether; quartiles of 12 rounds are those of the third and the ninth
_ROUNDS = 12
_ROUND_S = 0.5


@dataclass(frozen=True)
class Budget:
    """What a search may cost, and where it measures.

    Attributes:
        max_drop: points that every task may lose.
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


def search(bundle: Bundle, config: QuantiseConfig, target: str, found: Calibrated, budget: Budget) -> Trial:
    """The fewest blocks in float that keep the budget, for one target of a configuration.

    Raises:
        HnxError: no mixture keeps it (exit code 3), or nothing can be measured (exit code 4).
    """
    from calibration.search import fit_budget
    from hnx.console import stdout, steps
    from hybridnets.files import write_json

    with _journal(bundle, config, target, found, budget) as measure, steps() as show:
        sensitivity = _ranked(measure, found, config, target, functools.partial(show, f"{target}: ranking blocks"))
        fit = fit_budget(
            sensitivity, measure, budget.max_drop, functools.partial(show, f"{target}: fitting the budget")
        )
    stdout().print(_table(fit, target))
    if budget.report is not None:
        path = budget.report.with_name(f"{budget.report.stem}-{target}{budget.report.suffix or '.json'}")
        content = {**_json(target, sensitivity, fit), "not_guarded": measure.remarks or {}}
        write_json(path if len(config.targets) > 1 else budget.report, content)
    if fit.chosen is None:
        closest = min(fit.trials, key=lambda trial: trial.worst)
        raise HnxError(
            f"No mixture of INT8 and float keeps every task within {budget.max_drop:g} points for {target}",
            why=f"the closest one loses {closest.worst:.2f} with {len(closest.kept)} blocks in float",
            fix="allow more, calibrate on more frames, or try --method mse",
            code=ExitCode.GATE_FAILED,
        )
    return fit.chosen


def rank(bundle: Bundle, config: QuantiseConfig, target: str, found: Calibrated, budget: Budget) -> Sensitivity:
    """What each block costs when it alone is quantised; goes on where it was stopped.

    Raises:
        HnxError: nothing can be measured (exit code 4).
    """
    from hnx.console import steps

    with _journal(bundle, config, target, found, budget) as measure, steps() as show:
        return _ranked(measure, found, config, target, functools.partial(show, "ranking blocks"))


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
) -> Iterator[Journal]:
    """What measures networks, and keeps what it found in the user's cache."""
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
        "data": split.digest(),
        "tasks": task_names(heads),
        "images": min(budget.limit, len(split)),
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / "trials" / f"{key[:32]}.json"
    with trials(bundle, target, found, config, split, budget.limit, budget.threads) as measure:
        journal = Journal(path, key, measure)
        if journal.damage:
            note(f"{path} is damaged and is replaced: {journal.damage}")
        if journal.found:
            note(f"{len(journal.found)} network(s) of this search were measured before, and are not again: {path}")
        try:
            if journal.remarks is None:
                with status(f"{target}: measuring the float network"):
                    journal.once(measure.unmeasurable)
            for text in warnings_of(journal.remarks or {}, heads, untrained=bundle.untrained):
                note(text)
            yield journal
        except KeyboardInterrupt:
            note(f"the same command goes on from here: {len(journal.found)} measured network(s) are kept in {path}")
            raise


def _table(fit: Fit, target: str) -> Table:
    from hnx.console import plain_table

    tasks = list(fit.trials[0].drops)
    table = plain_table(target, "blocks in float", *(f"{task} lost" for task in tasks), "")
    for trial in sorted(fit.trials, key=lambda trial: len(trial.kept)):
        word = "chosen" if trial is fit.chosen else "" if trial.worst <= fit.max_drop else "over the budget"
        table.add_row("", str(len(trial.kept)), *(f"{trial.drops[task]:+.2f}" for task in tasks), word)
    if fit.chosen is not None and fit.chosen.kept:
        table.caption = "left in float: " + ", ".join(fit.chosen.kept)
    return table


def _json(target: str, sensitivity: Sensitivity, fit: Fit) -> dict[str, Any]:
    return {
        "target": target,
        "max_drop": fit.max_drop,
        "baseline": sensitivity.baseline,
        "alone": sensitivity.alone,
        "order": sensitivity.ranked(),
        "trials": [trial.to_json() for trial in fit.trials],
        "chosen": None if fit.chosen is None else fit.chosen.to_json(),
    }


def verdict(bundle: Bundle, targets: Sequence[str], threads: int, max_ratio: float | None) -> None:
    """Measure INT8 against the other precisions of this machine, and say which one to take.

    Raises:
        HnxError: INT8 takes more than `max_ratio` of FP32's time (exit code 3), or nothing that was made runs here.
    """
    from benchmarks.tuning.choice import int8_remark
    from benchmarks.tuning.settings import precisions
    from benchmarks.tuning.timing import ratio
    from hnx.console import note

    slow: list[str] = []
    measured = False
    for target in targets:
        if target not in ("openvino", "onnxruntime"):
            continue
        try:
            found, left_out = precisions(bundle, target)
        except HnxError as error:
            note(f"{error.what}: {error.why}; nothing was measured")
            continue
        if "int8" in left_out:
            note(f"{target} runs no int8 here, so nothing was measured: {left_out['int8']}")
            continue
        timed = {setting.precision: times for setting, times in _timed(bundle, target, found, threads).items()}
        measured = True
        ratios = {name: ratio(times, timed["fp32"]) for name, times in timed.items()}
        shares = ", ".join(f"{name} {mid:.2f} ({low:.2f} to {high:.2f})" for name, (low, mid, high) in ratios.items())
        print(f"{target}, time as a share of fp32's over {len(timed['fp32'].rounds)} rounds: {shares}")
        if remark := int8_remark(timed, target):
            note(remark)
        if max_ratio is not None and ratios["int8"][1] > max_ratio:
            slow.append(f"{target} {ratios['int8'][1]:.2f}")
    if max_ratio is not None and not measured:
        raise HnxError(
            "No latency was measured", why="nothing that was made runs here", fix="leave --max-latency-ratio out"
        )
    if slow:
        raise HnxError(
            f"INT8 takes more than {max_ratio:g} of FP32's time",
            why=", ".join(slow),
            fix="take the precision recommended above, or quantise on the machine it is for",
            code=ExitCode.GATE_FAILED,
        )


def _timed(bundle: Bundle, target: str, precisions: Sequence[str], threads: int) -> dict[Setting, Timed]:
    from benchmarks.tuning.settings import Setting
    from benchmarks.tuning.timing import time_settings
    from hnx.console import status

    settings = [Setting(name, threads) for name in precisions]
    with status(f"timing {target}") as step:
        return time_settings(bundle, target, settings, rounds=_ROUNDS, seconds=_ROUND_S, on_step=step)
