"""Numbers out of samples, and the verdict whether they can be trusted. All times are milliseconds.

Samples are never clipped: a slow one is part of what a user will meet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = [
    "Evidence",
    "Summary",
    "Verdict",
    "drift",
    "enough_samples",
    "imprecise",
    "judge",
    "more_samples",
    "paired_ratio",
    "percentile",
    "summarise",
]

PERCENTILES = (50, 90, 95, 99)
# Below 1000 samples not one of them lies beyond the 99.9th percentile: it would be the maximum under another name.
P999_SAMPLES = 1000
# With fewer than 20 none lies beyond the 95th percentile, and the interval of the median is guesswork.
MIN_SAMPLES = 20
# Half width of the median's 95 % interval: well inside the 5 % that a regression gate looks for.
MEDIAN_LIMIT = 0.02
# A normal spread of 10 % puts p95 16 % above the median: more than that in either is not one steady machine.
VARIATION_LIMIT = 0.10
TAIL_LIMIT = 0.20
# Second half of the rounds against the first: as much as the default regression gate.
DRIFT_LIMIT = 0.05
# Somebody else's share of our cores: it slows a network that uses all of them by about as much.
FOREIGN_LIMIT = 0.10
# Drift needs two halves of at least two rounds each.
DRIFT_ROUNDS = 4


@dataclass(frozen=True)
class Summary:
    """What a list of times says.

    Attributes:
        count: number of samples.
        minimum, mean, std, maximum: milliseconds; std has n - 1 in its denominator and is 0 for one sample.
        percentiles: 50, 90, 95, 99 and, from 1000 samples on, 99.9 to milliseconds.
        median_low, median_high: 95 % interval of the median from order statistics (no normal distribution assumed).
    """

    count: int
    minimum: float
    mean: float
    std: float
    maximum: float
    percentiles: Mapping[float, float]
    median_low: float
    median_high: float

    @property
    def median(self) -> float:
        """The 50th percentile."""
        return self.percentiles[50]

    @property
    def variation(self) -> float:
        """Standard deviation as a share of the mean."""
        return self.std / self.mean if self.mean > 0 else 0.0

    @property
    def tail(self) -> float:
        """How far p95 lies above the median, as a share of the median."""
        return (self.percentiles[95] - self.median) / self.median if self.median > 0 else 0.0

    @property
    def median_error(self) -> float:
        """Half width of the median's interval, as a share of the median."""
        return (self.median_high - self.median_low) / 2 / self.median if self.median > 0 else 0.0

    def to_json(self) -> dict[str, float | int]:
        """As it stands in a report: p50, p90, ... besides count, min, mean, std, max and the median's interval."""
        values: dict[str, float | int] = {
            "count": self.count,
            "min": round(self.minimum, 6),
            "mean": round(self.mean, 6),
            "std": round(self.std, 6),
        }
        values.update({f"p{level:g}": round(value, 6) for level, value in self.percentiles.items()})
        values["max"] = round(self.maximum, 6)
        values["p50_low"], values["p50_high"] = round(self.median_low, 6), round(self.median_high, 6)
        return values


def percentile(samples: Sequence[float], level: float) -> float:
    """Percentile by linear interpolation between the two nearest order statistics, at rank (n - 1) * level / 100.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.5
    """
    return float(np.percentile(np.asarray(samples, np.float64), level, method="linear"))


def summarise(samples: Sequence[float]) -> Summary:
    """Summary of at least one finite time.

    Raises:
        ValueError: no samples, or one that is not a finite number.
    """
    values = np.sort(np.asarray(samples, np.float64))
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("a summary needs at least one sample, all of them finite")
    count = len(values)
    levels: list[float] = [*PERCENTILES, *([99.9] if count >= P999_SAMPLES else [])]
    # ranks of the binomial(n, 1/2) around n/2, normal approximation: 1.96 * sqrt(n) / 2 to either side
    reach = 0.98 * math.sqrt(count)
    low, high = max(0, math.floor(count / 2 - reach)), min(count - 1, math.ceil(count / 2 + reach) - 1)
    return Summary(
        count=count,
        minimum=float(values[0]),
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if count > 1 else 0.0,
        maximum=float(values[-1]),
        percentiles={level: percentile(values.tolist(), level) for level in levels},
        median_low=float(values[low]),
        median_high=float(values[max(low, high)]),
    )


