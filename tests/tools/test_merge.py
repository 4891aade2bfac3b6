"""One data set out of several."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hybridnets.dataset import open_split
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import Project
from tools.merge import MANIFEST, Part, merge, parse_part

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


def no_links(*_: object) -> None:
    raise OSError(18, "Invalid cross-device link")


def test_files_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    a = make(tmp_path / "a", train="s")
    report = merge(Project(), [Part(a)], tmp_path / "m")
    assert (report.copied, report.files) == (4, 4)
    assert json.loads((tmp_path / "m/imgs/train/s.jpg").read_text()) == ["a", "imgs", "s"]
    report = merge(Project(), [Part(a)], tmp_path / "m")
    assert (report.copied, report.kept) == (0, 1)


def lying(folder: Path) -> dict[str, list[str]]:
    """All files of a data set: folder -> their contents, in the order of their names."""
    places = sorted(p for p in folder.glob("*/*") if p.is_dir())
    return {str(p.relative_to(folder)): [f.read_text() for f in sorted(p.iterdir())] for p in places}


def test_a_folder_named_twice_is_one_part(tmp_path: Path) -> None:
    a = make(tmp_path / "a", train="s", val="v")
    (tmp_path / "link").symlink_to(a)
    report = merge(Project(), [Part(a), Part(tmp_path / "link", 3)], tmp_path / "m")
    assert report.samples == {"train": 4, "val": 1}
    assert names(tmp_path / "m", "train") == ("s", "s.x2", "s.x3", "s.x4")
    assert names(tmp_path / "m", "val") == ("v",)


def test_a_merged_set_counts_as_often_as_asked(tmp_path: Path) -> None:
    """It has samples called s.x2 already."""
    merge(Project(), [Part(make(tmp_path / "a", train="s"), 2)], tmp_path / "m")
    report = merge(Project(), [Part(tmp_path / "m", 2)], tmp_path / "n")
    assert report.samples["train"] == 4
    assert names(tmp_path / "n", "train") == ("s", "s.x2", "s.x2.x2", "s.x3")


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 1)])
def test_other_parts_are_refused_or_replace_the_earlier_ones(tmp_path: Path, before: int, after: int) -> None:
    a, b = make(tmp_path / "a", train="s t", val="v"), make(tmp_path / "b", train="r")
    merge(Project(), [Part(a), Part(b, before)], tmp_path / "m")
    earlier = lying(tmp_path / "m")
    with pytest.raises(HnxError, match="another merged data set") as caught:
        merge(Project(), [Part(a), Part(b, after)], tmp_path / "m")
    assert caught.value.code == ExitCode.USAGE
    assert "--overwrite" in caught.value.fix
    assert lying(tmp_path / "m") == earlier
    report = merge(Project(), [Part(a), Part(b, after)], tmp_path / "m", overwrite=True)
    assert (report.samples, report.removed, report.kept) == ({"train": 2 + after, "val": 1}, 4, 3 + after)
    merge(Project(), [Part(a), Part(b, after)], tmp_path / "fresh")
    assert lying(tmp_path / "m") == lying(tmp_path / "fresh")


@pytest.mark.parametrize("link", [True, False])
def test_a_sample_of_another_source_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: bool) -> None:
    """Both folders have a sample s: the plan of the second call takes it from b, where a's lies."""
    if not link:
        monkeypatch.setattr(os, "link", no_links)
    a, b = make(tmp_path / "a", train="s"), make(tmp_path / "b", train="s")
    merge(Project(), [Part(a)], tmp_path / "m")
    with pytest.raises(HnxError, match="another merged data set"):
        merge(Project(), [Part(b), Part(a)], tmp_path / "m")
    merge(Project(), [Part(b), Part(a)], tmp_path / "m", overwrite=True)
    merge(Project(), [Part(b), Part(a)], tmp_path / "fresh")
    assert lying(tmp_path / "m") == lying(tmp_path / "fresh")


