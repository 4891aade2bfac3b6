"""Boxes against upstream's own lists; masks against plain numpy."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridnets.anchors import make_anchors
from hybridnets.errors import HnxError
from hybridnets.postprocess import Detections, Postprocessor, Prediction, class_map, decode, nms
from hybridnets.preprocess import Letterbox
from tests import parity

FOLDER = Path(__file__).parents[1] / "data/parity/postprocess"


def raw_case(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The kit's network-like outputs for a 128x256 input."""
    name = f"postprocess/raw/nc{num_classes}"
    regression = 0.3 * parity.stream(name + "/regression").standard_normal((2, 6138, 4))
    logits = -3.0 + 1.5 * parity.stream(name + "/classification").standard_normal((2, 6138, num_classes))
    return regression.astype(np.float32), (1 / (1 + np.exp(-logits))).astype(np.float32)


@pytest.mark.parametrize("thresholds", [(0.25, 0.3), (0.001, 0.6), (0.5, 0.5)])
@pytest.mark.parametrize("num_classes", [1, 10])
def test_boxes_equal_upstream_exactly(num_classes: int, thresholds: tuple[float, float]) -> None:
    conf, iou = thresholds
    reference = np.load(FOLDER / "raw.npz")
    summary = json.loads((FOLDER / "raw.json").read_text())[f"nc{num_classes}/{conf}_{iou}"]["images"]
    post = Postprocessor(make_anchors(256, 128), (128, 256), conf=conf, iou=iou)
    regression, classification = raw_case(num_classes)
    for image in range(2):
        found = post.detect(regression[image], classification[image])
        base = f"nc{num_classes}/{conf}_{iou}/{image}/"
        stored = len(reference[base + "scores"])
        assert len(found) == summary[image]["kept"]
        assert np.array_equal(found.scores[:stored], reference[base + "scores"])
        assert np.array_equal(found.classes[:stored], reference[base + "classes"])
        assert np.abs(found.boxes[:stored] - reference[base + "boxes"]).max() < 1e-4
        assert np.bincount(found.classes, minlength=num_classes).tolist() == summary[image]["class_hist"]


