"""The reference and our own steps say the same; how fast they are is measured by `benchmarks.overhead`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import overhead, reference
from hybridnets.anchors import make_anchors
from hybridnets.postprocess import Postprocessor, Prediction
from hybridnets.preprocess import Letterbox, Preprocessor

INPUT = overhead.INPUT
VARIANTS = [
    False,
    pytest.param(True, marks=pytest.mark.skipif(not reference.has_torch(), reason="torch is not installed")),
]


@pytest.fixture(scope="module")
def frame(road_image: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(road_image))
    assert image is not None
    return np.asarray(image, np.uint8)


def same(ours: Prediction, theirs: Prediction) -> None:
    np.testing.assert_allclose(ours.detections.boxes, theirs.detections.boxes, atol=1e-3)
    np.testing.assert_array_equal(ours.detections.scores, theirs.detections.scores)
    np.testing.assert_array_equal(ours.detections.classes, theirs.detections.classes)
    assert ours.segmentation is not None
    assert theirs.segmentation is not None
    np.testing.assert_array_equal(ours.segmentation, theirs.segmentation)


@pytest.mark.parametrize("torch", VARIANTS)
def test_preprocessing_agrees_on_a_real_frame(frame: NDArray[np.uint8], torch: bool) -> None:
    ours, box = Preprocessor(INPUT)(frame)
    theirs = (reference.preprocess_torch if torch else reference.preprocess_numpy)(frame, INPUT)
    assert theirs.shape == ours.shape
    assert theirs.dtype == ours.dtype
    np.testing.assert_allclose(theirs, ours, atol=1e-6)
    assert box == Letterbox.fit((720, 1280), INPUT)


@pytest.mark.parametrize("torch", VARIANTS)
def test_postprocessing_agrees_on_a_busy_street(torch: bool) -> None:
    anchors = make_anchors(INPUT[1], INPUT[0])
    outputs = overhead.synthetic_outputs()
    box = Letterbox.fit((720, 1280), INPUT)
    ours = Postprocessor(anchors, INPUT)(outputs, box)
    same(ours, reference.postprocess(outputs, anchors, box, torch=torch))


@pytest.mark.parametrize("torch", VARIANTS)
@pytest.mark.parametrize("size", [(720, 1280), (500, 333), (97, 640)])
def test_postprocessing_agrees_on_random_outputs(torch: bool, size: tuple[int, int]) -> None:
    random = np.random.default_rng(3)
    target = (128, 256)
    anchors = make_anchors(target[1], target[0])
    count = anchors.shape[1]
    outputs = {
        "regression": random.normal(0, 0.3, (1, count, 4)).astype(np.float32),
        "classification": (random.random((1, count, 2)) ** 8).astype(np.float32),
        "segmentation": random.normal(0, 1, (1, 3, *target)).astype(np.float32),
    }
    box = Letterbox.fit(size, target)
    ours = Postprocessor(anchors, target)(outputs, box)
    assert len(ours.detections) > 5
    same(ours, reference.postprocess(outputs, anchors, box, torch=torch))


def test_no_candidate_gives_no_box() -> None:
    anchors = make_anchors(INPUT[1], INPUT[0])
    outputs = overhead.synthetic_outputs()
    outputs["classification"] = np.zeros_like(outputs["classification"])
    box = Letterbox.fit((720, 1280), INPUT)
    assert len(reference.postprocess(outputs, anchors, box).detections) == 0


def test_synthetic_outputs_are_a_busy_street() -> None:
    outputs = overhead.synthetic_outputs()
    assert (outputs["classification"] > 0.25).sum() == overhead.CANDIDATES
    anchors = make_anchors(INPUT[1], INPUT[0])
    prediction = Postprocessor(anchors, INPUT)(outputs, Letterbox.fit((720, 1280), INPUT))
    assert 60 <= len(prediction.detections) <= 110
    shares = [prediction.mask(index).mean() for index in range(2)]
    assert 0.1 < shares[0] < 0.7
    assert 0.005 < shares[1] < 0.3


def test_the_picture_is_blended_half_and_half(frame: NDArray[np.uint8]) -> None:
    anchors = make_anchors(INPUT[1], INPUT[0])
    outputs = overhead.synthetic_outputs()
    prediction = Postprocessor(anchors, INPUT, conf=1.0)(outputs, Letterbox.fit((720, 1280), INPUT))
    picture = reference.draw(frame, prediction, ("car",))
    road, rest = prediction.mask(0), ~(prediction.mask(0) | prediction.mask(1))
    np.testing.assert_array_equal(picture[rest], frame[rest])
    expected = (frame[road] * 0.5 + np.array(reference.SEG_COLOURS[0]) * 0.5).astype(np.uint8)
    np.testing.assert_array_equal(picture[road], expected)


def test_comparison_takes_turns_without_a_favourite() -> None:
    log: list[str] = []
    now = 0

    def spend(name: str, cost: int) -> None:
        nonlocal now
        log.append(name)
        now += cost

    found = overhead.compare(
        "drawing",
        lambda: spend("a", 1_000_000),
        lambda: spend("b", 4_000_000),
        pairs=4,
        warmup=1,
        clock=lambda: now,
        settle=lambda: log.append("-"),
    )
    # two warm-up calls; then every sample after a pause and an unrecorded call
    assert "".join(log) == "ab" + "-aa-bb-bb-aa" * 2
    assert (found.ours_ms, found.reference_ms, found.ratio, found.met) == (1.0, 4.0, 0.25, False)


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert overhead.main(["--pairs", "1", "--json", str(tmp_path / "o.json")]) == 0
    assert "pre + post" in capsys.readouterr().out
    rows = json.loads((tmp_path / "o.json").read_text())["rows"]
    assert {row["name"] for row in rows} >= {"preprocessing", "postprocessing", "pre + post", "drawing"}
    assert all(len(row["samples_ms"]["ours"]) == 1 for row in rows)
    with pytest.raises(SystemExit, match="2"):
        overhead.main(["--pairs", "0"])
