from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from tools.convert.categories import LANE_TYPES
from tools.convert.geometry import GeometryError, stroke
from tools.convert.lanes import Lane, centre_lines, draw_lanes, lane_bits, lanes_of, mask_lanes

BOTH = ("parallel", "vertical")
SIZE = (720, 1280)


def lane(*points: tuple[float, float], kind: str = "single white", direction: str = "parallel") -> Lane:
    return Lane(np.array(points, np.float64), kind, direction)


LEFT, RIGHT = lane((300, 700), (600, 360)), lane((330, 700), (604, 360))


def test_two_edges_become_their_centre() -> None:
    (centre,), pairs = centre_lines([LEFT, RIGHT])
    assert pairs == 1
    np.testing.assert_allclose(centre.points[0], [315, 700])
    np.testing.assert_allclose(centre.points[-1], [602, 360])
    # as far from one edge as from the other
    for point in centre.points[4:-4]:
        gaps = []
        for edge in (LEFT, RIGHT):
            (x0, y0), (x1, y1) = edge.points
            gaps.append(abs((x1 - x0) * (y0 - point[1]) - (x0 - point[0]) * (y1 - y0)) / np.hypot(x1 - x0, y1 - y0))
        assert gaps[0] == pytest.approx(gaps[1], rel=0.12, abs=0.2)


def test_edges_drawn_in_opposite_directions_and_of_other_lengths() -> None:
    upwards = Lane(RIGHT.points[::-1].copy(), RIGHT.type, RIGHT.direction)
    (centre,), _ = centre_lines([LEFT, upwards])
    assert np.abs(np.sort(centre.points[[0, -1], 0]) - [315, 602]).max() < 1e-9
    short = lane((330, 700), (467, 530))  # half of the right edge
    (centre,), pairs = centre_lines([LEFT, short])
    assert pairs == 1
    assert abs(centre.points[-1, 1] - 360) < 8  # as long as the longer one
    steps = np.diff(centre.points, axis=0)
    assert np.abs(np.diff(np.arctan2(steps[:, 1], steps[:, 0]))).max() < 0.15  # without a kink


@pytest.mark.parametrize(
    "other",
    [
        lane((330, 700), (604, 360), kind="single yellow"),
        lane((330, 700), (604, 360), direction="vertical"),
        lane((820, 700), (690, 360)),  # the other side of the ego lane
        lane((304, 358), (604, 20)),  # beyond its end
    ],
)
def test_others_stay_alone(other: Lane) -> None:
    assert centre_lines([LEFT, other]) == ([LEFT, other], 0)


def test_short_far_lines_are_no_pair() -> None:
    stubs = [lane((600, 360), (585, 420)), lane((630, 360), (640, 420))]  # 60 px long, 30 to 55 px apart
    assert centre_lines(stubs) == (stubs, 0)


def test_the_nearest_pair_wins_and_the_third_stays() -> None:
    third = lane((352, 700), (609, 360))
    kept, pairs = centre_lines([third, LEFT, RIGHT])
    assert pairs == 1
    assert len(kept) == 2
    assert any(entry is LEFT for entry in kept)  # 22 px to the third, 30 px to the left one


def test_degenerate_lines_do_not_break_pairing() -> None:
    point = lane((10, 10), (10, 10))
    kept, pairs = centre_lines([point, point, LEFT])
    assert pairs + len(kept) == 3


def v1(kind: Any, direction: Any = "parallel", **extra: Any) -> dict[str, Any]:
    shape = [{"vertices": [[300, 700], [600, 360]], "types": "LL", "closed": False}]
    attributes = {"laneTypes": kind, "laneDirection": direction}
    return {"category": "lane", "attributes": attributes, "poly2d": shape, **extra}