def slow_nms(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, threshold: float) -> list[int]:
    """The definition, one pair at a time."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            if classes[i] != classes[j]:
                continue
            x1, y1 = np.maximum(boxes[i, :2], boxes[j, :2])
            x2, y2 = np.minimum(boxes[i, 2:], boxes[j, 2:])
            inter = max(0.0, float(x2 - x1)) * max(0.0, float(y2 - y1))
            area = [float(np.prod(b[2:] - b[:2])) for b in (boxes[i], boxes[j])]
            if inter and inter / (sum(area) - inter) > threshold:
                break
        else:
            kept.append(int(i))
    return kept


def test_nms_is_its_definition() -> None:
    random = np.random.default_rng(3)
    corner = random.uniform(0, 60, (200, 2))
    boxes = np.concatenate([corner, corner + random.uniform(-3, 40, (200, 2))], 1).astype(np.float32)
    scores = np.round(random.uniform(0.1, 1, 200), 1).astype(np.float32)  # many ties
    classes = random.integers(0, 3, 200)
    for threshold in (0.0, 0.3, 0.6, 1.0):
        assert nms(boxes, scores, classes, threshold).tolist() == slow_nms(boxes, scores, classes, threshold)


def test_identical_boxes_of_two_classes_both_stay() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.5, 0.9], np.float32)
    assert nms(boxes, scores, np.array([0, 1]), 0.5).tolist() == [1, 0]
    assert nms(boxes, scores, np.array([0, 0]), 0.5).tolist() == [1]


def test_class_map_is_argmax_with_the_first_winning_ties() -> None:
    random = np.random.default_rng(0)
    for channels in (2, 3, 7):
        logits = random.integers(-2, 3, (channels, 37, 53)).astype(np.float32)
        assert np.array_equal(class_map(logits), logits.argmax(0))


@pytest.mark.parametrize("frame", [(720, 1280), (480, 640), (375, 1242), (1, 1), (900, 600)])
def test_masks_return_to_the_frame(frame: tuple[int, int]) -> None:
    box = Letterbox.fit(frame, (384, 640))
    logits = np.zeros((1, 3, 384, 640), np.float32)
    logits[0, 2] = 5  # padding says lane, the content is split into road (left) and background (right)
    content = box.crop(logits)
    content[0, 2] = -5
    half = box.content[1] // 2
    content[0, 1, :, :half] = 5
    mask = Postprocessor(None, (384, 640)).segment(logits, box)
    assert mask.shape == frame
    assert 2 not in mask
    if frame[1] > 100:
        assert (mask[:, : frame[1] // 2 - 4] == 1).all()
        assert (mask[:, frame[1] // 2 + 4 :] == 0).all()


def test_binary_and_multilabel() -> None:
    box = Letterbox.fit((128, 128), (128, 128))
    logits = np.random.default_rng(0).standard_normal((1, 3, 128, 128)).astype(np.float32)
    logits[0, 1, 0, 0] = 0.0  # sigmoid 0.5 counts as on
    multilabel = Postprocessor(None, (128, 128), "multilabel").segment(logits, box)
    assert np.array_equal(multilabel, (logits[0, 1:] >= 0).astype(np.uint8))
    binary = Postprocessor(None, (128, 128), "binary").segment(logits[:, :1], box)
    assert np.array_equal(binary, (logits[0, 0] >= 0).astype(np.uint8))


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("index", [-1, 2, 9, "road"])
def test_masks_of_classes_that_are_not_there(mode: str, index: Any) -> None:
    box = Letterbox.fit((128, 128), (128, 128))
    logits = np.random.default_rng(0).standard_normal((1, 3, 128, 128)).astype(np.float32)
    found = Postprocessor(None, (128, 128), mode, seg_classes=2)({"segmentation": logits}, box)
    assert found.mask(0).any()
    assert found.mask(np.int64(1)).any()
    with pytest.raises(HnxError, match=f"no segmentation class {index!r}") as caught:
        found.mask(index)
    assert "there are 2" in caught.value.why


def test_masks_where_nobody_said_how_many_classes_there_are() -> None:
    found = Prediction(Detections.empty(), np.ones((2, 2), np.uint8), Letterbox.fit((2, 2), (128, 128)))
    assert found.mask(0).all()
    with pytest.raises(HnxError, match="class -1"):
        found.mask(-1)


def test_nothing_found() -> None:
    post = Postprocessor(make_anchors(128, 128), (128, 128))
    outputs = {
        "regression": np.zeros((1, 3069, 4), np.float32),
        "classification": np.full((1, 3069, 1), 0.25, np.float32),  # not strictly above the threshold
        "segmentation": np.zeros((1, 3, 128, 128), np.float32),
    }
    result = post(outputs, Letterbox.fit((50, 60), (128, 128)))
    assert len(result.detections) == 0
    assert result.detections.boxes.shape == (0, 4)
    assert result.segmentation is not None
    assert not result.mask(0).any()


def test_nan_scores_are_no_boxes() -> None:
    post = Postprocessor(make_anchors(128, 128), (128, 128))
    scores = np.full((1, 3069, 1), np.nan, np.float32)
    assert len(post.detect(np.zeros((1, 3069, 4), np.float32), scores)) == 0


@pytest.mark.parametrize("name", ["conf", "iou"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_thresholds_are_checked(name: str, value: float) -> None:
    with pytest.raises(HnxError, match="threshold"):
        Postprocessor(None, (128, 128), **{name: value})


def test_sides_beyond_any_number_end_at_the_border_without_a_warning() -> None:
    anchors = np.array([[0, 0, 32, 32], [32, 32, 64, 64]], np.float32)
    regression = np.array([[0, 0, 200, 200], [0, 0, 0, 0]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode(regression, anchors, 128, 96)
    np.testing.assert_array_equal(found, [[0, 0, 127, 95], [32, 32, 64, 64]])
