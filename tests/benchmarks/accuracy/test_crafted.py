"""Upstream's own evaluation of prescribed predictions, reproduced to 1e-6."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.accuracy.metrics import Accumulator, Metrics
from benchmarks.accuracy.protocols import Heads, Protocol
from benchmarks.accuracy.scoring import ImageScorer
from benchmarks.accuracy.segmentation import balanced_accuracy, intersection_over_union
from hybridnets.anchors import make_anchors
from hybridnets.dataset import SampleReader, open_split
from hybridnets.project import load_project

DATA = Path(__file__).parents[2] / "data" / "parity"
NAME = "nc1_multiclass"
TARGET = (384, 640)
EXPECTED = json.loads((DATA / "metrics" / f"crafted_{NAME}.json").read_text())["results"]


def outputs(stored: Any, index: int, heads: Heads) -> dict[str, NDArray[np.float32]]:
    """The network's outputs of one image, as the fixture prescribes them."""
    anchors = stored[f"{index}/anchor"]
    count = make_anchors(TARGET[1], TARGET[0]).size // 4
    regression = np.zeros((1, count, 4), np.float32)
    classification = np.full((1, count, len(heads.classes)), 0.0005, np.float32)
    regression[0, anchors] = stored[f"{index}/regression"]
    classification[0, anchors, stored[f"{index}/class"]] = stored[f"{index}/score"]
    chosen = stored[f"{index}/segmentation"] == np.arange(len(heads.channels))[:, None, None]
    segmentation = np.where(chosen, np.float32(4), np.float32(-2))[None]
    return {"regression": regression, "classification": classification, "segmentation": segmentation}


@functools.cache
def evaluated(key: str) -> tuple[Accumulator, Metrics]:
    """One pair of thresholds."""
    project = load_project(str(DATA / "dataset" / f"project_{NAME}.yml"))
    split = open_split(project, DATA / "dataset")
    reader = SampleReader(split, TARGET)
    heads = Heads(project.classes, project.seg_list, project.seg_mode)
    conf, iou = map(float, key.split("_"))
    anchors = make_anchors(TARGET[1], TARGET[0], project.anchors)
    scorer = ImageScorer(Protocol("crafted", conf, iou, "input"), heads, TARGET, anchors)
    accumulator = Accumulator(heads)
    with np.load(DATA / "metrics" / f"crafted_{NAME}.npz") as stored:
        for index, name in enumerate(split.names):
            accumulator.add(scorer.score(reader.read(name), outputs(stored, index, heads)))
    return accumulator, accumulator.metrics(coco=False)


def near(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6, rel=0)


@pytest.mark.parametrize("key", sorted(EXPECTED))
def test_printed_figures(key: str) -> None:
    want, (_, got) = EXPECTED[key], evaluated(key)
    assert (got.precision, got.recall) == (near(want["P"]), near(want["R"]))
    assert (got.map50, got.map50_95) == (near(want["mAP50"]), near(want["mAP50_95"]))
    assert (got.miou, got.macc) == (near(want["mIoU_all"]), near(want["mAcc_all"]))
    assert 0.1 * got.map50 + 0.9 * got.map50_95 == near(want["fitness"])
    assert (got.images, got.labels, got.predictions) == (12, want["targets"], want["predictions_evaluated"])


@pytest.mark.parametrize("key", sorted(EXPECTED))
def test_each_detection_class(key: str) -> None:
    want, (_, got) = EXPECTED[key]["per_class"], evaluated(key)
    for place, name in enumerate(want["names"]):
        part = got.classes[name]
        assert (part.precision, part.recall) == (near(want["P"][place]), near(want["R"][place]))
        assert part.f1 == near(want["f1"][place])
        assert list(part.ap or ()) == near(want["ap_per_threshold"][place])
    assert sum(part.found for part in got.classes.values()) == EXPECTED[key]["true_positives_at_0.5"]
    assert got.f1 == near(np.mean(want["f1"]))


@pytest.mark.parametrize("key", sorted(EXPECTED))
def test_each_segmentation_class(key: str) -> None:
    want, (_, got) = EXPECTED[key], evaluated(key)
    parts = {"background": got.background, **got.seg}
    for place, name in enumerate(want["class_names_of_segmentation"]):
        part = parts[name]
        assert part is not None
        assert (part.iou, part.acc) == (near(want["iou_per_class"][place]), near(want["acc_per_class"][place]))
    assert [part.miou for part in got.seg.values()] == near(want["miou_per_seg_class"])


@pytest.mark.parametrize("key", sorted(EXPECTED))
def test_each_image(key: str) -> None:
    want, (accumulator, _) = EXPECTED[key], evaluated(key)
    counts = np.stack([record.seg for record in accumulator])
    assert intersection_over_union(counts).tolist() == [near(row) for row in want["iou_per_image_per_class"]]
    assert balanced_accuracy(counts).tolist() == [near(row) for row in want["acc_per_image_per_class"]]


def test_confusion_matrix() -> None:
    keys = [key for key in EXPECTED if "confusion_matrix" in EXPECTED[key]]
    assert keys
    for key in keys:
        confusion = evaluated(key)[1].confusion
        assert confusion is not None
        assert confusion.tolist() == EXPECTED[key]["confusion_matrix"]
