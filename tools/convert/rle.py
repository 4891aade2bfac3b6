"""COCO's run lengths, as the files rles/drivable_*.json hold them, without pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.convert.geometry import GeometryError

__all__ = ["decode_rle"]


def decode_rle(rle: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask from {"counts": str or list, "size": [height, width]}.

    Runs of background and foreground in turn, down the columns. In text each run is a number of 5 bits a character
    (48 + bits, 32 says that more follow, the last one's 16 is the sign), from the third on as difference to the one
    before the last.

    Args:
        size: (height, width) the mask must have.

    Returns:
        bool (height, width).

    Raises:
        GeometryError: of another size, or the runs do not add up to it.
    """
    if not isinstance(rle, dict):
        raise GeometryError("the RLE is no object")
    if rle.get("size") != [size[0], size[1]]:
        raise GeometryError(f"the RLE is for size {rle.get('size')!r}, not [{size[0]}, {size[1]}]")
    counts = rle.get("counts")
    if isinstance(counts, str):
        runs = _from_text(counts)
    elif isinstance(counts, list) and all(isinstance(run, int) and not isinstance(run, bool) for run in counts):
        runs = counts
    else:
        raise GeometryError("the RLE's counts are neither text nor a list of integers")
    total = size[0] * size[1]
    if any(not 0 <= run <= total for run in runs) or sum(runs) != total:
        raise GeometryError(f"the RLE's runs do not add up to {total} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size[1], size[0]).T


def _from_text(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise GeometryError("the RLE's counts hold a character that cannot be there")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise GeometryError("the RLE's counts end in the middle of a number")
    return runs
