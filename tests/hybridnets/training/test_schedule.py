"""Learning rates, by hand."""

from __future__ import annotations

import json

import pytest
import torch

from hybridnets.errors import ExitCode, HnxError
from hybridnets.training.schedule import Schedule, ScheduleKind


def test_warm_up_then_half_a_cosine_to_the_floor() -> None:
    schedule = Schedule("cosine", 1.0, 15, warmup=4, floor=0.1)
    assert [schedule.rate(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert schedule.rate(9) == pytest.approx(0.55)  # half way
    assert schedule.rate(14) == pytest.approx(0.1)
    assert schedule.rate(1000) == pytest.approx(0.1)
    rates = [schedule.rate(step) for step in range(4, 15)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("kind", ["cosine", "constant", "plateau"])
def test_rates_are_a_function_of_the_step(kind: ScheduleKind) -> None:
    schedule = Schedule(kind, 0.1, 100, warmup=10)
    forwards = [schedule.rate(step) for step in range(100)]
    again = Schedule(kind, 0.1, 100, warmup=10)
    assert [again.rate(step) for step in reversed(range(100))] == forwards[::-1]
    assert max(forwards) == pytest.approx(0.1)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 5), (3, 3), (2, 1)])
def test_runs_as_short_as_their_warm_up(steps: int, warmup: int) -> None:
    schedule = Schedule("cosine", 1.0, steps, warmup=warmup)
    assert all(0.0 < schedule.rate(step) <= 1.0 for step in range(steps + 2))


def test_plateau_is_that_of_torch() -> None:
    losses = [5.0, 4.0, 4.0, 4.1, 4.2, 3.9999, 4.0, 3.0, *[3.0] * 9, 2.0]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3, factor=0.1)
    schedule = Schedule("plateau", 0.5, 1000)
    for loss in losses:
        reference.step(loss)
        schedule.end_epoch(loss)
        assert schedule.rate(7) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert schedule.rate(7) < 0.5


def test_plateau_resumes_and_counts_a_nan_as_no_progress() -> None:
    schedule = Schedule("plateau", 1.0, 10)
    for loss in (1.0, float("nan"), float("nan"), float("nan")):
        schedule.end_epoch(loss)
    assert schedule.rate(0) == 1.0
    other = Schedule("plateau", 1.0, 10)
    other.load_state_dict(schedule.state_dict())
    other.end_epoch(2.0)
    assert other.rate(0) == pytest.approx(0.1)


def test_state_of_the_others_stays_as_it_was() -> None:
    schedule = Schedule("cosine", 1.0, 10)
    before = json.dumps(schedule.state_dict())
    for loss in (1.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        schedule.end_epoch(loss)
    assert json.dumps(schedule.state_dict()) == before


def test_apply_sets_every_group() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    optimizer = torch.optim.AdamW(groups, lr=9.0)
    assert Schedule("constant", 0.25, 10, warmup=1).apply(optimizer, 0) == 0.125
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


@pytest.mark.parametrize(
    "values",
    [
        {"lr": 0.0},
        {"lr": float("nan")},
        {"steps": 0},
        {"warmup": -1},
        {"floor": 1.5},
        {"kind": "cosin"},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, object]) -> None:
    arguments: dict[str, object] = {"kind": "cosine", "lr": 1.0, "steps": 10, **values}
    with pytest.raises(HnxError) as caught:
        Schedule(**arguments)  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.USAGE
