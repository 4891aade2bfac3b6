from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tools.convert.geometry import GeometryError, Outline, fill, flatten, number, parse_poly2d, stroke

CURVE = [[795.68, 345.23], [628.16, 370.58], [504.73, 482.99], [370.28, 571.15]]


def outline(points: list[list[float]], types: str) -> Outline:
    return parse_poly2d([{"vertices": points, "types": types, "closed": False}])[0]


def test_both_spellings_are_the_same() -> None:
    old = [[x, y, letter] for (x, y), letter in zip(CURVE, "LCCC", strict=True)]
    for spelling in (old, [old], [{"vertices": CURVE, "types": "LCCC"}], {"vertices": CURVE, "types": "LCCC"}):
        (found,) = parse_poly2d(spelling)
        assert found.types == "LCCC"
        np.testing.assert_array_equal(found.points, CURVE)
    assert parse_poly2d(None) == parse_poly2d([]) == []
    assert len(parse_poly2d([{"vertices": CURVE, "types": "LLLL"}] * 3)) == 3
    assert parse_poly2d([{"vertices": CURVE}])[0].types == "LLLL"


@pytest.mark.parametrize(
    "value",
    [
        "text",
        7,
        [7],
        [[]],
        [[1, 2, "L"], {}],
        [{"vertices": None}],
        [{"vertices": [[1, 2]], "types": "L"}],
        [{"vertices": CURVE, "types": "LC"}],
        [{"vertices": CURVE, "types": "LXXL"}],
        [{"vertices": CURVE, "types": 5}],
        [{"vertices": [[1, 2], [3]], "types": "LL"}],
        [{"vertices": [[1, 2], [3, "4"]], "types": "LL"}],
        [{"vertices": [[1, 2], [3, True]], "types": "LL"}],
        [[1, 2, "L"], [3, 4, 5]],
        json.loads("[[1, 2], [NaN, 4]]"),
        json.loads("[[1, 2], [Infinity, 4]]"),
        [[1, 2], [10**400, 4]],
        [[1, 2], [1e300, 4]],
        [[0, 0]] * 10_001,
    ],
)
def test_what_cannot_be_drawn(value: Any) -> None:
    with pytest.raises(GeometryError):
        parse_poly2d(value)


def test_numbers() -> None:
    assert number(3) == 3.0
    assert [number(v) for v in (True, "3", None, [], math.nan, -math.inf, 10**400)] == [None] * 7


@pytest.mark.parametrize("types", ["LCCC", "CCCL", "CCCC", "LCCL"])
def test_four_points_with_a_c_are_one_cubic(types: str) -> None:
    found = flatten(outline(CURVE, types), closed=False)
    points = np.array(CURVE)
    assert len(found) >= 17
    np.testing.assert_allclose(found[[0, -1]], points[[0, 3]])
    middle = (points[0] + 3 * points[1] + 3 * points[2] + points[3]) / 8  # the cubic at one half
    np.testing.assert_allclose(found[len(found) // 2], middle)


def test_two_or_four_straight_points_stay() -> None:
    np.testing.assert_array_equal(flatten(outline(CURVE[:2], "LL"), closed=False), CURVE[:2])
    np.testing.assert_array_equal(flatten(outline(CURVE, "LLLL"), closed=False), CURVE)


def test_cubics_within_a_polygon() -> None:
    square = [[0.0, 0.0], [10, 0], [10, 10], [0, 10]]
    # from (10, 10) over two control points back to the first point, which the closing adds
    found = flatten(outline([[0, 0], [10, 0], [10, 10], [5, 14], [2, 6]], "LLLCC"), closed=True)
    np.testing.assert_allclose(found[:3], square[:3])
    np.testing.assert_allclose(found[-1], [0, 0])
    np.testing.assert_allclose(found[10], (np.array([10, 10]) + 3 * np.array([5, 14]) + 3 * np.array([2, 6])) / 8)
    assert len(flatten(outline(square, "LLLL"), closed=True)) == 5


@pytest.mark.parametrize("low", [10.0, 10.25, 10.5, 10.75])
def test_fill_takes_the_pixels_whose_centre_is_inside(low: float) -> None:
    high = low + 10
    square = np.array([[low, low], [high, low], [high, high], [low, high]])
    for points in (square, square[::-1]):
        mask = fill((40, 50), [points])
        assert mask.shape == (40, 50)
        assert mask.sum() == 100


def test_fill_clips_joins_and_winds() -> None:
    huge = np.array([[-9999.0, -9999], [9999, -9999], [9999, 9999], [-9999, 9999]])
    assert fill((40, 50), [huge]).all()
    assert not fill((40, 50), [huge + 20_000]).any()
    assert not fill((40, 50), []).any()
    a, b = (np.array([[0.0, 0], [20, 0], [20, 20], [0, 20]]) + shift for shift in (0, 10))
    assert fill((40, 50), [a, b]).sum() == 400 + 400 - 100
    twice_around = np.concatenate([a, a])  # even-odd would leave a hole
    assert fill((40, 50), [twice_around]).sum() == 400


def across(mask: np.ndarray[Any, np.dtype[np.bool_]], middle: np.ndarray[Any, Any], degrees: float) -> float:
    """The mean width perpendicular to a line through `middle`, over its inner 300 px."""
    direction = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
    ys, xs = np.nonzero(mask)
    along = (np.stack([xs, ys], axis=1) + 0.5 - middle) @ direction
    return float((np.abs(along) < 150).sum() / 300)


@pytest.mark.parametrize("width", [1, 2, 3, 8])
@pytest.mark.parametrize("degrees", [0, 10, 30, 44, 60, 80, 90])
def test_lines_are_as_wide_as_asked(width: int, degrees: float) -> None:
    for middle in np.array([[640.0, 360.0], [640.5, 360.5], [640.3, 360.7]]):
        half = 250 * np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
        mask = stroke((720, 1280), [np.array([middle - half, middle, middle + half])], width)
        assert across(mask, middle, degrees) == pytest.approx(width, abs=0.08)
        ys, xs = np.nonzero(mask)
        beside = (np.stack([xs, ys], 1).mean(0) + 0.5 - middle) @ (half[1] / 250, -half[0] / 250)
        assert abs(beside) < 0.51  # where it was asked for, to half a pixel


def test_lines_off_the_picture_and_points() -> None:
    assert not stroke((72, 128), [np.array([[500.0, 500], [20_000, 900]])], 8).any()
    assert stroke((72, 128), [np.array([[-20_000.0, 36], [20_000, 36]])], 8).sum() == 8 * 128
    assert 40 < stroke((72, 128), [np.array([[30.0, 30], [30, 30]])], 8).sum() < 60  # a dot: pi 4^2 = 50
    assert not stroke((72, 128), [], 8).any()
