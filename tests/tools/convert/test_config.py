from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridnets.errors import ExitCode, HnxError
from tools.convert import ConvertConfig


@pytest.mark.parametrize(
    "options",
    [
        {"splits": ("test",)},
        {"drivable": "all"},
        {"drivable_ids": "2019"},
        {"images": "move"},
        {"ignored": "keep"},
        {"names": "2020"},
        {"boxes_kind": "voc", "boxes": "x"},
        {"boxes_kind": "coco"},
        {"boxes_kind": "yolo", "boxes": "x"},
        {"lane_types": ("single wite",)},
        {"lane_types": ()},
        {"lane_directions": ()},
        {"lane_directions": ("up",)},
        {"lane_widths": {"train": 8}},
        {"lane_widths": {"train": 8, "val": 0}},
        {"lane_widths": {"train": 8, "val": 2, "test": 2}},
        {"workers": -1},
    ],
)
def test_values_that_cannot_be(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(HnxError) as caught:
        ConvertConfig(tmp_path, tmp_path / "out", **options)
    assert caught.value.code == ExitCode.USAGE


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HnxError, match="no folder"):
        ConvertConfig(tmp_path / "missing", tmp_path / "out")
    with pytest.raises(HnxError, match="no folder"):
        ConvertConfig(tmp_path / "file", tmp_path / "out")
    with pytest.raises(HnxError, match="it is a file"):
        ConvertConfig(tmp_path, tmp_path / "file")
    with pytest.raises(HnxError, match="itself"):
        ConvertConfig(tmp_path, tmp_path / "." / "x" / "..")


def test_options_that_decide_the_output(tmp_path: Path) -> None:
    one = ConvertConfig(tmp_path, tmp_path / "out", workers=3, images="copy").options()
    assert one == ConvertConfig(tmp_path, tmp_path / "other").options()
    assert one != ConvertConfig(tmp_path, tmp_path / "out", lane_pairs=False).options()
