"""Letterbox geometry and pixels against upstream's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hybridnets.errors import HnxError
from hybridnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Letterbox, Preprocessor, as_bgr8

LETTERBOX = json.loads((Path(__file__).parents[1] / "data/parity/preprocess/letterbox.json").read_text())


@pytest.mark.parametrize("case", LETTERBOX, ids=lambda c: f"{c['w0']}x{c['h0']}")
def test_geometry_of_every_aspect_ratio(case: dict) -> None:
    reference = case["val dataset"]
    box = Letterbox.fit((case["h0"], case["w0"]), (384, 640))
    assert [box.top, box.top + box.content[0] - 1] == reference["first_last_image_row"]
    assert [box.left, box.left + box.content[1] - 1] == reference["first_last_image_col"]


@pytest.mark.parametrize("case", [c for c in LETTERBOX if c["w0"] * 9 == c["h0"] * 16], ids=lambda c: str(c["h0"]))
def test_boxes_go_back_as_upstream_has_them(case: dict) -> None:
    box = Letterbox.fit((case["h0"], case["w0"]), (384, 640))
    given = np.array([[10, 20, 300, 200], [-5, -5, 700, 700]], np.float32)
    expected = case["val dataset"]["scale_coords_of_[[10,20,300,200],[-5,-5,700,700]]"]
    assert np.allclose(box.boxes_to_frame(given), expected, atol=1e-3)


@pytest.mark.parametrize("frame", [(720, 1280), (480, 640), (1080, 607), (1, 1), (33, 2000), (2000, 33), (9000, 12000)])
@pytest.mark.parametrize("target", [(384, 640), (256, 512), (640, 384)])
def test_boxes_survive_the_round_trip(frame: tuple[int, int], target: tuple[int, int]) -> None:
    box = Letterbox.fit(frame, target)
    assert box.top >= 0
    assert box.top + box.content[0] <= target[0]
    assert box.left >= 0
    assert box.left + box.content[1] <= target[1]
    whole = np.array([[0, 0, frame[1], frame[0]]], np.float32)
    inside = box.boxes_to_input(whole)
    assert np.allclose(inside, [[box.left, box.top, box.left + box.content[1], box.top + box.content[0]]], atol=1e-2)
    assert np.allclose(box.boxes_to_frame(inside), whole, atol=1e-2 * max(frame))


def test_pixels_equal_upstream_bit_for_bit(data: Path, tmp_path: Path) -> None:
    reference = json.loads((data / "parity/preprocess/dataset_items.json").read_text())["nc1_multiclass"]["items"]
    frame = cv2.imread(str(data / "parity/preprocess/val_00.jpg"), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    tensor, box = Preprocessor((384, 640))(frame)
    assert (box.top, box.left) == (12, 0)
    assert hashlib.sha256(tensor.tobytes()).hexdigest() == reference[0]["image_sha256_float32"]


def test_normalisation_is_float32_arithmetic() -> None:
    canvas = np.random.default_rng(0).integers(0, 256, (128, 256, 3), np.uint8)
    found = Preprocessor((128, 256)).normalise(canvas)
    rgb = canvas[:, :, ::-1].astype(np.float32) / np.float32(255)
    expected = (rgb - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    assert np.array_equal(found[0], expected.transpose(2, 0, 1))


def test_padding_is_grey_after_a_change_of_size() -> None:
    preprocess = Preprocessor((384, 640))
    preprocess.letterbox(np.zeros((480, 640, 3), np.uint8))
    canvas, box = preprocess.letterbox(np.full((720, 1280, 3), 255, np.uint8))
    assert (canvas[: box.top] == 114).all()
    assert (canvas[box.top + box.content[0] :] == 114).all()
    assert (canvas[box.top : box.top + box.content[0]] == 255).all()


def test_buffers_are_reused() -> None:
    preprocess = Preprocessor((128, 128))
    first, _ = preprocess(np.zeros((64, 64, 3), np.uint8))
    second, _ = preprocess(np.ones((64, 64, 3), np.uint8))
    assert first is second


@pytest.mark.parametrize(
    "frame",
    [
        np.full((4, 5), 7, np.uint8),
        np.full((4, 5, 1), 7, np.uint8),
        np.full((4, 5, 3), 7, np.uint8),
        np.full((4, 5, 4), 7, np.uint8),
        np.full((4, 5, 3), 7 << 8, np.uint16),
        np.full((4, 5), 7 << 8, np.uint16),
    ],
    ids=["grey", "grey1", "bgr", "bgra", "bgr16", "grey16"],
)
def test_every_kind_of_image_becomes_bgr8(frame: np.ndarray) -> None:
    assert np.array_equal(as_bgr8(frame), np.full((4, 5, 3), 7, np.uint8))


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 5, 2), np.uint8), np.zeros((4, 5, 3)), np.zeros((0, 5, 3), np.uint8), np.zeros(4, np.uint8)]
)
def test_other_arrays_are_refused(frame: np.ndarray) -> None:
    with pytest.raises(HnxError, match="A frame of shape"):
        as_bgr8(frame)


@pytest.mark.parametrize(
    ("frame", "words"),
    [(None, "the frame is None"), ("road.jpg", "type str"), ([np.zeros((4, 5, 3), np.uint8)], "type list")],
)
def test_what_is_no_array_is_refused(frame: Any, words: str) -> None:
    with pytest.raises(HnxError, match=words) as caught:
        as_bgr8(frame)
    assert "cv2.imread" in caught.value.why + caught.value.fix
