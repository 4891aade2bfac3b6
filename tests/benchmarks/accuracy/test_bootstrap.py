"""Intervals: what they are made of, that drops are paired, and that they hold the truth as often as they claim."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy.bootstrap import draw_weights, intervals
from benchmarks.accuracy.metrics import Accumulator
from benchmarks.accuracy.protocols import Heads
from benchmarks.accuracy.records import ImageRecord
from tests.benchmarks.accuracy.simulated import pixels, record_of, scene

HEADS = Heads(("car",), ("road", "lane"))
FIGURES = {
    *("P", "R", "F1", "mAP50", "mAP50-95", "mIoU", "mAcc"),
    *(f"{name} {key}" for name in ("road", "lane") for key in ("mIoU", "IoU", "Acc")),
}


def row(count: int, seed: int, *, noise: float = 0.1, good: float = 0.9, offset: int = 0) -> list[ImageRecord]:
    """Images whose labels and difficulty depend on their number alone, predictions on the row."""
    records = []
    for index in range(offset, offset + count):
        easy = np.random.default_rng(index)
        hard = easy.uniform(0.5, 1.5)
        made = scene(np.random.default_rng([index, seed]), labels=6, predictions=20, noise=noise * hard)
        seg = pixels(np.random.default_rng([index, seed]), 3, good=good / hard**0.1)
        records.append(record_of(f"{index:05}", made, seg=seg))
    return records


def collected(records: list[ImageRecord], heads: Heads = HEADS) -> Accumulator:
    accumulator = Accumulator(heads)
    for record in records:
        accumulator.add(record)
    return accumulator


def test_unit_weights_give_the_plain_figures_exactly() -> None:
    accumulator = collected(row(40, 0))
    weights = np.ones((3, 40), np.int64)
    weights[1] = draw_weights(40, 1, 5)
    figures = accumulator.weighted().figures(weights)
    plain = accumulator.metrics(coco=False).to_json()
    flat = {key: plain[key] for key in FIGURES if key in plain}
    flat |= {f"{name} {key}": value for name, part in plain["seg"].items() for key, value in part.items()}
    assert flat.keys() == figures.keys() == FIGURES
    for key, values in figures.items():
        assert values[0] == values[2] == flat[key]
        assert np.isfinite(values).all()


def test_draws_are_with_replacement_and_repeatable() -> None:
    weights = draw_weights(50, 30, 1)
    assert weights.shape == (30, 50)
    assert weights.sum(axis=1).tolist() == [50] * 30
    assert weights.max() > 1
    assert (weights == 0).any()
    assert np.array_equal(weights, draw_weights(50, 30, 1))
    assert not np.array_equal(weights, draw_weights(50, 30, 2))


def test_intervals_are_quantiles_of_the_draws() -> None:
    accumulator = collected(row(30, 0))
    got = intervals({"a": accumulator}, None, draws=50, seed=3, level=0.8)
    values = accumulator.weighted().figures(draw_weights(30, 50, 3))
    assert got.rows["a"].keys() == FIGURES
    for key, drawn in values.items():
        assert got.rows["a"][key] == pytest.approx(tuple(np.quantile(drawn, [0.1, 0.9])))
        assert got.rows["a"][key][0] < got.rows["a"][key][1]
    assert got.drops == {}


def test_more_images_give_narrower_intervals() -> None:
    few, many = (intervals({"a": collected(row(count, 0))}, None).rows["a"]["mAP50"] for count in (25, 400))
    assert 2.5 < (few[1] - few[0]) / (many[1] - many[0]) < 6.5  # 4 in theory


def test_drops_of_equal_rows_are_exactly_zero() -> None:
    got = intervals({"a": collected(row(30, 0)), "b": collected(row(30, 0)[::-1])}, "a", draws=40)
    assert set(got.drops) == {"b"}
    assert got.drops["b"] == dict.fromkeys(FIGURES, (0.0, 0.0))


def test_pairing_makes_drops_narrower_and_keeps_their_sign() -> None:
    good, bad = collected(row(120, 0)), collected(row(120, 0, good=0.8))
    got = intervals({"good": good, "bad": bad}, "good")
    low, high = got.drops["bad"]["road IoU"]
    assert 0.05 < low < high
    widths = [np.diff(got.rows[name]["road IoU"])[0] for name in ("good", "bad")]
    assert high - low < 0.7 * np.hypot(*widths)
    assert got.drops["bad"]["mAP50"] == (0.0, 0.0)


def test_an_incomplete_row_gets_the_same_draws() -> None:
    records = row(30, 0)
    got = intervals({"a": collected(records), "b": collected(records[:-2])}, "a", draws=40)
    alone = collected(records[:-2]).weighted().figures(draw_weights(30, 40, 0)[:, :-2])["mAP50"]
    assert got.rows["b"]["mAP50"] == pytest.approx(tuple(np.quantile(alone, [0.025, 0.975])))
    assert intervals({"a": collected(records[:1]), "b": collected(records[1:2])}, "a", draws=20).drops["b"]


def test_rows_without_a_head_and_empty_ones() -> None:
    bare = collected([ImageRecord(record.name, seg=record.seg) for record in row(20, 0)], Heads((), ("road", "lane")))
    got = intervals({"a": collected(row(20, 0)), "b": bare, "c": Accumulator(HEADS)}, "a", draws=20)
    assert got.rows["b"].keys() == {key for key in FIGURES if "IoU" in key or "Acc" in key}
    assert got.drops["b"].keys() == got.rows["b"].keys()
    assert set(got.rows) == {"a", "b"}
    assert intervals({"c": Accumulator(HEADS)}, "c").rows == {}
    assert intervals({"a": collected(row(5, 0))}, None, draws=0).rows == {}
    assert intervals({"a": bare, "b": bare}, "missing", draws=5).drops == {}
    assert set(got.to_json()) == {"rows", "drops"}


def test_intervals_cover_the_truth_as_often_as_they_claim() -> None:
    # 100 data sets of 100 images out of 1000; the 95 % interval of each should hold the value of all 1000
    full, worse = row(1000, 0), row(1000, 1, noise=0.13, good=0.87)
    truth = [collected(records).metrics(coco=False).to_json() for records in (full, worse)]
    keys = ("mAP50", "mAP50-95", "R", "P", "F1", "mIoU", "mAcc")
    covered = dict.fromkeys([*keys, *(f"drop of {key}" for key in keys)], 0)
    random = np.random.default_rng(7)
    for seed in range(100):
        chosen = random.choice(1000, 100, replace=False)
        rows = {name: collected([part[index] for index in chosen]) for name, part in (("a", full), ("b", worse))}
        got = intervals(rows, "a", draws=100, seed=seed)
        for key in keys:
            low, high = got.rows["a"][key]
            covered[key] += low <= truth[0][key] <= high
            low, high = got.drops["b"][key]
            covered[f"drop of {key}"] += low <= truth[0][key] - truth[1][key] <= high
    assert min(covered.values()) >= 90, covered
    # and they are not merely wide: one that always holds it claims too little
    assert sum(covered.values()) < 100 * len(covered)
