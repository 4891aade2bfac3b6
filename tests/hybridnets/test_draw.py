"""Overlays: where colour lands, and that nothing leaves the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hybridnets.draw import BOX_COLOURS, SEG_COLOURS, box_colour, draw_overlay, seg_colour
from hybridnets.postprocess import Detections, Prediction
from hybridnets.preprocess import Letterbox
from hybridnets.sources import read_image

SEG = ("road", "lane")


def prediction(
    size: tuple[int, int], segmentation: np.ndarray | None = None, boxes: list[list[float]] | None = None
) -> Prediction:
    rows = np.array(boxes or [], np.float32).reshape(-1, 4)
    found = Detections(rows, np.linspace(0.9, 0.3, len(rows), dtype=np.float32), np.arange(len(rows)) % 3)
    return Prediction(found, segmentation, Letterbox.fit(size, (384, 640)))


def blended(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The same by boolean indexing, in floats."""
    out = image.astype(np.float64)
    out[mask] = out[mask] * 0.5 + np.array(colour) * 0.5
    return out


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "binary"])
def test_masks_equal_boolean_indexing(road_image: Path, kind: str) -> None:
    image = read_image(road_image)
    road, lane = np.zeros((2, 720, 1280), np.uint8)
    road[400:701, 200:1001] = 1
    lane[380:600, 500:520] = 1
    segmentation = {"multiclass": np.where(lane, 2, road).astype(np.uint8), "multilabel": np.stack([road, lane])}.get(
        kind, road
    )
    drawn = draw_overlay(image, prediction((720, 1280), segmentation), ("car",), SEG)
    expected = blended(image, road > 0, seg_colour(0, "road"))
    if kind != "binary":
        expected = np.where(lane[..., None] > 0, blended(image, lane > 0, seg_colour(1, "lane")), expected)
    assert np.abs(drawn - expected).max() <= 1
    assert np.array_equal(drawn[:380], image[:380])


def test_the_frame_is_left_alone_unless_asked(road_image: Path) -> None:
    image = read_image(road_image)
    before = image.copy()
    result = prediction((720, 1280), np.ones((720, 1280), np.uint8), [[10, 10, 200, 200]])
    drawn = draw_overlay(image, result, ("car",), SEG)
    assert np.array_equal(image, before)
    assert draw_overlay(image, result, ("car",), SEG, copy=False) is not before
    assert np.array_equal(image, drawn)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (20, 30), (64, 48), (3, 3), (720, 1280), (2160, 3840)])
def test_any_size(size: tuple[int, int]) -> None:
    h, w = size
    boxes = [[0, 0, w, h], [w / 3, h / 3, w, h / 2], [w, h, w, h], [-5, -5, w + 5, h + 5], [w - 2, 0, w, 2]]
    frame = np.full((h, w, 3), 90, np.uint8)
    drawn = draw_overlay(frame, prediction(size, np.ones(size, np.uint8), boxes), ("car", "bus"), SEG)
    assert drawn.shape == (h, w, 3)
    assert drawn.dtype == np.uint8


def test_large_picture() -> None:
    frame = np.full((9000, 12000, 3), 90, np.uint8)
    mask = np.zeros((9000, 12000), np.uint8)
    mask[8000:] = 1
    drawn = draw_overlay(frame, prediction((9000, 12000), mask, [[100, 100, 5000, 5000]]), ("car",), SEG, copy=False)
    assert drawn is frame or np.shares_memory(drawn, frame)
    assert drawn[8999, 0].tolist() != [90, 90, 90]


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 4)])
def test_grey_alpha_and_16_bits(shape: tuple[int, ...]) -> None:
    for dtype in (np.uint8, np.uint16):
        drawn = draw_overlay(np.zeros(shape, dtype), prediction((40, 60), boxes=[[1, 1, 30, 30]]), ("car",), SEG)
        assert drawn.shape == (40, 60, 3)


def test_a_view_that_is_not_contiguous(road_image: Path) -> None:
    image = read_image(road_image)[::2, ::-2]
    result = prediction((360, 640), np.ones((360, 640), np.uint8), [[5, 5, 50, 50]])
    drawn = draw_overlay(image, result, ("car",), SEG, copy=False)
    assert np.array_equal(drawn, draw_overlay(image.copy(), result, ("car",), SEG))


def test_labels_lie_inside_and_on_their_colour() -> None:
    frame = np.zeros((720, 1280, 3), np.uint8)
    for box in ([0, 0, 40, 40], [1270, 0, 1280, 10], [1200, 700, 1280, 720], [600, 300, 700, 400]):
        drawn = draw_overlay(frame, prediction((720, 1280), boxes=[box]), ("car",), SEG)
        area = (drawn == np.array(box_colour(0))).all(-1).sum()
        assert area > 600  # the plate is there as a whole wherever the box is


def test_no_boxes_no_masks_changes_nothing(road_image: Path) -> None:
    image = read_image(road_image)
    assert np.array_equal(draw_overlay(image, prediction((720, 1280)), ("car",), SEG), image)
    empty = prediction((720, 1280), np.zeros((720, 1280), np.uint8))
    assert np.array_equal(draw_overlay(image, empty, ("car",), SEG), image)


def test_boxes_that_are_not_finite_are_left_out() -> None:
    frame = np.zeros((72, 128, 3), np.uint8)
    bad = [[np.nan, 0, 10, 10], [0, 0, np.inf, 10]]
    assert not draw_overlay(frame, prediction((72, 128), boxes=bad), ("car",), SEG).any()
    huge = draw_overlay(frame, prediction((72, 128), boxes=[[-1e30, -1e30, 1e30, 1e30]]), ("car",), SEG)
    assert huge[0, 127].any()


def test_more_classes_than_colours() -> None:
    colours = {seg_colour(i) for i in range(40)}
    assert len(colours) == 40
    assert len({box_colour(i) for i in range(40)}) == 40
    assert set(SEG_COLOURS) <= colours
    assert len(set(BOX_COLOURS)) == len(BOX_COLOURS)
    segmentation = np.arange(40, dtype=np.uint8).repeat(30).reshape(40, 30)
    draw_overlay(np.zeros((40, 30, 3), np.uint8), prediction((40, 30), segmentation), (), ())


def test_lane_keeps_its_colour_alone() -> None:
    assert seg_colour(0, "lane") == seg_colour(1, "lane") != seg_colour(0, "road")
