"""Percentiles, summaries and the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.statistics import (
    LONGER,
    MIN_SAMPLES,
    Evidence,
    drift,
    enough_samples,
    judge,
    paired_ratio,
    percentile,
    summarise,
)

STEADY = [10.0 + 0.01 * (index % 7) for index in range(100)]
ROUNDS = [STEADY[i : i + 10] for i in range(0, 100, 10)]


def evidence(samples: list[float] | None = None, **changes: object) -> Evidence:
    summary = summarise(STEADY if samples is None else samples)
    return replace(Evidence(forward=summary, end_to_end=summary, forward_rounds=ROUNDS), **changes)  # type: ignore[arg-type]


def test_percentiles_are_numpys_linear_ones() -> None:
    samples = np.random.default_rng(1).gamma(2, 3, 137).tolist()
    for level in (0, 50, 90, 95, 99, 99.9, 100):
        assert percentile(samples, level) == np.percentile(samples, level)
    assert percentile([4.0], 99) == 4.0


def test_summary_of_known_numbers() -> None:
    summary = summarise([4.0, 1.0, 3.0, 2.0])
    assert (summary.count, summary.minimum, summary.maximum, summary.mean) == (4, 1.0, 4.0, 2.5)
    assert summary.median == 2.5
    assert summary.std == pytest.approx(np.std([1, 2, 3, 4], ddof=1))
    assert summarise([7.0]).std == 0.0


def test_nothing_is_clipped() -> None:
    summary = summarise([*STEADY, 10_000.0])
    assert summary.maximum == 10_000.0
    assert summary.mean > 100
    assert summary.to_json()["max"] == 10_000.0


@pytest.mark.parametrize(("count", "there"), [(999, False), (1000, True)])
def test_p999_needs_a_thousand_samples(count: int, there: bool) -> None:
    assert ("p99.9" in summarise([1.0] * count).to_json()) is there


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [float("inf")]])
def test_refuses_what_cannot_be_summarised(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        summarise(samples)


def test_interval_of_the_median_covers_it() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        summary = summarise(random.exponential(1.0, 51).tolist())
        covered += summary.median_low <= np.log(2) <= summary.median_high
    assert 0.93 <= covered / 400 <= 0.99


def test_enough_samples_grows_with_the_square_of_the_error() -> None:
    noisy = summarise((10 + np.random.default_rng(0).normal(0, 3, 50)).tolist())
    enough = enough_samples(noisy)
    assert enough == pytest.approx(50 * (noisy.median_error / 0.02) ** 2, rel=0.05)
    assert enough_samples(summarise([5.0] * 3)) == MIN_SAMPLES


def test_paired_ratio_survives_a_disturbance_that_hits_both() -> None:
    baseline = [[10.0] * 5, [30.0] * 5, [10.0] * 5]
    row = [[5.0] * 5, [15.0] * 5, [5.0] * 5]
    assert paired_ratio(row, baseline) == 0.5
    assert paired_ratio(row[:1], baseline) == 0.5
    assert paired_ratio([], baseline) is None


def test_drift() -> None:
    assert drift([[1.0]] * 3) is None
    assert drift([[1.0], [1.0], [1.2], [1.2]]) == pytest.approx(0.2)
    assert drift([[1.0], [1.0], [9.0], [1.0], [1.0]]) == 0.0  # one bad round is noise, not drift
    assert drift([[2.0], [2.0], [1.0], [1.0]]) == pytest.approx(-0.5)


def test_a_steady_row_is_valid() -> None:
    verdict = judge(evidence())
    assert verdict.valid
    assert verdict.to_json() == {"valid": True, "reasons": [], "advice": [], "enough_samples": None}


@pytest.mark.parametrize(
    ("changes", "reason", "advice"),
    [
        ({"executed": "bf16"}, "bf16 ran where fp32 was asked for", "ask for bf16"),
        ({"finite": False}, "NaN or infinite", "hnx compare"),
        ({"warmed_up": False}, "warm-up did not settle", "--rigorous"),
        ({"went_idle": False}, "kept spinning", "OMP_WAIT_POLICY"),
        ({"foreign_cores": 0.9, "cores": 4}, "0.9 of 4 cores", "close other programs"),
        ({"throttled": ["it became too hot (3 times)"]}, "too hot", "cooling"),
        ({"forward_rounds": [[10.0]] * 4 + [[12.0]] * 4}, "20% slower", "cool down"),
        ({"forward_rounds": [[12.0]] * 4 + [[10.0]] * 4}, "17% faster", "--rigorous"),
    ],
)
def test_each_rule_has_a_reason_and_advice(changes: dict[str, object], reason: str, advice: str) -> None:
    verdict = judge(evidence(**changes))
    assert not verdict.valid
    assert reason in " ".join(verdict.reasons)
    assert advice in " ".join(verdict.to_json()["advice"])


def test_foreign_load_within_the_limit_or_unknown_is_no_fault() -> None:
    assert judge(evidence(foreign_cores=0.3, cores=4)).valid
    assert judge(evidence(foreign_cores=None, cores=4)).valid


def test_too_few_samples_say_how_many_would_do() -> None:
    verdict = judge(evidence(STEADY[:5]))
    assert "5 forward samples are too few" in verdict.reasons[0]
    assert "--iterations 20" in verdict.to_json()["advice"][-1]
    assert verdict.to_json()["enough_samples"] == 20


def test_the_most_decisive_reasons_come_first() -> None:
    noisy = evidence([10.0, 14.0] * 15, finite=False, warmed_up=False, foreign_cores=1.0, cores=2)
    reasons = judge(noisy).reasons
    marks = ["NaN", "other programs", "fix the median", "vary by", "warm-up"]
    positions = [next(index for index, reason in enumerate(reasons) if mark in reason) for mark in marks]
    assert positions == sorted(positions)


def test_hopeless_noise_asks_for_quiet_instead_of_patience() -> None:
    samples = np.random.default_rng(0).lognormal(0, 2, 60).tolist()
    verdict = judge(evidence(samples))
    found = verdict.to_json()
    assert found["advice"][-1] == "more samples would not fix the medians, a quieter machine would"
    assert found["enough_samples"] is None
    assert LONGER not in found["advice"]


def test_noise_in_spread_and_in_the_tail() -> None:
    spread = judge(evidence([10.0, 14.0] * 200))
    assert any("vary by" in reason for reason in spread.reasons)
    tail = judge(evidence([10.0] * 940 + [12.5] * 60))
    assert any("p95 of forward lies 25% above" in reason for reason in tail.reasons)


def test_content_and_queues_are_no_noise() -> None:
    varied = summarise([10.0, 14.0] * 200)
    assert judge(evidence(end_to_end=varied, frames=4)).valid
    assert not judge(evidence(end_to_end=varied, frames=1)).valid
    assert judge(evidence([10.0] * 940 + [12.5] * 60, latency_bound=False)).valid
