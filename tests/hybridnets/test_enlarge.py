"""Enlarging a part of a map against PyTorch's enlargement of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybridnets.enlarge import Enlarger


@pytest.mark.parametrize(
    ("source", "factor", "part"),
    [
        ((32, 64), 4, (0, 0, 128, 256)),
        ((96, 160), 4, (12, 0, 360, 640)),
        ((64, 32), 4, (0, 7, 256, 113)),
        ((33, 5), 4, (131, 19, 1, 1)),
        ((1, 1), 4, (0, 0, 4, 4)),
        ((1, 7), 3, (1, 2, 2, 19)),
    ],
)
def test_it_is_the_same_part_of_pytorchs(source: tuple[int, int], factor: int, part: tuple[int, int, int, int]) -> None:
    maps = np.random.default_rng(0).normal(0, 5, (3, *source)).astype(np.float32)
    target = (source[0] * factor, source[1] * factor)
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], scale_factor=float(factor), mode="bilinear", align_corners=True
    )[0].numpy()
    top, left, rows, columns = part
    enlarge = Enlarger(source, target, top, left, (rows, columns))
    for _ in range(2):  # its buffers keep nothing
        found = enlarge(maps)
        assert found.dtype == np.float32
        assert np.abs(found - whole[:, top : top + rows, left : left + columns]).max() < 1e-5


def test_infinite_values_stay_where_they_are() -> None:
    maps = np.zeros((1, 32, 32), np.float32)
    maps[0, 16, 16] = np.nan
    found = Enlarger((32, 32), (128, 128), 0, 0, (128, 128))(maps)
    assert np.isnan(found[0, 65, 65])
    assert np.isfinite(found[0, :32]).all()