def test_lanes_of_all_spellings() -> None:
    counts: Counter[str] = Counter()
    old = {"category": "lane/road curb", "attributes": {"direction": "vertical"}, "poly2d": [[1, 2, "L"], [3, 4, "L"]]}
    new = {"category": "double white", "attributes": None, "poly2d": v1("x")["poly2d"]}
    found = lanes_of([v1("single white"), old, new, {"category": "car"}], counts)
    kinds = [(entry.type, entry.direction) for entry in found]
    assert kinds == [("single white", "parallel"), ("road curb", "vertical"), ("double white", "parallel")]
    assert not counts


def test_broken_lanes_are_counted() -> None:
    counts: Counter[str] = Counter()
    broken = [v1("single white", poly2d=[{"vertices": [[1, None], [2, 3]], "types": "LL"}])]
    assert lanes_of([v1("blue"), v1(None), v1("road curb", poly2d=None), *broken], counts) == []
    assert counts == {"lanes_unknown_type": 2, "lanes_without_points": 1, "lanes_broken": 1}


def test_choice_of_lanes() -> None:
    lanes = [LEFT, lane((200, 600), (900, 610), kind="crosswalk", direction="vertical")]
    counts: Counter[str] = Counter()
    some = draw_lanes(lanes, SIZE, width=8, types=("single white",), directions=BOTH, pairs=True, counts=counts)
    assert counts["lanes"] == 1
    assert counts["lanes_not_chosen"] == 1
    both = draw_lanes(lanes, SIZE, width=8, types=LANE_TYPES, directions=BOTH, pairs=True, counts=counts)
    assert both.sum() > 1.5 * some.sum()
    parallel = draw_lanes(lanes, SIZE, width=8, types=LANE_TYPES, directions=("parallel",), pairs=True, counts=counts)
    np.testing.assert_array_equal(parallel, some)


def test_pairs_can_be_left_alone() -> None:
    counts: Counter[str] = Counter()
    options: dict[str, Any] = {"types": LANE_TYPES, "directions": BOTH, "counts": counts}
    two = draw_lanes([LEFT, RIGHT], SIZE, width=2, pairs=False, **options)
    one = draw_lanes([LEFT, RIGHT], SIZE, width=2, pairs=True, **options)
    assert two[600].sum() == pytest.approx(2 * one[600].sum(), abs=2)
    assert counts["lanes_from_pairs"] == 1


def test_bits_of_the_official_mask() -> None:
    mask = np.full((4, 8), 255, np.uint8)
    mask[0] = np.arange(8)  # all types, parallel, solid
    mask[1, :2] = (4 + 32, 6 + 16)  # vertical curb, dashed white
    everything = lane_bits(mask, LANE_TYPES, BOTH)
    assert everything[0].all()
    assert everything.sum() == 10
    no_crosswalk = lane_bits(mask, LANE_TYPES[1:], BOTH)
    np.testing.assert_array_equal(no_crosswalk[0], [0, 1, 1, 1, 1, 1, 1, 1])
    assert lane_bits(mask, LANE_TYPES[1:], ("parallel",)).sum() == 8
    assert lane_bits(mask, ("road curb",), ("vertical",)).sum() == 1


def test_masks_of_others_are_refused() -> None:
    with pytest.raises(GeometryError):
        lane_bits(np.array([[255, 127 - 8, 64]], np.uint8), LANE_TYPES, BOTH)


@pytest.mark.parametrize("degrees", [0, 20, 70, 90])
@pytest.mark.parametrize(("width", "tolerance"), [(1, 0.6), (2, 0.6), (3, 0.2), (8, 0.8)])
def test_official_lines_at_another_width(degrees: float, width: int, tolerance: float) -> None:
    middle = np.array([640.3, 360.6])
    half = 250 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    official = stroke(SIZE, [np.array([middle - half, middle + half])], 3)
    found = mask_lanes(official, width)
    area = found.sum() / 500
    assert area == pytest.approx(width, abs=tolerance + width * width / 500)


def test_thin_places_do_not_vanish() -> None:
    thin = np.zeros((40, 60), np.bool_)
    thin[20, 10:50] = True  # one pixel, where the official masks are not 3 px thick
    assert mask_lanes(thin, 2).sum() == 40
