from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tools.convert.geometry import GeometryError
from tools.convert.rle import decode_rle


def test_text_against_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(5)
    for height, width in ((1, 1), (7, 5), (72, 128), (720, 1280)):
        for threshold in (0.0, 0.02, 0.5, 1.0):
            mask = random.random((height, width)) < threshold
            text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
            found = decode_rle({"counts": text, "size": [height, width]}, (height, width))
            np.testing.assert_array_equal(found, mask)


def test_runs_go_down_the_columns() -> None:
    found = decode_rle({"counts": [1, 3, 2], "size": [2, 3]}, (2, 3))
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize(
    "rle",
    [
        None,
        "text",
        {},
        {"counts": [6], "size": [3, 2]},
        {"counts": [6], "size": [2, 3, 1]},
        {"counts": [5], "size": [2, 3]},
        {"counts": [7], "size": [2, 3]},
        {"counts": [-1, 7], "size": [2, 3]},
        {"counts": [10**30, -(10**30), 6], "size": [2, 3]},
        {"counts": [True, 5], "size": [2, 3]},
        {"counts": "\x00\x01", "size": [2, 3]},
        {"counts": "é", "size": [2, 3]},
        {"counts": "ooooooooooooooooooooooooooooooooo", "size": [2, 3]},
        {"counts": "P", "size": [2, 3]},
        {"counts": "", "size": [2, 3]},
    ],
)
def test_damaged(rle: Any) -> None:
    with pytest.raises(GeometryError):
        decode_rle(rle, (2, 3))
