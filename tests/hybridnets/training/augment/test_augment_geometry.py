"""Boxes and masks must go where the image goes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from hybridnets.config import SegMode
from hybridnets.training.augment import (
    Affine,
    ColourGains,
    Scene,
    draw_affine,
    draw_colour,
    flip_left_right,
    flip_up_down,
    jitter,
    keep_boxes,
    mix,
    mosaic,
    target_of,
    warp,
)
from hybridnets.training.augment.scene import _planes


def _scene(
    size: tuple[int, int] = (90, 160), box: tuple[int, int, int, int] = (30, 20, 70, 60), value: int = 200
) -> Scene:
    """A bright rectangle with its box and mask on a dark picture."""
    image = np.full((*size, 3), 10, np.uint8)
    plane = np.zeros(size, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = value
    plane[y1:y2, x1:x2] = 1
    return Scene(image, np.array([[*box, 3.0]]), (plane,))


def _empty(size: tuple[int, int] = (90, 160), value: int = 50) -> Scene:
    return Scene(np.full((*size, 3), value, np.uint8), np.empty((0, 5)), (np.zeros(size, np.uint8),))


def _around(mask: NDArray[np.bool_]) -> list[int]:
    """x1, y1, x2, y2 of what is set."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.parametrize("flip", [flip_left_right, flip_up_down])
def test_flips(flip: Callable[[Scene], Scene]) -> None:
    before = _scene()
    after = flip(before)
    assert after.boxes[0, :4].tolist() == _around(after.planes[0] == 1) == _around(after.image[:, :, 0] == 200)
    assert after.boxes[0].tolist() != before.boxes[0].tolist()
    again = flip(after)
    assert np.array_equal(again.image, before.image)
    assert np.array_equal(again.planes[0], before.planes[0])
    assert np.array_equal(again.boxes, before.boxes)


@pytest.mark.parametrize("seed", range(8))
def test_box_mask_and_image_stay_together(seed: int) -> None:
    random = np.random.default_rng(seed)
    affine = draw_affine(random, degrees=0.0, translate=0.1, scale=0.25, shear=0.0)
    found = warp(_scene(), affine)
    assert found.boxes[0, :4] == pytest.approx(_around(found.planes[0] == 1), abs=1.0)
    assert found.boxes[0, :4] == pytest.approx(_around(found.image[:, :, 0] > 160), abs=1.5)
    assert found.boxes[0, 4] == 3.0


def test_a_turned_box_holds_its_mask() -> None:
    found = warp(_scene(), Affine(angle=20.0, shear=(5.0, -3.0)))
    x1, y1, x2, y2 = _around(found.planes[0] == 1)
    box = found.boxes[0]
    assert box[0] - 1 <= x1
    assert box[1] - 1 <= y1
    assert box[2] + 1 >= x2
    assert box[3] + 1 >= y2
    assert box[:4] == pytest.approx([x1, y1, x2, y2], abs=2.0)


def test_a_positive_angle_turns_against_the_clock() -> None:
    right = Scene(np.zeros((101, 101, 3), np.uint8), np.array([[80.0, 46.0, 90.0, 55.0, 0.0]]), ())
    turned = warp(right, Affine(angle=90.0)).boxes[0]
    assert (turned[1] + turned[3]) / 2 < 30.0  # from the right to the top
    assert (turned[0] + turned[2]) / 2 == pytest.approx(50.5, abs=1.0)


def test_what_comes_from_outside_is_grey_and_background() -> None:
    found = warp(_scene(), Affine(scale=0.5))
    assert found.image[0, 0].tolist() == [114, 114, 114]
    assert found.planes[0][0, 0] == 0
    shifted = warp(
        Scene(np.zeros((64, 64, 3), np.uint8), np.empty((0, 5)), (np.ones((64, 64), np.uint8),)),
        Affine(centre=(1.0, 0.5)),
    )
    assert (shifted.planes[0][:, :32] == 0).all()
    assert (shifted.planes[0][:, 32:] == 1).all()


def test_nothing_to_do_leaves_the_pixels_alone() -> None:
    before = _scene()
    after = warp(before, Affine())
    assert after.image is before.image
    assert np.array_equal(after.boxes, before.boxes)


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        ((0.0, 0.0, 20.0, 20.0), True),
        ((0.0, 0.0, 2.0, 20.0), False),  # 2 px wide
        ((0.0, 0.0, 20.0, 2.0), False),
        ((0.0, 0.0, 9.0, 9.0), True),  # 81 of 400 px
        ((0.0, 0.0, 8.0, 10.0), False),  # a fifth exactly
        ((0.0, 0.0, 3.0, 30.0), False),  # ten times as high as wide
        ((0.0, 0.0, 3.1, 30.0), True),
        ((0.0, 0.0, 30.0, 3.0), False),
        ((5.0, 5.0, 5.0, 5.0), False),
    ],
)
def test_which_boxes_remain(after: tuple[float, ...], kept: bool) -> None:
    before = np.array([[0.0, 0.0, 20.0, 20.0]])
    assert keep_boxes(before, np.array([after])).tolist() == [kept]


def test_a_box_that_left_the_image_is_gone() -> None:
    found = warp(_scene(box=(0, 20, 30, 60)), Affine(centre=(0.3, 0.5)))
    assert found.boxes.shape == (0, 5)


