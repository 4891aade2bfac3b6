"""Labels against the id buffer of the same scene: what is labelled is what is seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tools.synth import Scene, render_scene
from tools.synth.canvas import BONNET, FIRST_OBJECT, GROUND, KERB
from tools.synth.look import sample_look
from tools.synth.randoms import Random
from tools.synth.traffic import LEAST_SEEN

SMALL = (360, 640)
VEHICLES = ("car", "truck", "bus")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(11, "train", index, size=SMALL) for index in range(24)]


def test_boxes_bound_the_visible_pixels_of_their_own_object(scenes: list[Scene]) -> None:
    count = 0
    for scene in scenes:
        for found in scene.objects:
            ys, xs = np.nonzero(scene.ids == found.id)
            assert found.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert found.id >= FIRST_OBJECT
            count += 1
    assert count > 100


def test_every_vehicle_that_shows_well_has_a_box(scenes: list[Scene]) -> None:
    hidden = 0
    for scene in scenes:
        labelled = {found.id for found in scene.objects if found.category in VEHICLES}
        for number, drawn in scene.drawn.items():
            seen = int((scene.ids == number).sum())
            if seen >= max(LEAST_SEEN * drawn, 120):
                assert number in labelled
            elif number in labelled:
                assert seen >= LEAST_SEEN * drawn
            hidden += number not in labelled and drawn > 0
    # vehicles that would hardly show are not drawn at all: what is drawn and has no box must be rare
    assert hidden <= 0.06 * sum(len(scene.drawn) for scene in scenes)


def test_masks_lie_on_visible_ground(scenes: list[Scene]) -> None:
    for scene in scenes:
        for mask in (scene.road, scene.lane):
            assert mask.dtype == np.uint8
            assert mask.shape == SMALL
            assert set(np.unique(mask)) <= {0, 255}
        assert set(np.unique(scene.ids[scene.road > 0])) <= {GROUND}
        assert set(np.unique(scene.ids[scene.lane > 0])) <= {GROUND, KERB}
    assert np.mean([(scene.road > 0).mean() for scene in scenes]) > 0.08
    assert sum(scene.lane.any() for scene in scenes) >= 18


def test_lane_labels_are_as_wide_as_asked() -> None:
    def widths(lane_width: float) -> list[int]:
        found: list[int] = []
        for index in range(6):
            lane = render_scene(11, "train", index, size=SMALL, lane_width=lane_width).lane
            for row in lane[250:300:7]:
                edges = np.flatnonzero(np.diff(np.concatenate([[0], row > 0, [0]]).astype(int)))
                found += list(np.diff(edges)[::2])
        return found

    thin, thick = np.median(widths(4)), np.median(widths(16))
    # half the size of 720 rows: 2 and 8 pixels across the line, more along a row that crosses it at an angle
    assert 2 <= thin <= 8
    assert 2.2 * thin < thick < 6 * thin


def test_the_same_arguments_give_the_same_scene_and_others_do_not() -> None:
    first, again = (render_scene(5, "val", 3, size=SMALL) for _ in range(2))
    assert np.array_equal(first.frame, again.frame)
    assert np.array_equal(first.ids, again.ids)
    assert first.objects == again.objects
    for other in (
        render_scene(6, "val", 3, size=SMALL),
        render_scene(5, "train", 3, size=SMALL),
        render_scene(5, "val", 4, size=SMALL),
    ):
        assert not np.array_equal(first.frame, other.frame)


def test_opencv_threads_do_not_change_a_pixel() -> None:
    before = cv2.getNumThreads()
    frames = []
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            frames.append(render_scene(5, "val", 0).frame)
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(frames[0], frames[1])


def test_scenes_differ_widely(scenes: list[Scene]) -> None:
    """What domain randomisation promises: light, weather, traffic and sizes spread."""
    means = [scene.frame.mean() for scene in scenes]
    assert min(means) < 45
    assert max(means) > 110
    assert len({scene.attributes["weather"] for scene in scenes}) >= 3
    assert {scene.attributes["timeofday"] for scene in scenes} >= {"daytime", "night"}
    counts = [sum(found.category in VEHICLES for found in scene.objects) for scene in scenes]
    assert min(counts) <= 4
    assert 8 <= max(counts) <= 25
    heights = [f.box[3] - f.box[1] for scene in scenes for f in scene.objects if f.category in VEHICLES]
    assert min(heights) < 12
    assert max(heights) > 150
    assert {f.category for scene in scenes for f in scene.objects} >= {"car", "truck", "traffic sign"}
    bonnets = [bool((scene.ids == BONNET).any()) for scene in scenes]
    assert 0 < sum(bonnets) < len(scenes)


def test_the_horizon_and_the_road_are_where_dash_cameras_see_them(scenes: list[Scene]) -> None:
    tops = []
    for scene in scenes:
        rows = np.flatnonzero((scene.road > 0).any(axis=1))
        tops.append(rows[0] / SMALL[0])
    assert 0.38 < np.median(tops) < 0.6


def test_weather_and_light_come_in_many_kinds() -> None:
    looks = [sample_look(Random(key)) for key in range(300)]
    assert {look.weather for look in looks} == {"clear", "partly cloudy", "overcast", "rainy", "snowy", "foggy"}
    assert {look.time for look in looks} == {"daytime", "dawn/dusk", "night"}
    assert 0.2 < np.mean([look.night for look in looks]) < 0.4
    for look in looks:
        for colour in (look.ambient, look.sun, look.zenith, look.horizon, look.haze):
            assert colour.shape == (3,)
            assert np.isfinite(colour).all()
            assert (colour >= 0).all()
        assert look.lamps or not look.night
        assert 0 < look.shadow <= 1
        assert np.linalg.norm(look.direction) == pytest.approx(1, abs=1e-5)
