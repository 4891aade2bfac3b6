"""Curves against the plain definitions of their figures, and the files made of them."""

from __future__ import annotations

import csv
import errno
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.accuracy import curves
from benchmarks.accuracy.curves import CONFIDENCES, class_curves, write_curves
from benchmarks.accuracy.metrics import Accumulator
from benchmarks.accuracy.protocols import Heads
from benchmarks.accuracy.records import ImageRecord
from hybridnets.errors import HnxError


def record(
    name: str, labels: Sequence[int], scores: Sequence[float], hits: Sequence[int], classes: Sequence[int] | None = None
) -> ImageRecord:
    """A record with the parts that the curves read."""
    return ImageRecord(
        name=name,
        labels=np.array(labels, np.uint8),
        scores=np.array(scores, np.float32),
        classes=np.array(classes if classes is not None else [0] * len(scores), np.uint8),
        hits=np.array(hits, np.uint8),
    )


def drawn_lots(seed: int, images: int = 40, classes: int = 2) -> list[ImageRecord]:
    """Random records; a fifth of the labels is never found."""
    random = np.random.default_rng(seed)
    records = []
    for number in range(images):
        labels = random.integers(0, classes, random.integers(0, 6))
        seen = labels[random.random(len(labels)) < 0.8]
        extra = random.integers(0, classes, random.integers(0, 8))
        # a few distinct values: many equal scores
        scores = np.round(np.concatenate([random.beta(5, 2, len(seen)), random.beta(2, 4, len(extra))]), 2)
        hits = np.concatenate([random.integers(1, 11, len(seen)), np.zeros(len(extra), int)])
        order = np.argsort(-scores, kind="stable")
        kinds = np.concatenate([seen, extra])
        records.append(record(f"{number:03}", labels, scores[order], hits[order], kinds[order]))
    return records


def test_area_by_hand() -> None:
    # hit, miss, hit of three labels: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3; then a miss: 2/4
    curve = class_curves([record("a", [0, 0, 0], [0.9, 0.8, 0.7, 0.6], [1, 0, 10, 0])], 0)[0.5]
    assert (curve.labels, curve.predictions, curve.ranks.tolist()) == (3, 4, [1, 3])
    envelope = curve.envelope
    assert envelope[[0, 20, 33]] == pytest.approx(1.0)
    # between the recalls 1/3 and 2/3 the envelope stays at 2/3, beyond them it falls from 2/4 to 0 at recall 1
    assert envelope[[40, 60, 66]] == pytest.approx(2 / 3)
    assert envelope[80] == pytest.approx(1 / 2 * (1 - 0.8) / (1 / 3))
    assert envelope[100] == 0
    exact = 1 / 3 * 1 + 1 / 3 * 2 / 3 + 1 / 3 * 1 / 2 / 2
    assert curve.area == pytest.approx(exact, abs=0.005)


def test_a_higher_threshold_counts_fewer_hits() -> None:
    curves_of = class_curves([record("a", [0, 0], [0.9, 0.8], [5, 6])], 0)
    assert {iou: curve.ranks.tolist() for iou, curve in curves_of.items()} == {0.5: [1, 2], 0.75: [2]}


@pytest.mark.parametrize("seed", range(6))
def test_the_area_is_the_ap_of_the_report(seed: int) -> None:
    accumulator = Accumulator(Heads(classes=("car", "truck")))
    for seen in drawn_lots(seed):
        accumulator.add(seen)
    figures = accumulator.metrics(coco=False).classes
    for number, name in enumerate(("car", "truck")):
        found = class_curves(list(accumulator), number)
        expected = figures[name].ap
        assert expected is not None
        assert (found[0.5].area, found[0.75].area) == pytest.approx((expected[0], expected[5]), rel=1e-12)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_values_at_a_confidence_equal_plain_counting(number: int, iou: float) -> None:
    records = drawn_lots(1)
    values = class_curves(records, number)[iou].at_confidences()
    least = {0.5: 1, 0.75: 6}[iou]
    for place in range(0, len(CONFIDENCES), 7):
        confidence = np.float32(CONFIDENCES[place])
        true = false = labels = 0
        for seen in records:
            labels += int((seen.labels == number).sum())
            for score, kind, hits in zip(seen.scores, seen.classes, seen.hits, strict=True):
                if kind == number and score > confidence:
                    true, false = true + (hits >= least), false + (hits < least)
        expected = (
            true / (true + false) if true + false else np.nan,
            true / labels,
            2 * true / (true + false + labels),
        )
        assert [part[place] for part in values] == pytest.approx(expected, nan_ok=True)


