"""The orchestration, with runtimes of our own in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import hybridnets.bundle
from benchmarks import latency, worker
from benchmarks.config import EXTENSION, BenchConfig
from benchmarks.latency import Progress, run_bench
from benchmarks.power import meter
from benchmarks.power.config import PowerConfig
from benchmarks.power.reading import Reading, Unreadable
from benchmarks.power.registry import Opened
from benchmarks.report import Report
from benchmarks.sampling import KINDS, STAGES
from runtimes import registry
from runtimes.base import Runtime
from runtimes.registry import RuntimeEntry
from tests import boards
from tests.benchmarks.fakes import (
    SHA256,
    Broken,
    Fallback,
    Greedy,
    LocalWorker,
    Slow,
    Steady,
    Timed,
    config,
    fake_bundle,
    measured,
    rows_of,
)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put runtimes into the registry and the fake bundle behind every path."""
    threads = cv2.getNumThreads()
    monkeypatch.setattr(hybridnets.bundle, "open_bundle", lambda path, verify=True: fake_bundle())
    monkeypatch.setattr(worker, "wait_idle", lambda: True)
    # microseconds are never steady: the number of rounds would be a matter of luck
    monkeypatch.setattr(latency, "EXTENSION", 1)

    def put(*classes: type[Runtime], precisions: tuple[str, ...] = ("fp32",)) -> None:
        monkeypatch.setattr(registry, "REGISTRY", rows_of(*classes, precisions=precisions))

    yield put
    cv2.setNumThreads(threads)


def test_a_report_holds_everything(use: Callable[..., None]) -> None:
    use(Steady)
    steps: list[Progress] = []
    report = run_bench(config(), steps.append, start=LocalWorker)
    json.dumps(report.to_json(), allow_nan=False)
    row = measured(report, "steady:fp32")
    assert row["executed"] == "fp32"
    assert row["execution"] == {"device": "CPU", "threads": 1, "library": "steady 1", "details": {"answer": 42}}
    assert row["forward_ms"].keys() >= {"count", "min", "mean", "std", "p50", "p90", "p95", "p99", "max"}
    assert list(row["stages_ms"]) == ["decode", "preprocess", "network", "postprocess"]
    assert row["load_ms"] > 0
    assert row["memory_mb"].keys() == {"before_load", "after_load", "peak"}
    assert len(row["samples_ms"]["forward"]) == 3
    assert sum(map(len, row["samples_ms"]["forward"])) == row["forward_ms"]["count"] >= 6
    assert len(row["samples_ms"]["warmup"]) >= 10
    assert row["ratio"] == {"baseline": "steady:fp32", "forward": 1.0, "end_to_end": 1.0}
    assert report.settings["threads"] == 1
    assert len(report.settings["input_sha256"]) == 64
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].total == 1 + 3
    assert list(dict.fromkeys(step.phase for step in steps)) == ["loading", "measuring"]


def test_stages_add_up_to_the_whole(use: Callable[..., None]) -> None:
    use(Steady)
    samples = measured(run_bench(config(), start=LocalWorker), "steady:fp32")["samples_ms"]
    for index, whole in enumerate(samples["end_to_end"]):
        parts = [samples[stage][index] for stage in STAGES]
        assert np.allclose(np.sum(parts, axis=0), whole, rtol=0, atol=1e-9)


def test_rows_take_turns_and_the_order_alternates(use: Callable[..., None]) -> None:
    use(Steady, Fallback)
    log: list[tuple[str, str]] = []
    run_bench(config(), start=lambda: LocalWorker(log))
    a, b = "steady:fp32", "fallback:fp32"
    turns = [(name, kind) for name, kind in log if kind in KINDS]
    pair = [("forward"), ("end_to_end")]
    expected = [(name, kind) for name in (a, b, b, a, a, b) for kind in pair]
    assert turns == expected
    loads = [(name, kind) for name, kind in log if kind in ("open", "warm_up")]
    assert loads == [(a, "open"), (a, "warm_up"), (b, "open"), (b, "warm_up")]


def test_rows_that_cannot_run_stay_with_their_reason(use: Callable[..., None]) -> None:
    use(Steady, Fallback, Greedy, precisions=("fp32", "bf16", "fp16"))
    workers: list[LocalWorker] = []

    def start() -> LocalWorker:
        workers.append(LocalWorker())
        return workers[-1]

    report = run_bench(config(runtimes="steady,fallback:bf16,greedy:fp32"), start=start)
    assert [f"{row['runtime']}:{row['precision']}" for row in report.rows] == [
        "steady:fp32",
        "steady:bf16",
        "steady:fp16",
        "fallback:bf16",
        "greedy:fp32",
    ]
    assert measured(report, "steady:fp16")["skipped"] == {
        "reason": "this CPU has no native fp16",
        "fix": "use one of: fp32, bf16",
    }
    assert "would run fp32" in measured(report, "fallback:bf16")["skipped"]["reason"]
    assert "Not enough memory" in measured(report, "greedy:fp32")["skipped"]["reason"]
    for row in report.skipped:
        assert row.keys() == {"runtime", "precision", "valid", "skipped"}
        assert row["valid"] is False
    assert len(report.measured) == 2
    assert all(child.closed for child in workers)


