"""The search on networks whose drops are known: each block costs something, and costs add up."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest

from calibration.search import Fit, Journal, Sensitivity, Trial, fit_budget, front, rank_blocks

COSTS = {
    "encoder/stem": (0.0, 0.0, 0.0),
    "encoder/stage1": (0.4, 0.1, 0.9),
    "bifpn/cell0": (0.1, 0.0, 0.1),
    "classifier": (2.0, 0.0, 0.0),
    "decoder/p2": (0.0, 0.2, 0.3),
}
FLOAT = {"mAP50": 60.0, "road mIoU": 88.0, "lane IoU": 35.0}


class Fake:
    """Costs of all quantised blocks added up."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...] | None] = []

    def __call__(self, kept: Collection[str] | None) -> dict[str, float]:
        self.asked.append(None if kept is None else tuple(kept))
        quantised = [] if kept is None else [block for block in COSTS if block not in kept]
        return {task: FLOAT[task] - sum(COSTS[block][i] for block in quantised) for i, task in enumerate(FLOAT)}


def ranking(measure: Fake) -> Sensitivity:
    return rank_blocks(list(COSTS), measure)


def test_each_block_alone() -> None:
    found = ranking(Fake())
    assert found.baseline == FLOAT
    for block, costs in COSTS.items():
        assert tuple(found.alone[block].values()) == pytest.approx(costs)
    assert found.ranked()[:2] == ["classifier", "encoder/stage1"]


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (3.0, ()),
        (1.5, ("classifier",)),
        (0.5, ("classifier", "encoder/stage1")),
        (0.15, ("classifier", "encoder/stage1", "decoder/p2")),
    ],
)
def test_the_fewest_blocks_that_suffice(budget: float, kept: tuple[str, ...]) -> None:
    measure = Fake()
    fit = fit_budget(ranking(measure), measure, budget)
    assert fit.chosen is not None
    assert fit.chosen.kept == kept
    assert fit.chosen.worst <= budget
    assert fit.chosen in fit.trials
    assert len(fit.trials) <= 4


def test_no_mixture_keeps_the_budget() -> None:
    measure = Fake()
    fit: Fit = fit_budget(ranking(measure), measure, -1.0)
    assert fit.chosen is None
    # a network without any INT8 block is no answer
    assert all(len(trial.kept) < len(COSTS) for trial in fit.trials)


def test_a_search_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    path = tmp_path / "trials.json"

    class Stopped(Fake):
        def __call__(self, kept: Collection[str] | None) -> dict[str, float]:
            if len(self.asked) == 3:
                raise KeyboardInterrupt
            return super().__call__(kept)

    with pytest.raises(KeyboardInterrupt):
        rank_blocks(list(COSTS), Journal(path, "key", Stopped()))
    assert len(json.loads(path.read_text())["figures"]) == 3
    rest = Fake()
    journal = Journal(path, "key", rest)
    assert len(journal.found) == 3
    assert rank_blocks(list(COSTS), journal) == ranking(Fake())
    assert len(rest.asked) == len(COSTS) + 1 - 3


def test_figures_of_something_else_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "trials.json"
    rank_blocks(list(COSTS), Journal(path, "these weights", Fake()))
    again = Fake()
    rank_blocks(list(COSTS), Journal(path, "other weights", again))
    assert len(again.asked) == len(COSTS) + 1


def journal_text(figures: str, remarks: str = "null") -> str:
    return f'{{"kind": "hnx trials", "key": "k", "remarks": {remarks}, "figures": {figures}}}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "{not json",
        '{"kind": "hnx trials", "key": "k"}',
        journal_text('{"float": 3}'),
        journal_text('{"float": {"mAP50": "many"}}'),
        journal_text('{"float": {"mAP50": NaN}}'),
        journal_text('{"float": {"mAP50": 1.0}, "": {"lane IoU": 1.0}}'),
        journal_text("{}", "[]"),
    ],
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trials.json"
    path.write_text(text)
    journal = Journal(path, "k", Fake())
    assert journal.damage
    assert rank_blocks(list(COSTS), journal) == ranking(Fake())
    again = Journal(path, "k", Fake())
    assert not again.damage
    assert len(again.found) == len(COSTS) + 1


def test_remarks_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "trials.json"
    journal = Journal(path, "k", Fake())
    assert journal.remarks is None
    assert journal.once(lambda: {"mAP50": "no label"}) == {"mAP50": "no label"}
    again = Journal(path, "k", Fake())
    assert again.once(dict) == {"mAP50": "no label"}
    assert Journal(path, "another", Fake()).once(dict) == {}


def test_the_front_holds_what_no_other_beats() -> None:
    def trial(name: str, lost: float) -> Trial:
        return Trial((name,), {"mAP50": 0.0, "lane IoU": lost})

    trials = [trial("fast", 2.0), trial("slow", 0.1), trial("middle", 0.5), trial("worse", 0.6), trial("untimed", 0.0)]
    times = {("fast",): 0.5, ("slow",): 0.9, ("middle",): 0.6, ("worse",): 0.7}
    assert front(trials, times) == [trials[0], trials[2], trials[1]]
    # of two that take the same time the one that loses less
    assert front(trials, {**times, ("fast",): 0.6}) == [trials[2], trials[1]]
    # of two that lose the same the faster one
    alike = [trial("slower", 0.5), *trials]
    assert front(alike, {**times, ("slower",): 0.65}) == [trials[0], trials[2], trials[1]]
    assert front(trials, {}) == []