def test_scores_on_a_grid_point_are_not_above_it() -> None:
    curve = class_curves([record("a", [0, 0], [1.0, 0.25, 0.0], [1, 1, 0])], 0)[0.5]
    precision, recall, _ = curve.at_confidences()
    assert curve.above[[0, 49, 50, 199, 200]].tolist() == [2, 2, 1, 1, 0]
    assert recall[[0, 49, 50, 200]].tolist() == [1.0, 1.0, 0.5, 0.0]
    assert np.isnan(precision[200])


def test_the_order_of_the_records_changes_no_byte(tmp_path: Path) -> None:
    records = drawn_lots(2)
    for folder, rows in (("a", records), ("b", records[::-1])):
        write_curves(tmp_path / folder, {"row": rows}, ("car", "truck"))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_empty_cases_have_no_values() -> None:
    nothing = class_curves([], 0)[0.5]
    assert (nothing.labels, nothing.predictions, nothing.area) == (0, 0, 0.0)
    assert all(np.isnan(values).all() for values in nothing.at_confidences())
    unlabelled = class_curves([record("a", [], [0.9], [0])], 0)[0.5]
    precision, recall, f1 = unlabelled.at_confidences()
    assert precision[0] == f1[0] == 0
    assert np.isnan([precision[-1], *recall, f1[-1]]).all()
    silent = class_curves([record("a", [0], [], [])], 0)[0.5]
    assert silent.area == 0
    assert (silent.at_confidences()[1] == 0).all()


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_files_hold_every_row_and_class(tmp_path: Path) -> None:
    rows = {"torch:fp32": drawn_lots(3), "openvino:int8": drawn_lots(4)}
    files = write_curves(tmp_path, rows, ("car", "truck"), conf=0.25)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "confidence_car.csv",
        "confidence_truck.csv",
        "curve_car.png",
        "curve_truck.png",
        "precision_recall_car.csv",
        "precision_recall_truck.csv",
    ]
    assert (len(files.pictures), len(files.tables), files.note) == (2, 4, "")
    table = read(tmp_path / "precision_recall_truck.csv")
    assert len(table) == 2 * 2 * 101
    mine = [line for line in table if line["row"] == "openvino:int8" and line["iou"] == "0.75"]
    expected = class_curves(rows["openvino:int8"], 1)[0.75]
    assert [float(line["precision"]) for line in mine] == pytest.approx(expected.envelope, abs=1e-5)
    against = read(tmp_path / "confidence_car.csv")
    assert {line["row"] for line in against} == set(rows)
    assert min(float(line["confidence"]) for line in against) == 0.25  # the deploy protocol keeps none below


def test_pictures_show_the_curves(tmp_path: Path) -> None:
    good = [record("a", [0] * 4, [0.9, 0.8, 0.7, 0.6], [10] * 4)]
    poor = [record("a", [0] * 4, [0.9, 0.8, 0.7, 0.6], [1, 0, 0, 0])]
    write_curves(tmp_path, {"good": good, "poor": poor}, ("car",))
    picture = cv2.imread(str(tmp_path / "curve_car.png"))
    height, width = picture.shape[:2]
    assert (width, height > 900) == (1210, True)

    def pixels(colour: tuple[int, int, int], area: np.ndarray) -> int:
        return int((np.abs(area.astype(int) - colour).max(axis=2) < 8).sum())

    upper_left = picture[: height // 3, : width // 2]
    assert pixels((0xB2, 0x72, 0x00), upper_left) > 500  # the perfect row runs along the top
    for area in (picture[: height // 2, : width // 2], picture[height // 2 :, width // 2 :]):
        assert pixels((0x00, 0x5E, 0xD5), area) > 50


@pytest.mark.parametrize("count", [0, 1, 12])
def test_any_number_of_rows_with_any_name_can_be_drawn(tmp_path: Path, count: int) -> None:
    names = ["_hidden", "$x_{$", "日本", "a\nb", "\x1b[2J", "\udcff", "x" * 300, "$\\frac{1}{$", "", "b", "c", "d"]
    rows = {name: drawn_lots(5, 3) for name in names[:count]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = write_curves(tmp_path, rows, ("../$car_{", "a/b", "a:b"))
    assert [path.name for path in files.pictures] == ["curve_car.png", "curve_a_b.png", "curve_a_b_2.png"]
    assert all(path.parent == tmp_path and cv2.imread(str(path)) is not None for path in files.pictures)


def test_no_classes_no_files(tmp_path: Path) -> None:
    assert write_curves(tmp_path, {"a": []}, ()) == curves.CurveFiles((), ())
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_tables_remain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends", None)
    files = write_curves(tmp_path, {"a": drawn_lots(6, 3)}, ("car",))
    assert files.pictures == ()
    assert "matplotlib" in files.note
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".csv"]


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(HnxError, match="disk is full"):
        write_curves(tmp_path, {"a": drawn_lots(7, 3)}, ("car",))
    assert list(tmp_path.iterdir()) == []