def test_draws_stay_in_their_bounds() -> None:
    random = np.random.default_rng(0)
    draws = [draw_affine(random, degrees=10, translate=0.1, scale=0.25, shear=2.0) for _ in range(2000)]
    for values, low, high in (
        ([d.angle for d in draws], -10, 10),
        ([d.scale for d in draws], 0.75, 1.25),
        ([v for d in draws for v in d.shear], -2, 2),
        ([v for d in draws for v in d.centre], 0.4, 0.6),
    ):
        assert low <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high
    gains = np.array([draw_colour(random, 0.015, 0.7, 0.4) for _ in range(2000)])
    assert gains.min(axis=0) == pytest.approx([0.985, 0.3, 0.6], abs=0.02)
    assert gains.max(axis=0) == pytest.approx([1.015, 1.7, 1.4], abs=0.02)


def test_colour_of_blue_turns_as_blue_does() -> None:
    blue = np.full((1, 1, 3), (255, 0, 0), np.uint8)
    gains = ColourGains(0.75, 1.0, 1.0)  # hue 240 to 180 degrees: cyan
    assert jitter(blue, gains).tolist() == [[[255, 255, 0]]]
    assert jitter(blue, gains, swapped=True).tolist() == [[[255, 0, 0]]]  # red's hue is 0
    assert jitter(blue, ColourGains(1.0, 1.0, 0.5)).tolist() == [[[127, 0, 0]]]
    grey = np.full((2, 2, 3), 90, np.uint8)
    assert np.array_equal(jitter(grey, ColourGains(1.01, 1.7, 1.0)), grey)


@pytest.mark.parametrize("seed", range(6))
def test_mosaic_keeps_labels_on_their_things(seed: int) -> None:
    scenes = [_scene(value=100 + 30 * k, box=(20 + 10 * k, 10, 70 + 10 * k, 60)) for k in range(4)]
    found = mosaic(scenes, (128, 256), np.random.default_rng(seed))
    assert found.image.shape == (256, 512, 3)
    assert {100, 130, 160, 190} & set(np.unique(found.image)) != set()
    for box in found.boxes:
        x1, y1, x2, y2 = box[:4].astype(int)
        assert (found.planes[0][y1:y2, x1:x2] == 1).all()
        assert (found.image[y1:y2, x1:x2] >= 100).all()
        assert len(np.unique(found.image[y1:y2, x1:x2])) == 1
    assert int(found.planes[0].sum()) == int((found.boxes[:, 2:4] - found.boxes[:, :2]).prod(axis=1).sum())


def test_mosaic_touches_one_point_and_is_grey_elsewhere() -> None:
    scenes = [_empty((40, 60), value) for value in (1, 2, 3, 4)]
    random = np.random.default_rng(3)
    found = mosaic(scenes, (128, 256), random)
    colours = found.image[:, :, 0]
    assert set(np.unique(colours)) == {1, 2, 3, 4, 114}
    x1, y1, x2, y2 = _around(colours != 114)
    assert (x2 - x1, y2 - y1) == (120, 80)
    assert 128 <= x1 + 60 <= 384
    assert 64 <= y1 + 40 <= 192
    for row in (y1, y1 + 40):
        assert len(set(np.unique(colours[row, x1:x2]))) == 2


def test_mosaic_of_images_without_any_box() -> None:
    found = mosaic([_empty() for _ in range(4)], (128, 256), np.random.default_rng(0))
    assert found.boxes.shape == (0, 5)
    cut = warp(found, Affine(), (128, 256))
    assert cut.image.shape == (128, 256, 3)
    assert cut.boxes.shape == (0, 5)


def test_mix_blends_pixels_and_keeps_all_labels() -> None:
    first, second = _scene(box=(0, 0, 80, 90), value=100), _scene(box=(40, 0, 160, 90), value=200)
    wider = Scene(second.image, second.boxes, (second.planes[0] << 1, second.planes[0] << 3))
    r = np.random.default_rng(5).beta(32.0, 32.0)
    for one, other, weight in ((first, wider, r), (wider, first, 1 - r)):
        found = mix(one, other, np.random.default_rng(5))
        assert float(found.image[5, 5, 0]) == pytest.approx(100 * weight + 10 * (1 - weight), abs=1.0)
        assert len(found.boxes) == 2
        assert found.planes[0][5, [5, 60, 120]].tolist() == [1, 3, 2]
        assert found.planes[1][5, [5, 60, 120]].tolist() == [0, 8, 8]


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("classes", [1, 2, 8, 11])
def test_planes_give_the_target_back(mode: SegMode, classes: int) -> None:
    random = np.random.default_rng(classes)
    if mode == "binary":
        target = random.integers(0, 2, (1, 16, 24)).astype(np.uint8)
        classes = 1
    elif mode == "multiclass":
        target = random.integers(0, classes + 1, (16, 24)).astype(np.uint8)
    else:
        masks = random.integers(0, 2, (classes, 16, 24)).astype(np.uint8)
        target = np.concatenate([1 - masks.max(axis=0, keepdims=True), masks])
    planes = _planes(target, mode)
    assert len(planes) == -(-classes // 8)
    names = [f"class {k}" for k in range(classes)]
    found = target_of(planes, names, mode)
    assert found.dtype == np.uint8
    assert np.array_equal(found, target)


@pytest.mark.parametrize("lane", [0, 3, 9])
def test_lane_wins_where_masks_were_joined_else_the_later_class(lane: int) -> None:
    names = [f"class {k}" for k in range(10)]
    names[lane] = "lane"
    everything = (np.full((1, 1), 255, np.uint8), np.full((1, 1), 3, np.uint8))
    assert target_of(everything, names, "multiclass").tolist() == [[lane + 1]]
    low = (np.array([[0b110]], np.uint8),)  # classes 1 and 2; the second plane is missing
    assert target_of(low, names, "multiclass").tolist() == [[3]]
    assert target_of((np.full((1, 1), 255, np.uint8), np.zeros((1, 1), np.uint8)), names, "multiclass").tolist() == [
        [lane + 1 if lane < 8 else 8]
    ]
