"""The quick suppression keeps what OpenCV's keeps, box for box."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hybridnets import postprocess, suppression
from hybridnets.anchors import AnchorRule, make_anchors
from hybridnets.postprocess import nms
from hybridnets.suppression import MANY, suppress, worth_it


def predictions(noise: float, seed: int) -> NDArray[np.float64]:
    """Every anchor of 256x128, moved and stretched, cut at the image's edges, in random order."""
    random = np.random.default_rng(seed)
    y1, x1, y2, x2 = make_anchors(256, 128, AnchorRule())[0].T
    size = np.stack([x2 - x1, y2 - y1], axis=1)
    centre = np.stack([x1 + x2, y1 + y2], axis=1) / 2 + random.normal(0, noise, size.shape) * size
    size = size * np.exp(random.normal(0, noise, size.shape))
    boxes = np.concatenate([np.maximum(centre - size / 2, 0), np.minimum(centre + size / 2, (255, 127))], axis=1)
    boxes = boxes.astype(np.float32)
    whole = ((boxes[:, 2:] - boxes[:, :2]) > 0.1).all(axis=1)
    return random.permutation(boxes[whole]).astype(np.float64)


def opencv(boxes: NDArray[np.float64], threshold: float) -> list[int]:
    scores = np.linspace(1, 0.1, len(boxes))
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return sorted(np.asarray(cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), 0.0, threshold)).ravel().tolist())


def kept_by(boxes: NDArray[np.float64], threshold: float) -> list[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppression, "CROWD", len(boxes))
        found = suppress(boxes, threshold)
    assert found is not None
    return found.tolist()


@pytest.mark.parametrize("threshold", [0.45, 0.6, 0.75, 0.95])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.6])
def test_it_keeps_what_opencv_keeps(noise: float, threshold: float) -> None:
    boxes = predictions(noise, seed=round(10 * noise + 100 * threshold))
    kept = kept_by(boxes, threshold)
    assert kept == opencv(boxes, threshold)
    assert 0 < len(kept) <= len(boxes)


def test_overlaps_at_the_threshold_and_equal_boxes() -> None:
    # 3 of 5 pixels in common: IoU 0.6 exactly, which is not above 0.6; then copies of all of them
    near = np.array([[0, 0, 4, 1], [1, 0, 5, 1], [40, 0, 44, 1], [40.01, 0, 44, 1]], np.float64)
    boxes = np.concatenate([near, near, near + 0.25])
    for threshold in (0.45, 0.6, 0.61, 0.9):
        assert kept_by(boxes, threshold) == opencv(boxes, threshold)


def test_boxes_of_all_sizes() -> None:
    random = np.random.default_rng(5)
    size = np.exp(random.uniform(np.log(1 / 16), np.log(600), (4000, 2)))
    corner = random.uniform(0, 640, (4000, 2))
    boxes = np.concatenate([corner, corner + size], axis=1)
    boxes = np.concatenate([boxes, boxes + random.normal(0, 0.05, boxes.shape) * np.tile(size, 2)])
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 1 / 16).all(axis=1)]
    assert kept_by(boxes, 0.5) == opencv(boxes, 0.5)


@pytest.mark.parametrize("side", [0, 1])
def test_slivers_at_the_edge_of_the_image(side: int) -> None:
    """Boxes that the edge cuts down to less than a sixteenth of a pixel, down to one bit of a float."""
    random = np.random.default_rng(7)
    boxes = predictions(0.3, seed=4)
    thin = np.array(boxes[:900])
    widths = np.exp(random.uniform(np.log(1e-6), np.log(0.2), len(thin)))
    thin[:, side + 2] = thin[:, side] + widths
    near = np.array(thin)
    near[:, side + 2] += random.uniform(-0.4, 0.4, len(thin)) * widths
    mixed = random.permutation(np.concatenate([boxes, thin, near]))
    for threshold in (0.5, 0.6, 0.9):
        assert kept_by(mixed, threshold) == opencv(mixed, threshold)
    assert worth_it(mixed, 0.6)


def test_a_grid_of_more_cells_than_numbers_is_left_to_opencv() -> None:
    random = np.random.default_rng(3)
    corner = random.uniform(0, 9e4, (MANY, 2))
    boxes = np.concatenate([corner, corner + np.exp(random.uniform(-9, 9, corner.shape))], axis=1)
    assert worth_it(boxes, 0.98)
    assert suppress(boxes, 0.98) is None
    assert kept_by(boxes, 0.5) == opencv(boxes, 0.5)


def test_boxes_that_lie_apart_all_stay() -> None:
    places = 20.0 * np.stack(np.meshgrid(np.arange(60), np.arange(40)), axis=-1).reshape(-1, 2)
    assert kept_by(np.concatenate([places, places + 9], axis=1), 0.5) == list(range(len(places)))


def test_copies_of_one_box_are_left_to_opencv() -> None:
    """The pairs of 46 000 would fill the memory."""
    boxes = np.tile(np.array([[100.0, 100.0, 180.0, 160.0]]), (46_000, 1))
    assert suppress(boxes, 0.6) is None
    scores = np.linspace(0.9, 0.1, len(boxes)).astype(np.float32)
    assert nms(boxes.astype(np.float32), scores, np.zeros(len(boxes), np.int64), 0.6).tolist() == [0]


def test_when_it_is_taken() -> None:
    many = np.tile(np.array([[0.0, 0.0, 10.0, 10.0]]), (MANY, 1))
    assert worth_it(many, 0.6)
    assert worth_it(np.concatenate([many, [[0, 0, 1e-3, 1]]]), 0.6)
    assert not worth_it(many[:-1], 0.6)
    assert not worth_it(many, 0.3)
    assert not worth_it(many, 1.0)
    assert not worth_it(np.concatenate([many, [[0, 0, 1e6, 1]]]), 0.6)
    assert not worth_it(np.full((MANY, 4), np.nan), 0.6)


def test_the_postprocessing_gives_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = predictions(0.2, seed=1).astype(np.float32)
    boxes[7] = (5, 5, 5, 9)  # no area
    random = np.random.default_rng(2)
    # few values: many boxes share one, and their order decides
    scores = (random.integers(1, 50, len(boxes)) / 50).astype(np.float32)
    for kinds in (1, 2):
        classes = random.integers(0, kinds, len(boxes))
        quick = nms(boxes, scores, classes, 0.6)
        with monkeypatch.context() as patch:
            patch.setattr(postprocess, "MANY", 1 << 40)
            plain = nms(boxes, scores, classes, 0.6)
        np.testing.assert_array_equal(quick, plain)
