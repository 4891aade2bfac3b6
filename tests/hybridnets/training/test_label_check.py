"""What is said of masks before a run, and which files are looked at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hybridnets.dataset import Split, open_split
from hybridnets.errors import HnxError
from hybridnets.training import begin
from hybridnets.training.label_check import check_masks, spread
from hybridnets.training.trainer import train
from tests.hybridnets.training.tiny import SIZE, config, make_data, project


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return open_split(project(), make_data(tmp_path / "data", train=3, val=1), "train")


def fill(split: Split, kind: int, value: int) -> None:
    for name in split.names:
        cv2.imwrite(str(split.files(name).masks[kind]), np.full(SIZE, value, np.uint8))


def test_masks_that_are_all_empty_or_all_full_are_told(split: Split) -> None:
    notes: list[str] = []
    check_masks(split, notes.append)
    assert not notes
    fill(split, 0, 0)
    fill(split, 1, 1)
    split.files(split.names[0]).masks[1].write_bytes(b"no picture")
    check_masks(split, notes.append)
    assert len(notes) == 2
    assert notes[0].startswith("not one of 3 masks")
    assert "marks a pixel of road" in notes[0]
    assert notes[1].startswith("each of 2 masks")
    assert "the whole image as lane" in notes[1]


def test_one_good_mask_is_enough(split: Split) -> None:
    notes: list[str] = []
    good = split.files(split.names[1]).masks[0].read_bytes()
    fill(split, 0, 0)
    split.files(split.names[1]).masks[0].write_bytes(good)
    check_masks(split, notes.append)
    assert not notes


def test_files_of_the_whole_split_are_looked_at() -> None:
    names = [f"{index:03d}" for index in range(599)]
    chosen = spread(names, 300)
    assert len(set(chosen)) == 300
    assert chosen[0] == "000"
    assert chosen[-1] == "597"
    assert spread(names[:5], 300) == names[:5]


def test_a_run_looks_at_the_masks_it_learns_from(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(*_: object) -> None:
        raise HnxError("Masks were looked at")

    monkeypatch.setattr(begin, "check_masks", seen)
    with pytest.raises(HnxError, match="Masks were looked at"):
        train(config(split.labels.parents[1], tmp_path / "run"))