def test_a_missing_library_is_a_skipped_row(use: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    use(Steady)
    row = RuntimeEntry("absent", "no_such_module_at_all", "Absent", "absent", ("absent",), ("fp32",))
    monkeypatch.setattr(registry, "REGISTRY", (*registry.REGISTRY, row))
    skipped = measured(run_bench(config(), start=LocalWorker), "absent:fp32")["skipped"]
    assert "could not be imported" in skipped["reason"]
    assert "pip install" in skipped["fix"]


def test_outputs_that_are_not_finite_make_a_row_invalid(use: Callable[..., None]) -> None:
    use(Broken)
    row = measured(run_bench(config(), start=LocalWorker), "broken:fp32")
    assert not row["valid"]
    assert any("NaN" in reason for reason in row["reasons"])


def test_another_input_tensor_is_not_measured(use: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    use(Steady)
    monkeypatch.setattr(latency, "tensor_sha256", lambda tensor: "0" * 64)
    assert "another input tensor" in run_bench(config(), start=LocalWorker).rows[0]["skipped"]["reason"]


def test_several_streams(use: Callable[..., None]) -> None:
    use(Steady)
    report = run_bench(config(scenario="multi", streams=3), start=LocalWorker)
    row = measured(report, "steady:fp32")
    assert row["frames_per_second"]["end_to_end"] > 0
    assert report.settings["streams"] == 3


# -- power ---------------------------------------------------------------------------------------------------


class Supply:
    """10 W, always; it may fail from a reading on."""

    name, unit, interval_s, total, details = "supply", "W", 0.001, ("all",), {"volts": 5}

    def __init__(self, readings: int = 1_000_000) -> None:
        self.left, self.closed = readings, False

    def read(self) -> Reading:
        self.left -= 1
        if self.left < 0:
            raise Unreadable("the supply is gone")
        return Reading(time.monotonic_ns(), {"all": 10.0}, throttled=("the supply is weak",))

    def close(self) -> None:
        self.closed = True


def with_power(monkeypatch: pytest.MonkeyPatch, supply: Supply) -> Report:
    monkeypatch.setattr(meter, "open_sources", lambda text, tree: Opened([supply], {}, {}))
    power = PowerConfig("auto", idle_s=0.02, root=Path("/nowhere"))
    return run_bench(config(duration_s=0.2, iterations=20, power=power), start=LocalWorker)


def test_power_is_that_of_a_rows_own_turns(use: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    use(Slow)
    supply = Supply()
    report = with_power(monkeypatch, supply)
    row = measured(report, "slow:fp32")
    for kind in KINDS:
        drawn = row["power"][kind]
        turns = drawn["turns_ns"]
        assert len(turns) == row["rounds"]
        assert drawn["frames"] == sum(frames for _, _, frames in turns) == row[f"{kind}_ms"]["count"]
        seconds = sum(end - start for start, end, _ in turns) / 1e9
        assert drawn["joules"] == pytest.approx(10.0 * seconds, rel=1e-6)
        assert drawn["joules_per_frame"] == pytest.approx(10.0 * seconds / drawn["frames"], rel=1e-3, abs=1e-6)
        assert drawn["joules_per_frame_above_idle"] == 0.0
    # turns follow each other: forward-only before end-to-end, round after round
    ends = [moment for pair in zip(*(row["power"][kind]["turns_ns"] for kind in KINDS), strict=True) for turn in pair
            for moment in turn[:2]]  # fmt: skip
    assert ends == sorted(ends)
    assert any("the supply is weak" in reason for reason in row["reasons"])
    assert report.power["idle"]["watts"] == 10.0
    assert supply.closed
    json.dumps(report.to_json(), allow_nan=False)


def test_a_supply_that_vanishes_costs_the_figure_and_not_the_row(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Slow)
    row = measured(with_power(monkeypatch, Supply(readings=5)), "slow:fp32")
    assert row["power"]["forward"] == {"missing": "supply: the supply is gone"}
    assert row["forward_ms"]["count"] >= 20


def test_without_power_a_report_says_nothing_of_it(use: Callable[..., None]) -> None:
    use(Steady)
    report = run_bench(config(), start=LocalWorker)
    assert "power" not in report.to_json()
    assert "power" not in report.rows[0]


def test_each_round_waits_for_a_cool_board(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(Steady)
    boards.orin_nano(tmp_path)
    power = PowerConfig("off", cool_down_c=60.0, root=tmp_path)
    report = run_bench(config(power=power), start=LocalWorker)
    assert [step["reached"] for step in report.power["cool_down"]["rounds"]] == [True] * 3


# -- time limits and further rounds, without any time passing -------------------------------------------------


@pytest.fixture
def timed(use: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Report, list[Timed]]]:
    """Run with the seconds of each inference given by runtime; the report and the workers."""
    monkeypatch.setattr(latency, "EXTENSION", EXTENSION)
    monkeypatch.setattr(latency, "tensor_sha256", lambda tensor: SHA256)

    def run(durations: dict[str, list[float]], log: list[str] | None = None, **changes: Any) -> Any:
        use(*(cls for cls in (Steady, Fallback) if cls.name in durations))
        workers: list[Timed] = []

        def start() -> Timed:
            workers.append(Timed(durations, log))
            return workers[-1]

        return run_bench(BenchConfig(fake_bundle(), threads=1, **changes), start=start), workers

    return run


def test_a_row_of_three_seconds_an_inference_ends(timed: Callable[..., tuple[Report, list[Timed]]]) -> None:
    report, workers = timed({"steady": [3.0]})
    row = measured(report, "steady:fp32")
    assert workers[0].seconds <= 180 + 12  # the last slice may be finished
    assert row["hit_time_limit"] is True
    assert row["forward_ms"]["count"] >= 10
    assert row["forward_ms"]["p50"] == 3000.0
    assert row["rounds"] <= 10


FAST = {"preset": "fast", "duration_s": 0.1}


def test_a_fixed_median_needs_no_further_round(timed: Callable[..., tuple[Report, list[Timed]]]) -> None:
    row = measured(timed({"steady": [0.1]}, **FAST)[0], "steady:fp32")
    assert (row["rounds"], row["forward_ms"]["count"], row["valid"]) == (4, 20, True)


def test_rows_go_on_in_turns_until_the_median_is_fixed(timed: Callable[..., tuple[Report, list[Timed]]]) -> None:
    # a third of the samples is slow: 20 do not fix the median, about 35 do
    order: list[str] = []
    report, _ = timed({"steady": [0.1, 0.1, 0.13], "fallback": [0.1]}, order, **FAST)
    row, other = measured(report, "steady:fp32"), measured(report, "fallback:fp32")
    assert 4 < row["rounds"] < 12
    assert not any("fix the median" in reason for reason in row["reasons"])
    assert other["rounds"] == row["rounds"]
    pairs = [order[index : index + 2] for index in range(0, len(order), 2)]
    assert pairs == [["steady", "fallback"], ["fallback", "steady"]] * (len(pairs) // 2) + pairs[-1:] * (len(pairs) % 2)


def test_going_on_ends_at_three_times_the_iterations(timed: Callable[..., tuple[Report, list[Timed]]]) -> None:
    row = measured(timed({"steady": [0.1, 0.2]}, max_time_s=100.0, **FAST)[0], "steady:fp32")
    assert (row["rounds"], row["forward_ms"]["count"]) == (12, 60)
    assert row["hit_time_limit"] is False
    assert any("fix the median" in reason for reason in row["reasons"])


def test_going_on_ends_at_the_time_limit(timed: Callable[..., tuple[Report, list[Timed]]]) -> None:
    report, workers = timed({"steady": [0.1, 0.2]}, max_time_s=14.0, **FAST)
    row = measured(report, "steady:fp32")
    assert 4 < row["rounds"] < 12
    assert workers[0].seconds <= 14.0 + 1.0  # what is discarded before the last slice is an estimate


def test_rows_below_their_minima_do_not_go_on(timed: Callable[..., tuple[Report, list[Timed]]]) -> None:
    row = measured(timed({"steady": [2.0, 4.0]}, preset="fast")[0], "steady:fp32")
    assert row["rounds"] <= 4
    assert row["hit_time_limit"] is True


# -- memory --------------------------------------------------------------------------------------------------


def test_a_row_that_does_not_fit_is_skipped_unloaded(use: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    use(Steady, Fallback)
    free = iter([10_000.0, 100.0])
    monkeypatch.setattr(latency, "available_memory_mb", lambda: next(free))
    log: list[tuple[str, str]] = []
    report = run_bench(config(), start=lambda: LocalWorker(log))
    assert [row["runtime"] for row in report.measured] == ["steady"]
    skipped = measured(report, "fallback:fp32")["skipped"]
    assert "MB of memory, 100 MB are left" in skipped["reason"]
    assert "--runtime fallback:fp32" in skipped["fix"]
    assert ("fallback:fp32", "open") not in log
