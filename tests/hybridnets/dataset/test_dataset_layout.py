"""Where the files of a split lie, and what is said when they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hybridnets.dataset import open_split, split_folders
from hybridnets.errors import HnxError
from hybridnets.project import DatasetConfig, Project


def make(root: Path, names: list[str], split: str = "val") -> None:
    for folder, suffix in (("imgs", "jpg"), ("det_annot", "json"), ("da_seg_annot", "png"), ("ll_seg_annot", "png")):
        (root / folder / split).mkdir(parents=True)
        for name in names:
            (root / folder / split / f"{name}.{suffix}").write_text("x")


def test_a_folder_or_the_projects_own_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "datasets", ["b", "a.1"])
    named = open_split(Project(), tmp_path / "datasets")
    assert named.names == ("a.1", "b")
    assert (len(named), named.split) == (2, "val")
    files = named.files("a.1")
    assert files.image == tmp_path / "datasets/imgs/val/a.1.jpg"
    assert files.label == tmp_path / "datasets/det_annot/val/a.1.json"
    assert files.masks == tuple(tmp_path / f"datasets/{x}_seg_annot/val/a.1.png" for x in ("da", "ll"))
    monkeypatch.chdir(tmp_path)
    assert open_split(Project()).files("b").image == Path("datasets/imgs/val/b.jpg")


def test_other_splits_and_what_is_no_label(tmp_path: Path) -> None:
    make(tmp_path, ["x"], "train")
    (tmp_path / "det_annot/train/._x.json").write_text("")
    (tmp_path / "det_annot/train/notes.txt").write_text("")
    assert open_split(Project(), tmp_path, "train").names == ("x",)


def test_images_may_have_other_endings(tmp_path: Path) -> None:
    make(tmp_path, ["x", "y"])
    (tmp_path / "imgs/val/x.png").write_text("")
    (tmp_path / "imgs/val/y.jpg").rename(tmp_path / "imgs/val/y.png")
    split = open_split(Project(), tmp_path)
    assert [split.files(name).image.name for name in "xy"] == ["x.jpg", "y.png"]


@pytest.mark.parametrize("folder", ["imgs", "det_annot", "da_seg_annot", "ll_seg_annot"])
def test_a_missing_folder_is_named(tmp_path: Path, folder: str) -> None:
    make(tmp_path, ["x"])
    (tmp_path / folder / "val").rename(tmp_path / "away")
    with pytest.raises(HnxError, match=f"no folder {tmp_path / folder / 'val'}") as caught:
        open_split(Project(), tmp_path)
    assert "hnx data check" in caught.value.fix
    assert "hnx data synth" in caught.value.fix


def test_empty_and_absent(tmp_path: Path) -> None:
    make(tmp_path, [])
    with pytest.raises(HnxError, match="Split val is empty"):
        open_split(Project(), tmp_path)
    with pytest.raises(HnxError, match="no data set"):
        open_split(Project(), tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(HnxError, match="no data set") as caught:
        open_split(Project(), tmp_path / "file")
    assert caught.value.why == "it is a file"


@pytest.mark.parametrize("split", ["", "/etc", "../val"])
def test_a_split_stays_inside(tmp_path: Path, split: str) -> None:
    with pytest.raises(HnxError, match="no split"):
        split_folders(Project(), tmp_path, split)


def test_roots_that_would_fall_together(tmp_path: Path) -> None:
    project = Project(dataset=DatasetConfig(segroot=("road/masks", "lane/masks")))
    with pytest.raises(HnxError, match="same name"):
        split_folders(project, tmp_path)
    assert split_folders(project).masks == (Path("road/masks/val"), Path("lane/masks/val"))


@pytest.mark.parametrize("count", [1, 3, 7])
def test_shards_make_up_the_whole(tmp_path: Path, count: int) -> None:
    make(tmp_path, [f"{i:02}" for i in range(7)])
    split = open_split(Project(), tmp_path)
    shards = [split.shard(index, count).names for index in range(count)]
    assert sorted(name for names in shards for name in names) == list(split.names)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    with pytest.raises(HnxError, match="no shard"):
        split.shard(count, count)


def test_the_digest_changes_with_anything_that_changes_the_truth(tmp_path: Path) -> None:
    make(tmp_path, ["x", "y"])
    split = open_split(Project(), tmp_path)
    digests = [split.digest(), split.shard(0, 2).digest()]
    assert split.digest() == digests[0]
    digests.append(replace(split, project=Project(classes=("person",))).digest())
    split.files("x").masks[1].write_text("longer")
    digests.append(split.digest())
    split.files("y").image.unlink()
    digests.append(split.digest())
    assert len(set(digests)) == 5