def enough_samples(summary: Summary) -> int:
    """How many samples would bring the median's interval within the limit: it narrows with the root of n."""
    scale = (summary.median_error / MEDIAN_LIMIT) ** 2
    return max(MIN_SAMPLES, math.ceil(summary.count * scale))


def drift(rounds: Sequence[Sequence[float]]) -> float | None:
    """Median of the later rounds' medians against that of the earlier ones, as a share; None below four rounds.

    Above 0 the row became slower.
    """
    medians = [percentile(samples, 50) for samples in rounds if len(samples)]
    if len(medians) < DRIFT_ROUNDS:
        return None
    half = len(medians) // 2
    before, after = percentile(medians[:half], 50), percentile(medians[-half:], 50)
    return after / before - 1 if before > 0 else None


def paired_ratio(rounds: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]) -> float | None:
    """Median over the common rounds of (median of this row / median of the baseline); below 1 is faster.

    A disturbance that lasts a whole round hits both rows and cancels, unlike in a ratio of two overall medians.
    None when no round is common.
    """
    ratios = [
        percentile(ours, 50) / reference
        for ours, theirs in zip(rounds, baseline, strict=False)
        if len(ours) and len(theirs) and (reference := percentile(theirs, 50)) > 0
    ]
    return percentile(ratios, 50) if ratios else None


@dataclass(frozen=True)
class Evidence:
    """What is known of one row when it is judged.

    Attributes:
        forward, end_to_end: their summaries.
        forward_rounds: the samples by round.
        frames: number of different frames; with more than one, end-to-end times differ by content.
        asked, executed: precisions.
        finite: no output held a NaN or an infinity.
        warmed_up: the warm-up reached its rule before its limit.
        went_idle: the row's threads slept between its slices.
        foreign_cores: cores that others kept busy while this row ran; None when the system does not say.
        cores: cores this process may use.
        throttled: what slowed the processor during the run, in words.
        latency_bound: False where requests queue on purpose (several streams): spread is no fault there.
    """

    forward: Summary
    end_to_end: Summary
    forward_rounds: Sequence[Sequence[float]]
    frames: int = 1
    asked: str = "fp32"
    executed: str = "fp32"
    finite: bool = True
    warmed_up: bool = True
    went_idle: bool = True
    foreign_cores: float | None = None
    cores: int = 1
    throttled: Sequence[str] = ()
    latency_bound: bool = True


