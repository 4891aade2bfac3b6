"""Average precision from the true positives alone, against the definition on the whole list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import detection
from benchmarks.accuracy.detection import average_precision, rank
from benchmarks.accuracy.records import ImageRecord
from tests.benchmarks.accuracy.simulated import record_of, scene


def plain_figures(records: Sequence[ImageRecord], number: int) -> dict[str, Any]:
    """Upstream's definitions, all predictions in one list."""
    mine = [record.classes == number for record in records]
    scores = np.concatenate([record.scores[rows] for record, rows in zip(records, mine, strict=True)])
    hits = np.concatenate([record.hits[rows] for record, rows in zip(records, mine, strict=True)])
    labels = sum(int((record.labels == number).sum()) for record in records)
    order = np.argsort(-scores, kind="stable")
    ap = []
    for threshold in range(10):
        true = np.cumsum(hits[order] > threshold)
        recall, precision = true / (labels + 1e-16), true / np.arange(1, len(true) + 1)
        envelope = np.concatenate([[1.0], precision, [0.0]])
        envelope = np.flip(np.maximum.accumulate(np.flip(envelope)))
        at = np.linspace(0, 1, 101)
        heights = np.interp(at, np.concatenate([[0.0], recall, [1.0]]), envelope)
        ap.append(float(((heights[1:] + heights[:-1]) / 2 * np.diff(at)).sum()) if len(true) and labels else 0.0)
    # precision and recall on upstream's grid of 1000 confidences, at the largest recall
    grid = np.linspace(0, 1, 1000)
    if not len(scores) or not labels:
        return {"ap": ap, "P": 0.0, "R": 0.0}
    true = np.cumsum(hits[order] > 0)
    recall = np.interp(-grid, -scores[order], true / (labels + 1e-16), left=0)
    precision = np.interp(-grid, -scores[order], true / np.arange(1, len(true) + 1), left=1)
    return {"ap": ap, "P": precision[recall.argmax()], "R": recall[recall.argmax()]}


def record(name: str, labels: int, scores: Sequence[float], hits: Sequence[int]) -> ImageRecord:
    return ImageRecord(
        name,
        labels=np.zeros(labels, np.uint8),
        scores=np.array(scores, np.float32),
        classes=np.zeros(len(scores), np.uint8),
        hits=np.array(hits, np.uint8),
    )


def figures_of(records: Sequence[ImageRecord], number: int = 0) -> Any:
    return average_precision(rank(records, number), np.ones((1, len(records)), np.int64))


def assert_plain(records: Sequence[ImageRecord], number: int = 0) -> None:
    got, want = figures_of(records, number), plain_figures(records, number)
    assert got.ap[0] == pytest.approx(want["ap"], rel=1e-12, abs=1e-15)
    assert got.precision[0] == pytest.approx(want["P"] if got.found[0] else 0, rel=1e-12)
    assert got.recall[0] == pytest.approx(want["R"], rel=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_random_sets_equal_the_definition(seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    records = [record_of(f"{i:03}", scene(random, classes=3, ties=ties), classes=3) for i in range(30)]
    for number in range(3):
        assert_plain(records, number)


@pytest.mark.parametrize(
    "records",
    [
        [record("a", 3, [0.9, 0.8, 0.7], [1, 0, 10])],
        [record("a", 2, [0.9, 0.8], [10, 10])],  # full recall: no slope at the end
        [record("a", 2, [0.9, 0.8, 0.7], [0, 0, 0])],
        [record("a", 2, [], [])],
        [record("a", 0, [0.9], [0])],
        [record("a", 4, [0.9, 0.8], [0, 5])],  # starts with a miss
        [record("a", 100, [0.9] * 50 + [0.5] * 50, [10] * 50 + [0] * 50)],  # recalls on the grid itself
        [record("a", 10, [0.9], [6]), record("b", 0, [0.95, 0.1], [0, 0])],
    ],
)
def test_edges_equal_the_definition(records: list[ImageRecord]) -> None:
    assert_plain(records)


def test_area_by_hand() -> None:
    # one of two labels found by the first of two predictions: precision 1 up to recall 0.5, from there the
    # straight line from 1/2 to 0 at recall 1; the grid has one trapezoid across the step at 0.5
    got = figures_of([record("a", 2, [0.9, 0.8], [10, 0])])
    want = 0.49 + 0.01 * (1 + 0.5) / 2 + 0.5 * 0.5 / 2
    assert got.ap[0, 9] == pytest.approx(want, abs=1e-12)
    assert (got.precision[0], got.recall[0]) == (0.5, 0.5)
    assert got.f1[0] == pytest.approx(0.5)


def test_equal_scores_are_ranked_by_image_then_by_place() -> None:
    first, second = record("a", 1, [0.5, 0.5], [0, 10]), record("b", 1, [0.5], [10])
    ranking = rank([first, second], 0)
    assert ranking.images.tolist() == [0, 1]
    assert ranking.misses_before(np.ones((1, 2), np.int64)).tolist() == [[1, 1]]
    swapped = rank([second, first], 0)
    assert swapped.images.tolist() == [0, 1]
    assert swapped.misses_before(np.ones((1, 2), np.int64)).tolist() == [[0, 1]]


@pytest.mark.parametrize("ties", [False, True])
def test_weights_equal_copies_side_by_side(ties: bool) -> None:
    random = np.random.default_rng(5)
    records = [record_of(f"{i:03}", scene(random, classes=2, ties=ties), classes=2) for i in range(25)]
    weights = np.stack([np.bincount(random.integers(0, 25, 25), minlength=25) for _ in range(6)])
    for number in range(2):
        got = average_precision(rank(records, number), weights)
        for row, weight in enumerate(weights):
            # copies of one image compete at equal scores: a list in which each prediction is repeated in place
            copies = [repeated(item, int(times)) for item, times in zip(records, weight, strict=True)]
            want = figures_of(copies, number)
            assert got.ap[row].tolist() == want.ap[0].tolist()
            assert got.labels[row] == want.labels[0]
            assert got.precision[row] == want.precision[0]
            assert got.recall[row] == want.recall[0]


def repeated(item: ImageRecord, times: int) -> ImageRecord:
    return ImageRecord(
        item.name,
        labels=item.labels.repeat(times),
        scores=item.scores.repeat(times),
        classes=item.classes.repeat(times),
        hits=item.hits.repeat(times),
    )


def test_blocks_of_sets_change_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(6)
    records = [record_of(f"{i:03}", scene(random)) for i in range(20)]
    weights = random.integers(0, 3, (9, 20))
    whole = average_precision(rank(records, 0), weights)
    monkeypatch.setattr(detection, "BLOCK", 1)
    pieces = average_precision(rank(records, 0), weights)
    assert np.array_equal(whole.ap, pieces.ap)
    assert np.array_equal(whole.found, pieces.found)


def test_a_set_without_images_is_zero() -> None:
    records = [record("a", 2, [0.9], [10]), record("b", 2, [0.9], [10])]
    got = average_precision(rank(records, 0), np.array([[0, 0], [1, 1]]))
    assert got.ap[0].tolist() == [0] * 10
    assert (got.labels[0], got.precision[0], got.recall[0], got.f1[0]) == (0, 0, 0, 0)
    assert got.ap[1, 0] > 0
