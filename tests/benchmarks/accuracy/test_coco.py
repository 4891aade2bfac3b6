"""COCO's figures in a stream against a plain run of pycocotools: equal to the last bit."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.accuracy import coco
from benchmarks.accuracy.coco import COCO_KEYS, NO_PYCOCOTOOLS, coco_figures
from hybridnets.postprocess import Detections
from tests.benchmarks.accuracy.simulated import Scene, record_of, scene

pytest.importorskip("pycocotools")


def plain_run(scenes: Sequence[Scene], classes: int) -> dict[str, float | None]:
    """Everything in pycocotools' own objects."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = [], []
    for image, made in enumerate(scenes):
        for box, kind in zip(made.labels.astype(np.float64), made.number, strict=True):
            size = box[2:] - box[:2]
            bbox = [*box[:2].tolist(), *size.tolist()]
            area = float(size[0] * size[1])
            truth.append(
                {"id": len(truth) + 1, "image_id": image, "category_id": int(kind), "iscrowd": 0}
                | {"bbox": bbox, "area": area}
            )
        parts = (made.found.boxes.astype(np.float64), made.found.classes, made.found.scores)
        for box, kind, score in zip(*parts, strict=True):
            bbox = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
            found.append({"image_id": image, "category_id": int(kind), "bbox": bbox, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "images": [{"id": image} for image in range(len(scenes))],
            "categories": [{"id": kind} for kind in range(classes)],
            "annotations": truth,
            "info": {},
        }
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        key: None if value == -1 else float(value)
        for key, value in zip(COCO_KEYS, evaluation.stats.tolist(), strict=True)
    }


def streamed(scenes: Sequence[Scene], classes: int) -> dict[str, float | None] | None:
    records = [record_of(f"{index:04}", made, classes=classes) for index, made in enumerate(scenes)]
    return coco_figures(records, classes).values


@pytest.mark.parametrize(
    ("classes", "labels", "predictions", "ties"),
    [
        (1, 8, 40, False),
        (1, 8, 40, True),
        (3, 12, 60, False),
        (10, 20, 80, True),
        (1, 30, 400, False),
        (2, 5, 500, True),
    ],
)
def test_equal_to_a_plain_run(classes: int, labels: int, predictions: int, ties: bool) -> None:
    random = np.random.default_rng(classes + labels)
    shape = {"classes": classes, "labels": labels, "predictions": predictions, "ties": ties}
    scenes = [scene(random, noise=0.15, **shape) for _ in range(25)]
    want = plain_run(scenes, classes)
    assert streamed(scenes, classes) == want
    assert all(value is not None and 0 < value < 1 for value in want.values())


def crowded(random: np.random.Generator) -> Scene:
    """Labels upon each other with areas at the limits, and predictions with exactly equal overlaps."""
    sides = random.choice([31.0, 32.0, 33.0, 95.0, 96.0, 97.0], 12)
    corner = random.choice([0.0, 4.0, 8.0], (12, 2)) + random.choice([0.0, 200.0], (12, 1))
    boxes = np.concatenate([corner, corner + sides[:, None]], axis=1).astype(np.float32)
    picked = boxes[random.integers(0, 12, 40)] + random.choice([0, 0, 2], (40, 1)).astype(np.float32)
    scores = np.sort(random.choice([0.3, 0.6, 0.9], 40))[::-1].astype(np.float32)
    kinds = random.integers(0, 2, 40)
    return Scene(boxes, random.integers(0, 2, 12), Detections(picked, scores, kinds))


def test_equal_where_labels_compete_across_area_limits() -> None:
    random = np.random.default_rng(3)
    scenes = [crowded(random) for _ in range(30)]
    assert streamed(scenes, 2) == plain_run(scenes, 2)


def test_pieces_of_thresholds_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    scenes = [scene(random, classes=2) for _ in range(20)]
    whole = streamed(scenes, 2)
    monkeypatch.setattr(coco, "BLOCK", 1)
    assert streamed(scenes, 2) == whole


def test_what_no_label_asks_for_has_no_value() -> None:
    label = np.array([[0, 0, 10, 10]], np.float32)
    found = Detections(label, np.array([0.9], np.float32), np.array([0]))
    values = streamed([Scene(label, np.array([0]), found)], 2)
    assert values is not None
    assert [values[key] for key in ("AP", "AP_small", "AR1")] == pytest.approx([1, 1, 1])
    assert (values["AP_medium"], values["AP_large"], values["AR_large"]) == (None, None, None)
    assert streamed([], 1) == dict.fromkeys(COCO_KEYS)


def test_labels_without_any_prediction_score_zero() -> None:
    label = np.array([[0, 0, 10, 10]], np.float32)
    values = streamed([Scene(label, np.array([0]), Detections.empty())], 1)
    assert values is not None
    assert (values["AP"], values["AR100"]) == (0.0, 0.0)


def test_only_the_hundred_best_of_each_class_are_considered() -> None:
    kinds = np.array([0] * 150 + [1] * 20 + [0] * 10)
    kept = coco.considered(kinds)
    assert kept.tolist() == [*range(100), *range(150, 170)]
    assert coco.considered(kinds[:150]).tolist() == list(range(100))


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    streamed([scene(np.random.default_rng(0))], 1)
    assert capsys.readouterr().out == ""


def test_without_pycocotools_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    figures = coco_figures([record_of("a", scene(np.random.default_rng(1)))], 1)
    assert figures.values is None
    assert figures.note == NO_PYCOCOTOOLS
