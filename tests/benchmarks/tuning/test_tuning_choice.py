"""Which setting is taken, by numbers made up for it."""

from __future__ import annotations

import pytest

from benchmarks.tuning.choice import choose, int8_remark, over_budget
from benchmarks.tuning.settings import Setting, stream_settings, thread_settings
from benchmarks.tuning.timing import Timed, ratio

FP32, BF16, INT8 = (Setting(name, 4) for name in ("fp32", "bf16", "int8"))


def timed(*rounds: float) -> Timed:
    return Timed(rounds, sorted(rounds)[len(rounds) // 2], "?")


def test_quartiles_of_the_rounds_ratios() -> None:
    # a round in which the machine was slow slows both, and cancels
    low, middle, high = ratio(timed(5, 6, 50, 4, 5), timed(10, 10, 100, 10, 10))
    assert (low, middle, high) == (0.5, 0.5, 0.5)


def test_the_fastest_allowed() -> None:
    found = {FP32: timed(*[10] * 5), BF16: timed(*[6] * 5), INT8: timed(*[4] * 5)}
    assert choose(found, [FP32, BF16, INT8]) == INT8
    assert choose(found, [FP32, BF16]) == BF16
    assert choose(found, [FP32]) == FP32


def test_what_cannot_be_told_apart_is_decided_by_care() -> None:
    found = {FP32: timed(*[10] * 5), BF16: timed(6, 6, 6, 6, 6), INT8: timed(5, 6.5, 5, 5, 6.5)}
    assert choose(found, list(found)) == BF16
    # fewer threads where they are as fast: other programs can have the rest
    half = Setting("bf16", 2)
    assert choose({BF16: timed(6, 6, 6), half: timed(6, 6, 6)}, [BF16, half]) == half
    assert choose({BF16: timed(6, 6, 6), half: timed(7, 7, 7)}, [BF16, half]) == BF16


def test_the_bundles_own_graph_where_another_is_as_fast() -> None:
    other = Setting("bf16", 2, rewrites="none")
    assert str(other) == "bf16, 2 threads, rewrites: none"
    assert choose({BF16: timed(6, 6, 6), other: timed(6, 6, 6)}, [other, BF16]) == BF16
    assert choose({BF16: timed(6, 6, 6), other: timed(5, 5, 5)}, [BF16, other]) == other


@pytest.mark.parametrize(
    ("lost", "text"),
    [({}, ""), ({"mAP50": 0.5, "lane IoU": -1.0}, ""), ({"mAP50": 0.2, "lane IoU": 0.51}, "lane IoU loses 0.51")],
)
def test_the_budget(lost: dict[str, float], text: str) -> None:
    found = over_budget(lost, 0.5)
    assert text in found
    assert bool(found) == bool(text)


@pytest.mark.parametrize(
    ("int8", "text"),
    [((4.0, 4.0, 4.1), ""), ((5.5, 6.5, 5.8), "not resolved from bf16"), ((7.0, 7.1, 7.0), "not faster than bf16")],
)
def test_int8_where_it_is_not_worth_it(int8: tuple[float, ...], text: str) -> None:
    remark = int8_remark({"fp32": timed(10, 10, 10), "bf16": timed(6, 6, 6), "int8": timed(*int8)}, "openvino")
    assert text in remark
    assert bool(remark) == bool(text)
    if text:
        assert "openvino" in remark


def test_no_remark_without_int8() -> None:
    assert int8_remark({"fp32": timed(1, 1, 1)}, "openvino") == ""


def test_threads_are_halved_and_streams_doubled() -> None:
    assert [setting.threads for setting in thread_settings(Setting("bf16", 12))] == [6, 3, 1]
    assert thread_settings(Setting("bf16", 1)) == []
    assert [setting.streams for setting in stream_settings(Setting("bf16", 8))] == [2, 4, 8]
    assert stream_settings(Setting("bf16", 1)) == []
