"""Camera, road and drawing order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tools.synth.camera import RoadShape, sample_camera, sample_shape
from tools.synth.canvas import Canvas
from tools.synth.order import Item, painted_order
from tools.synth.plan import LEGIBLE, OUTER, Plan, sample_plan
from tools.synth.randoms import Random, scene_random


@pytest.mark.parametrize("key", range(12))
def test_ground_maps_invert_the_projection(key: int) -> None:
    random = Random(key)
    camera = sample_camera(random, 360, 640, high=key % 3 == 0)
    shape = sample_shape(random, camera, sharpest=120.0)
    maps = camera.ground(shape)
    s = np.array([4.0, 9.0, 20.0, 45.0], np.float32)
    d = np.array([-0.8, 1.5, -3.0, 4.0], np.float32)
    pixels, depth = camera.project(shape.world(s, d))
    assert (depth > 0).all()
    checked = 0
    for (x, y), want_s, want_d in zip(pixels, s, d, strict=True):
        column, row = round(float(x)), round(float(y)) - maps.top
        if 0 <= column < 640 and 0 <= row < maps.s.shape[0]:
            # a pixel's error of half a row is s^2 / (focal * height) metres
            slack = want_s**2 / (camera.focal * camera.height) + 0.05
            assert abs(maps.s[row, column] - want_s) < slack
            assert abs(maps.d[row, column] - want_d) < 0.02 * want_s + 0.1
            assert maps.seen[row, column]
            checked += 1
    assert checked >= 2


def test_a_crest_hides_the_road_behind_it() -> None:
    camera = sample_camera(Random(1), 360, 640, high=False)
    flat = RoadShape(0, 0, 0, 150, 400)
    for key in range(200):
        shape = sample_shape(Random(key), camera, sharpest=120.0)
        table = np.geomspace(1, shape.far, 500)
        sinking = (camera.height - shape.level(table)) / table
        assert (np.diff(sinking) < 0).all(), "a ray must meet the road once only"
    assert camera.row_of(flat, 10.0) > camera.row_of(flat, 100.0)


@pytest.mark.parametrize("key", range(30))
def test_a_plan_covers_the_ground_without_gaps(key: int) -> None:
    plan = sample_plan(Random(key), snow=key % 2)
    strips = plan.strips
    assert strips[0].left == -OUTER
    assert strips[-1].right == OUTER
    for a, b in itertools.pairwise(strips):
        assert a.right == pytest.approx(b.left, abs=1e-6)
    assert plan.left < 0 < plan.right
    assert plan.paved_left <= plan.left
    assert plan.paved_right >= plan.right
    road = [strip for strip in strips if strip.kind == "road"]
    assert road[0].left == pytest.approx(plan.left)
    assert road[-1].right == pytest.approx(plan.right)
    ours = [lane for lane in plan.lanes if lane.direction > 0]
    assert 1 <= len(ours) <= 6
    assert any(abs(lane.centre) < lane.width / 2 for lane in ours)


def borders(plan: Plan) -> list[tuple[float, str]]:
    """Where the drivable area begins and ends, and the kind of ground beside it."""
    pairs = itertools.pairwise(plan.strips)
    changes = [(a, b) for a, b in pairs if (a.kind == "road") != (b.kind == "road")]
    return [(a.right, b.kind if a.kind == "road" else a.kind) for a, b in changes]


@pytest.mark.parametrize("key", range(200))
def test_a_picture_shows_where_the_drivable_area_ends(key: int) -> None:
    plan = sample_plan(Random(key), snow=0.0)
    found = borders(plan)
    assert len(found) == 2
    for d, beside in found:
        painted = any(abs(line.d - d) < 0.15 and line.seen >= LEGIBLE for line in plan.lines)
        assert painted or beside in ("pavement", "verge"), (d, beside)


def item(s: tuple[float, float], d: tuple[float, float], log: list[str], name: str) -> Item:
    def draw(canvas: Canvas) -> None:
        log.append(name)

    # where a camera at 0, 0 sees it: x = d / s, from its near to its far end
    edges = [across / along for across in d for along in s]
    return Item(s, d, (min(edges), 0, max(edges), 1), draw)


def test_what_hides_is_drawn_later() -> None:
    log: list[str] = []
    items = [
        item((10, 14), (-1, 1), log, "near car"),
        item((5, 60), (8, 9), log, "long wall"),
        item((30, 34), (-1, 1), log, "far car"),
        item((20, 24), (11, 13), log, "car behind the wall"),
        item((20, 24), (5, 7), log, "car before the wall"),
    ]
    canvas = Canvas(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint16))
    for one in painted_order(items):
        one.draw(canvas)
    assert sorted(log) == sorted(["near car", "long wall", "far car", "car behind the wall", "car before the wall"])
    assert log.index("far car") < log.index("near car")
    assert log.index("car behind the wall") < log.index("long wall") < log.index("car before the wall")
    assert painted_order([]) == []


def test_random_streams_are_independent_of_each_other() -> None:
    one, two = scene_random(1, "train", 0), scene_random(1, "train", 0)
    one.uniform(0, 1)
    assert one.child("a").uniform(0, 1) == two.child("a").uniform(0, 1)
    assert one.child("a").uniform(0, 1) != one.child("b").uniform(0, 1)
    with pytest.raises(ValueError, match="negative"):
        scene_random(-1, "train", 0)


def test_weights_are_shares() -> None:
    random = Random(3)
    picks = [random.weighted({"a": 3.0, "b": 1.0, "never": 0.0}) for _ in range(400)]
    assert picks.count("never") == 0
    assert 0.68 < picks.count("a") / 400 < 0.82
