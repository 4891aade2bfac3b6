"""One data set out of several."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hybridnets.dataset import open_split
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import Project
from tools.merge import Part, merge, parse_part

FOLDERS = {"imgs": ".jpg", "da_seg_annot": ".png", "ll_seg_annot": ".png", "det_annot": ".json"}


def make(folder: Path, **splits: str) -> Path:
    """A data set whose files hold where they come from; splits are names apart by spaces."""
    for split, names in splits.items():
        for kind, suffix in FOLDERS.items():
            (folder / kind / split).mkdir(parents=True)
            for name in names.split():
                (folder / kind / split / f"{name}{suffix}").write_text(json.dumps([folder.name, kind, name]))
    return folder


def names(folder: Path, split: str) -> tuple[str, ...]:
    return open_split(Project(), folder, split).names


def test_training_samples_count_as_often_as_asked(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", train="s t", val="v"), make(tmp_path / "b", train="r", val="w")
    report = merge(Project(), [Part(a), Part(b, 3)], tmp_path / "m")
    assert report.samples == {"train": 5, "val": 2}
    assert names(tmp_path / "m", "train") == ("r", "r.x2", "r.x3", "s", "t")
    assert names(tmp_path / "m", "val") == ("v", "w")
    for kind, suffix in FOLDERS.items():
        made = tmp_path / "m" / kind / "train" / f"r.x3{suffix}"
        assert json.loads(made.read_text()) == ["b", kind, "r"]
        assert made.samefile(b / kind / "train" / f"r{suffix}")
    assert report.copied == 0


def test_equal_names_get_their_folder_in_front(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", train="s"), make(tmp_path / "b", train="s")
    merge(Project(), [Part(a), Part(b)], tmp_path / "m")
    assert names(tmp_path / "m", "train") == ("b_s", "s")


def test_names_that_collide_twice(tmp_path: Path) -> None:
    parts = [Part(make(tmp_path / where / "a", train="s")) for where in ("x", "y", "z")]
    with pytest.raises(HnxError, match="a_s"):
        merge(Project(), parts, tmp_path / "m")


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    a = make(tmp_path / "a", train="s t")
    merge(Project(), [Part(a)], tmp_path / "m")
    (tmp_path / "m/det_annot/train/t.json").unlink()
    report = merge(Project(), [Part(a)], tmp_path / "m")
    assert (report.kept, report.samples["train"]) == (1, 2)
    assert names(tmp_path / "m", "train") == ("s", "t")


def test_files_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    a = make(tmp_path / "a", train="s")
    report = merge(Project(), [Part(a)], tmp_path / "m")
    assert (report.copied, report.files) == (4, 4)
    assert json.loads((tmp_path / "m/imgs/train/s.jpg").read_text()) == ["a", "imgs", "s"]


def test_sets_to_measure_on_only(tmp_path: Path) -> None:
    """`hnx data synth --train 0` leaves an empty folder for the split that it was not asked for."""
    a, b = make(tmp_path / "a", train="", val="s t"), make(tmp_path / "b", val="s")
    report = merge(Project(), [Part(a), Part(b)], tmp_path / "m")
    assert report.samples == {"train": 0, "val": 3}
    assert names(tmp_path / "m", "val") == ("b_s", "s", "t")


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    a = make(tmp_path / "a", train="s")
    with pytest.raises(HnxError, match="into itself"):
        merge(Project(), [Part(a)], a)
    with pytest.raises(HnxError, match="no data set"):
        merge(Project(), [Part(tmp_path / "absent")], tmp_path / "m")
    (tmp_path / "empty").mkdir()
    with pytest.raises(HnxError, match="no sample"):
        merge(Project(), [Part(tmp_path / "empty")], tmp_path / "m")
    with pytest.raises(HnxError, match=r"no sample to merge in .*empty"):
        merge(Project(), [Part(a), Part(tmp_path / "empty")], tmp_path / "m")
    assert not (tmp_path / "m").exists()
    with pytest.raises(HnxError) as caught:
        Part(a, 0)
    assert caught.value.code == ExitCode.USAGE


def test_parts_as_text(tmp_path: Path) -> None:
    assert parse_part("a/b*16") == Part(Path("a/b"), 16)
    assert parse_part("a/b") == Part(Path("a/b"))
    (tmp_path / "a*2").mkdir()  # a folder of that very name
    assert parse_part(f"{tmp_path}/a*2") == Part(tmp_path / "a*2")
