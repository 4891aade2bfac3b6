"""Affine map, box filter and colour jitter with prescribed random numbers, as the original code computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hybridnets.training.augment import Affine, ColourGains, Scene, jitter, warp
from tests import parity

_CASES: list[dict[str, Any]] = parity.data("preprocess/augment.json")
_COLOURS = [case for case in _CASES if case["name"] == "augment_hsv"]
_AFFINES = [case for case in _CASES if case["name"] != "augment_hsv"]
_DRAWS = "unit_random_numbers_in_call_order[persp_x,persp_y,angle,scale,shear_x,shear_y,trans_x,trans_y]"


def _picture() -> Scene:
    """640x360: two ramps and a chequerboard, with an ellipse as mask."""
    y, x = np.mgrid[:360, :640]
    ramps = [np.linspace(0, 255, size).astype(np.uint8) for size in (640, 360)]
    chequers = np.where((x // 40 + y // 40) % 2, 220, 20).astype(np.uint8)
    ellipse = ((x - 320) / 200) ** 2 + ((y - 200) / 100) ** 2 < 1
    return Scene(np.stack([ramps[0][x], ramps[1][y], chequers], axis=-1), np.empty((0, 5)), (ellipse.view(np.uint8),))


def _boxes(rows: list[list[float]]) -> NDArray[np.float64]:
    """From class first to class last."""
    return np.roll(np.array(rows), -1, axis=1)


@pytest.mark.parametrize("case", _AFFINES, ids=lambda case: case["name"])
def test_affine(case: dict[str, Any]) -> None:
    settings = case["settings"]
    angle, scale, shear_x, shear_y, x, y = 2.0 * np.array(case[_DRAWS][2:]) - 1.0
    affine = Affine(
        angle * settings["degrees"],
        1.0 + scale * settings["scale"],
        (shear_x * settings["shear"], shear_y * settings["shear"]),
        (0.5 + x * settings["translate"], 0.5 + y * settings["translate"]),
    )
    picture = _picture()
    found = warp(Scene(picture.image, _boxes(case["targets_in"]), picture.planes), affine)
    expected = _boxes(case["targets_out"])
    assert found.boxes.shape == expected.shape
    assert np.abs(found.boxes - expected).max() < 1e-9
    stats = case["image_stats"]
    assert found.image.size == stats["n"]
    # of linear interpolation, which other builds of OpenCV may round otherwise
    assert float(found.image.mean()) == pytest.approx(stats["mean"], abs=0.02)
    assert float(found.image.std()) == pytest.approx(stats["std"], abs=0.02)
    row = found.image[180, ::64].astype(int)
    assert np.abs(row - case["image_row_180_every_64"]).max() <= 2
    assert int(found.planes[0].sum()) == pytest.approx(case["mask_sum_255"], abs=20)
    assert set(np.unique(found.planes[0])) == {0, 1}


@pytest.mark.parametrize("case", _COLOURS)
def test_colour(case: dict[str, Any]) -> None:
    gains = ColourGains(*(1.0 + np.array(case["draws_in_-1_1"]) * case["gains"]))
    image = np.array(case["in"], np.uint8)
    expected = np.array(case["out"])
    assert np.abs(jitter(image, gains).astype(int) - expected).max() <= 1
    # the recorded image was RGB: seen as BGR, upstream's formulas are those with red and blue exchanged
    swapped = jitter(np.ascontiguousarray(image[:, :, ::-1]), gains, swapped=True)[:, :, ::-1]
    assert np.abs(swapped.astype(int) - expected).max() <= 1
