from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hybridnets.errors import HnxError
from tests.tools.convert.builders import FIXTURES
from tools.convert.drivable import MASK_IDS, draw_areas, guess_ids, mask_area, read_grey
from tools.convert.geometry import GeometryError

SIZE = (72, 128)
SQUARE = [[10, 10], [30, 10], [30, 30], [10, 30]]


def area(kind: str, shift: int = 0, **extra: Any) -> dict[str, Any]:
    vertices = [[x + shift, y] for x, y in SQUARE]
    return {"category": kind, "poly2d": [{"vertices": vertices, "types": "LLLL", "closed": True}], **extra}


def draw(*labels: dict[str, Any], alternative: bool = True) -> tuple[int, Counter[str]]:
    counts: Counter[str] = Counter()
    return int(draw_areas(labels, SIZE, alternative=alternative, counts=counts).sum()), counts


def test_direct_and_alternative() -> None:
    both = area("direct"), area("alternative", 10)
    assert draw(*both)[0] == 600
    assert draw(*both, alternative=False)[0] == 400  # direct wins where both lie
    assert draw(area("area/unknown"))[0] == 0
    assert draw(area("area/unknown"))[1] == {"areas_unknown": 1}


def test_seg2d_null_and_damage() -> None:
    old = {"category": "area/drivable", "seg2d": [[[x, y, "L"] for x, y in SQUARE]]}
    assert draw(old)[0] == 400
    total, counts = draw(area("direct", poly2d=None), area("direct", poly2d=[[1, "x"]]), area("alternative"))
    assert total == 400
    assert counts == {"areas_without_points": 1, "areas_broken": 1, "areas": 1}
    with pytest.raises(GeometryError):
        draw({"category": "direct", "rle": {"counts": [5], "size": [1, 5]}})


def test_masks_of_both_numberings() -> None:
    new = np.array([[0, 1, 2]], np.uint8)
    assert mask_area(new, MASK_IDS["2020"], alternative=True).tolist() == [[True, True, False]]
    assert mask_area(new, MASK_IDS["2020"], alternative=False).tolist() == [[True, False, False]]
    assert mask_area(new, MASK_IDS["2018"], alternative=True).tolist() == [[False, True, True]]
    assert mask_area(new, MASK_IDS["2018"], alternative=False).tolist() == [[False, True, False]]
    with pytest.raises(GeometryError):
        mask_area(np.array([[255]], np.uint8), MASK_IDS["2020"], alternative=True)


def masks(folder: Path, background: int, count: int = 3) -> list[Path]:
    folder.mkdir()
    paths = []
    for index in range(count):
        mask = np.full(SIZE, background, np.uint8)
        mask[50:, 40:80] = 1
        paths.append(folder / f"{index}.png")
        cv2.imwrite(str(paths[-1]), mask)
    return paths


def test_numbering_is_recognised(tmp_path: Path) -> None:
    old, new = masks(tmp_path / "old", 0), masks(tmp_path / "new", 2)
    assert guess_ids(old, None)[0] == guess_ids(old, "2018")[0] == "2018"
    assert guess_ids(new, None) == ("2020", "by background values of 3 masks")


def test_numbering_is_never_guessed(tmp_path: Path) -> None:
    old, new, odd = masks(tmp_path / "old", 0), masks(tmp_path / "new", 2), masks(tmp_path / "odd", 1)
    for paths, named in ((old + new, None), (new, "2018"), (odd, None)):
        with pytest.raises(HnxError, match="not clear") as caught:
            guess_ids(paths, named)
        assert "--drivable-ids" in caught.value.fix


def test_masks_that_are_others(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full(SIZE, 255, np.uint8))
    with pytest.raises(HnxError, match="no drivable mask"):
        guess_ids([tmp_path / "a.png"], None)
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(HnxError, match="colour map"):
        guess_ids([tmp_path / "b.png"], None)


def test_damaged_masks(tmp_path: Path) -> None:
    good = next((FIXTURES / "v2020/labels/drivable/masks/train").iterdir()).read_bytes()
    for name, data in (("cut", good[: len(good) // 2]), ("end", good[:-13]), ("empty", b""), ("text", b"hello")):
        path = tmp_path / f"{name}.png"
        path.write_bytes(data)
        with pytest.raises(HnxError, match="Cannot read mask"):
            read_grey(path)
        assert guess_ids([*masks(tmp_path / name, 2), path], None)[0] == "2020"  # one bad one is no vote
    with pytest.raises(HnxError, match="Cannot read mask"):
        read_grey(tmp_path / "missing.png")
    with pytest.raises(HnxError, match="not clear"):
        guess_ids([tmp_path / "cut.png"], None)
