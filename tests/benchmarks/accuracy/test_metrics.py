"""All figures of a row: their definitions, and that neither order nor pieces change a digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy.metrics import Accumulator, Metrics
from benchmarks.accuracy.protocols import Heads
from benchmarks.accuracy.records import ImageRecord, read_records, write_records
from benchmarks.accuracy.segmentation import balanced_accuracy, intersection_over_union
from hybridnets.errors import HnxError
from tests.benchmarks.accuracy.simulated import pixels, record_of, scene
from tests.benchmarks.accuracy.test_detection import plain_figures

HEADS = Heads(("car", "bus", "rider"), ("road", "lane"))


def some(count: int = 30, *, seed: int = 0, ties: bool = True, heads: Heads = HEADS) -> list[ImageRecord]:
    random = np.random.default_rng(seed)
    classes, channels = len(heads.classes), len(heads.channels)
    return [
        record_of(
            f"{index:03}", scene(random, classes=classes, ties=ties), classes=classes, seg=pixels(random, channels)
        )
        for index in range(count)
    ]


def collected(records: list[ImageRecord], heads: Heads = HEADS) -> Accumulator:
    accumulator = Accumulator(heads)
    for record in records:
        accumulator.add(record)
    return accumulator


def test_detection_figures_are_means_over_the_classes_with_labels() -> None:
    records = some()
    # a fourth class that is predicted and never labelled
    heads = Heads((*HEADS.classes, "ghost"), HEADS.seg_classes)
    extra = ImageRecord(
        "zzz",
        scores=np.array([0.9], np.float32),
        classes=np.array([3], np.uint8),
        hits=np.zeros(1, np.uint8),
        seg=records[0].seg,
    )
    got = collected([*records, extra], heads).metrics(coco=False)
    want = [plain_figures(records, number) for number in range(3)]
    assert got.precision == pytest.approx(np.mean([part["P"] for part in want]), rel=1e-12)
    assert got.recall == pytest.approx(np.mean([part["R"] for part in want]), rel=1e-12)
    assert got.map50 == pytest.approx(np.mean([part["ap"][0] for part in want]), rel=1e-12)
    assert got.map50_95 == pytest.approx(np.mean([part["ap"] for part in want]), rel=1e-12)
    assert got.f1 == pytest.approx(np.mean([2 * p["P"] * p["R"] / (p["P"] + p["R"]) for p in want]), rel=1e-12)
    ghost = got.classes["ghost"]
    assert (ghost.labels, ghost.predictions, ghost.precision, ghost.ap) == (0, 1, None, None)
    assert got.labels == sum(len(record.labels) for record in records)


def test_segmentation_figures_are_means_over_images_then_classes() -> None:
    records = some()
    got = collected(records).metrics(coco=False)
    counts = np.stack([record.seg for record in records])
    iou, acc = intersection_over_union(counts), balanced_accuracy(counts)
    assert got.miou == pytest.approx(iou.mean(), rel=1e-12)
    assert got.macc == pytest.approx(acc.mean(), rel=1e-12)
    for place, name in enumerate(("road", "lane"), start=1):
        part = got.seg[name]
        assert part.miou == pytest.approx((iou[:, 0] + iou[:, place]).mean() / 2, rel=1e-12)
        assert (part.iou, part.acc) == (pytest.approx(iou[:, place].mean()), pytest.approx(acc[:, place].mean()))
        tp, fp, fn, _ = counts[:, place].sum(axis=0)
        assert part.pooled_iou == tp / (tp + fp + fn)
    assert got.background is not None
    assert got.background.iou == pytest.approx(iou[:, 0].mean())
    assert got.pooled_miou == pytest.approx(
        np.mean([got.background.pooled_iou, *(part.pooled_iou for part in got.seg.values())])
    )


def test_binary_segmentation_has_no_background() -> None:
    heads = Heads(("car",), ("road",), "binary")
    got = collected(some(heads=heads), heads).metrics(coco=False)
    assert got.background is None
    assert got.seg["road"].miou == got.seg["road"].iou == got.miou
    assert got.seg["road"].acc == got.macc


def test_a_class_that_never_occurs_has_no_pooled_value() -> None:
    seg = np.array([[50, 0, 0, 50], [50, 0, 0, 50], [0, 0, 0, 100]])
    got = collected([ImageRecord("a", seg=seg)]).metrics(coco=False)
    assert (got.seg["lane"].iou, got.seg["lane"].pooled_iou) == (1.0, None)
    assert got.pooled_miou == 1.0


def test_confusion_adds_up() -> None:
    records = some()
    confusion = collected(records).metrics(coco=False).confusion
    assert confusion is not None
    want = np.zeros((4, 4), int)
    for record in records:
        for predicted, true, times in record.confusion:
            want[predicted, true] += times
    assert confusion.tolist() == want.tolist()
    assert np.trace(confusion) > 10


def text(metrics: Metrics) -> str:
    """Every digit."""
    return json.dumps(metrics.to_json(), allow_nan=False)


def test_order_pieces_and_files_change_no_digit(tmp_path: Path) -> None:
    records = some()
    want = text(collected(records).metrics())
    assert text(collected(records[::-1]).metrics()) == want
    shuffled = [records[index] for index in np.random.default_rng(1).permutation(len(records))]
    assert text(collected(shuffled).metrics()) == want
    for shard in range(4):
        write_records(tmp_path / f"{shard}.npz", records[shard::4])
    merged = collected([item for shard in (2, 0, 3, 1) for item in read_records(tmp_path / f"{shard}.npz")])
    assert text(merged.metrics()) == want


def test_figures_follow_what_is_added() -> None:
    records = some()
    accumulator = collected(records[:10])
    accumulator.metrics(coco=False)
    for record in records[10:]:
        accumulator.add(record)
    assert text(accumulator.metrics()) == text(collected(records).metrics())


@pytest.mark.parametrize("heads", [Heads(("car",)), Heads((), ("road", "lane"))])
def test_figures_of_a_missing_head_are_absent(heads: Heads) -> None:
    both = Heads(("car",), ("road", "lane"))
    records = some(heads=both)
    if heads.classes:
        kept = [ImageRecord(r.name, **{k: v for k, v in vars(r).items() if k not in ("name", "seg")}) for r in records]
    else:
        kept = [ImageRecord(record.name, seg=record.seg) for record in records]
    got, whole = collected(kept, heads).metrics(), collected(records, both).metrics()
    detection = ("labels", "predictions", "precision", "recall", "f1", "map50", "map50_95", "confusion", "coco")
    segmentation = ("miou", "macc", "background", "pooled_miou")
    for key in segmentation if heads.classes else detection:
        assert getattr(got, key) is None
    for key in detection[:7] if heads.classes else segmentation:
        assert getattr(got, key) == getattr(whole, key)
    assert (got.seg if heads.classes else got.classes) == {}
    values = json.loads(text(got))
    assert values["pooled" if heads.classes else "coco"] is None


def test_the_true_number_of_labels_without_a_hit() -> None:
    record = ImageRecord(
        "a",
        labels=np.zeros(3, np.uint8),
        scores=np.array([0.9], np.float32),
        classes=np.zeros(1, np.uint8),
        hits=np.zeros(1, np.uint8),
    )
    got = collected([record], Heads(("car",))).metrics(coco=False)
    assert (got.precision, got.recall, got.f1, got.map50, got.map50_95) == (0, 0, 0, 0, 0)
    assert (got.labels, got.classes["car"].labels) == (3, 3)


def test_nothing_added_and_nothing_labelled() -> None:
    empty = Accumulator(HEADS).metrics()
    assert (empty.images, empty.labels, empty.map50, empty.miou, empty.seg) == (0, 0, None, None, {})
    json.dumps(empty.to_json(), allow_nan=False)
    bare = collected([ImageRecord("a", seg=np.zeros((3, 4), np.int64))]).metrics()
    assert (bare.labels, bare.map50, bare.precision) == (0, 0.0, 0.0)
    assert bare.classes["car"].ap is None
    json.dumps(bare.to_json(), allow_nan=False)


def test_report_keys() -> None:
    values = collected(some()).metrics().to_json()
    assert {"P", "R", "F1", "mAP50", "mAP50-95", "mIoU", "mAcc", "seg", "pooled", "classes", "coco"} <= values.keys()
    assert values["seg"].keys() == {"road", "lane"}
    assert values["seg"]["lane"].keys() == {"mIoU", "IoU", "Acc"}
    assert {"P", "R", "mAP50", "mAP50-95", "labels"} <= values["classes"]["bus"].keys()
    assert values["classes"]["bus"]["mAP50-95"] == pytest.approx(np.mean(values["classes"]["bus"]["AP"]))
    assert values["confusion"]["names"] == ["car", "bus", "rider", "background"]
    assert values["pooled"]["IoU"].keys() == {"background", "road", "lane"}


def test_records_come_back_by_name() -> None:
    records = some(5)
    accumulator = collected(records[::-1])
    assert accumulator.names == tuple(record.name for record in records)
    assert [record.name for record in accumulator] == [record.name for record in records]
    assert accumulator.record("003") is records[3]
    assert len(accumulator) == 5
    assert "003" in accumulator
    assert "9" not in accumulator


@pytest.mark.parametrize(
    "values",
    [
        {"seg": np.zeros((2, 4), np.int64)},
        {"labels": np.array([3], np.uint8)},
        {"scores": np.ones(1, np.float32), "classes": np.array([3], np.uint8), "hits": np.zeros(1, np.uint8)},
    ],
)
def test_records_of_other_networks_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(HnxError, match="does not fit"):
        Accumulator(HEADS).add(ImageRecord("a", **{"seg": np.zeros((3, 4), np.int64), **values}))


def test_an_image_counts_once() -> None:
    accumulator = collected(some(1))
    with pytest.raises(HnxError, match="twice"):
        accumulator.add(some(1)[0])