def test_more_parts_and_more_samples_are_taken_in(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", train="s"), make(tmp_path / "b", train="r")
    merge(Project(), [Part(a)], tmp_path / "m")
    report = merge(Project(), [Part(a), Part(b)], tmp_path / "m")
    assert (report.samples["train"], report.kept) == (2, 1)
    for kind, suffix in FOLDERS.items():
        (a / kind / "train" / f"r{suffix}").write_text(json.dumps(["a", kind, "r"]))
    report = merge(Project(), [Part(a), Part(b)], tmp_path / "m")
    assert names(tmp_path / "m", "train") == ("b_r", "r", "s")
    merge(Project(), [Part(a), Part(b)], tmp_path / "fresh")
    assert lying(tmp_path / "m") == lying(tmp_path / "fresh")
    assert (report.samples["train"], report.kept) == (3, 1)


def test_samples_that_a_part_lost_go(tmp_path: Path) -> None:
    a = make(tmp_path / "a", train="s t")
    merge(Project(), [Part(a)], tmp_path / "m")
    (a / "det_annot/train/t.json").unlink()
    report = merge(Project(), [Part(a)], tmp_path / "m")
    assert (report.samples["train"], report.removed) == (1, 4)
    assert names(tmp_path / "m", "train") == ("s",)


def test_a_run_stopped_while_it_replaces_goes_on(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", train="s t"), make(tmp_path / "b", train="r")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    merge(Project(), [Part(a)], tmp_path / "m")
    with pytest.raises(KeyboardInterrupt):
        merge(Project(), [Part(b, 3)], tmp_path / "m", stop, overwrite=True)
    assert merge(Project(), [Part(b, 3)], tmp_path / "m").samples["train"] == 3
    assert names(tmp_path / "m", "train") == ("r", "r.x2", "r.x3")


def test_files_that_no_merge_made_are_never_touched(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", train="s"), make(tmp_path / "b", train="r")
    with pytest.raises(HnxError, match="holds other data") as caught:
        merge(Project(), [Part(a)], b, overwrite=True)
    assert caught.value.code == ExitCode.USAGE
    assert not (b / MANIFEST).exists()
    merge(Project(), [Part(a)], tmp_path / "m")
    (tmp_path / "m/imgs/train/mine.jpg").write_text("mine")
    with pytest.raises(HnxError, match=r"mine\.jpg"):
        merge(Project(), [Part(a)], tmp_path / "m", overwrite=True)


def test_a_merge_without_a_manifest_goes_on(tmp_path: Path) -> None:
    """Made before there was one."""
    a = make(tmp_path / "a", train="s t")
    merge(Project(), [Part(a)], tmp_path / "m")
    (tmp_path / "m" / MANIFEST).unlink()
    assert merge(Project(), [Part(a)], tmp_path / "m").kept == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "hnx data merge", "version": 2, "parts": [], "samples": {}}'])
def test_damaged_manifest(tmp_path: Path, text: str) -> None:
    a = make(tmp_path / "a", train="s")
    merge(Project(), [Part(a)], tmp_path / "m")
    (tmp_path / "m" / MANIFEST).write_text(text)
    with pytest.raises(HnxError, match=MANIFEST) as caught:
        merge(Project(), [Part(a)], tmp_path / "m")
    assert "another folder" in caught.value.fix


def test_two_runs_at_once(tmp_path: Path) -> None:
    a = make(tmp_path / "a", train="s t")

    def again(done: int, total: int) -> None:
        merge(Project(), [Part(a)], tmp_path / "m")

    with pytest.raises(HnxError, match="Another run"):
        merge(Project(), [Part(a)], tmp_path / "m", again)


def test_what_a_killed_copy_left_is_removed(tmp_path: Path) -> None:
    a = make(tmp_path / "a", train="s")
    merge(Project(), [Part(a)], tmp_path / "m")
    left = tmp_path / "m/imgs/train/.s.abcd1234.tmp.jpg"
    left.write_text("half")
    os.utime(left, (0, 0))
    merge(Project(), [Part(a)], tmp_path / "m")
    assert not left.exists()


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