@dataclass
class Verdict:
    """Reasons against a row, and what to do about each.

    Attributes:
        reasons: empty for a valid row; the most decisive come first: what is wrong, what disturbed it, what the numbers
            show of it.
        advice: sentences in the order of the reasons, without repetitions.
        needed: samples that would fix the medians well enough; 0 when they are.
    """

    reasons: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    needed: int = 0

    @property
    def valid(self) -> bool:
        """Nothing speaks against it."""
        return not self.reasons

    def object(self, reason: str, *advice: str) -> None:
        """Add a reason and its advice."""
        self.reasons.append(reason)
        self.advice.extend(sentence for sentence in advice if sentence not in self.advice)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a report."""
        advice = self.advice
        if self.needed:  # says it better than LONGER
            advice = [*(sentence for sentence in advice if sentence != LONGER), more_samples(self.needed)]
        return {
            "valid": self.valid,
            "reasons": self.reasons,
            "advice": advice,
            "enough_samples": self.needed if 0 < self.needed <= MANY_SAMPLES else None,
        }


# Beyond this a longer run is no remedy: 300 samples of 100 ms fill half a minute, 5000 more than eight.
MANY_SAMPLES = 5000


def more_samples(enough: int) -> str:
    """Advice for a row whose median is not fixed well enough; a number only where it is of use.

    >>> more_samples(180)
    'about 180 samples would be enough: --iterations 180, with a larger --max-time if the limit ended the row'
    """
    if enough > MANY_SAMPLES:
        return "more samples would not fix the medians, a quieter machine would"
    return (
        f"about {enough} samples would be enough: --iterations {enough}, "
        "with a larger --max-time if the limit ended the row"
    )


_QUIET = "close other programs and measure again"
LONGER = "measure longer with --rigorous"


def judge(evidence: Evidence) -> Verdict:
    """Hold a row against every rule; the limits stand at the top of this module."""
    verdict = Verdict()
    if evidence.executed != evidence.asked:
        verdict.object(
            f"{evidence.executed} ran where {evidence.asked} was asked for",
            f"ask for {evidence.executed}, or use a device that has {evidence.asked}",
        )
    if not evidence.finite:
        verdict.object(
            "the outputs hold NaN or infinite values",
            "compare the outputs with `hnx compare`; a network that overflows may take other paths through its code",
        )
    _judge_machine(evidence, verdict)
    _judge_samples(evidence, verdict)
    _judge_noise(evidence, verdict)
    if not evidence.warmed_up:
        verdict.object("the warm-up did not settle", LONGER, _QUIET)
    return verdict


def imprecise(kind: str, summary: Summary, frames: int) -> bool:
    """The median is not fixed within the limit; of end-to-end times only asked where all frames are the same one."""
    return summary.median_error > MEDIAN_LIMIT and (kind == "forward" or frames == 1)


def _judge_samples(evidence: Evidence, verdict: Verdict) -> None:
    for name, summary in (("forward", evidence.forward), ("end-to-end", evidence.end_to_end)):
        if summary.count >= MIN_SAMPLES and not imprecise(name, summary, evidence.frames):
            continue
        verdict.needed = max(verdict.needed, enough_samples(summary))
        if summary.count < MIN_SAMPLES:
            reason = f"{summary.count} {name} samples are too few (at least {MIN_SAMPLES})"
        else:
            error = f"{summary.median_error:.1%}"
            reason = f"{summary.count} {name} samples fix the median only to {error} (limit {MEDIAN_LIMIT:.0%})"
        verdict.object(reason)


def _judge_noise(evidence: Evidence, verdict: Verdict) -> None:
    if not evidence.latency_bound:
        return
    for name, summary in (("forward", evidence.forward), ("end-to-end", evidence.end_to_end)):
        if name == "end-to-end" and evidence.frames > 1:
            continue  # boxes and masks of different frames take different times: not noise
        if summary.variation > VARIATION_LIMIT:
            verdict.object(
                f"{name} times vary by {summary.variation:.0%} of their mean (limit {VARIATION_LIMIT:.0%})",
                _QUIET,
                LONGER,
            )
        elif summary.tail > TAIL_LIMIT:
            verdict.object(
                f"p95 of {name} lies {summary.tail:.0%} above the median (limit {TAIL_LIMIT:.0%})", _QUIET, LONGER
            )
    change = drift(evidence.forward_rounds)
    if change is not None and abs(change) > DRIFT_LIMIT:
        direction = "slower" if change > 0 else "faster"
        verdict.object(
            f"it became {abs(change):.0%} {direction} between the first and the second half of the rounds",
            "let the machine cool down or fix its clock, then measure again" if change > 0 else LONGER,
        )


def _judge_machine(evidence: Evidence, verdict: Verdict) -> None:
    for cause in evidence.throttled:
        verdict.object(
            f"the processor was throttled: {cause}", "improve the cooling or lift the limit of the container"
        )
    foreign = evidence.foreign_cores
    if foreign is not None and foreign > FOREIGN_LIMIT * evidence.cores:
        verdict.object(f"other programs kept {foreign:.1f} of {evidence.cores} cores busy", _QUIET)
    if not evidence.went_idle:
        verdict.object(
            "its threads kept spinning after its turns and slowed the other rows",
            "unset OMP_WAIT_POLICY and KMP_BLOCKTIME, or measure this row alone",
        )
