"""Data sets on disk: layout, resume, refusals, and what goes wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import read_json
from tests.processes import children
from tools.synth import SynthConfig, SynthProgress, generate, render_scene
from tools.synth import writing as writing_module
from tools.synth.config import FOLDERS

SMALL = (144, 256)


def config(folder: Path, train: int = 3, val: int = 1, **options: Any) -> SynthConfig:
    return SynthConfig(folder, train, val, **{"seed": 2, "workers": 1, "size": SMALL, **options})


def files(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_files_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    found = []
    for workers in (1, 2, 4):  # what the command promises
        folder = tmp_path / str(workers)
        report = generate(config(folder, 5, 2, workers=workers))
        assert (report.written, report.kept) == (7, 0)
        found.append(files(folder))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 7 * 4 + 1


def test_layout_and_label_form(tmp_path: Path) -> None:
    generate(config(tmp_path))
    names = {"train": ["train-000000", "train-000001", "train-000002"], "val": ["val-000000"]}
    for split, stems in names.items():
        for folder, suffix in FOLDERS.items():
            assert sorted(path.name for path in (tmp_path / folder / split).iterdir()) == [s + suffix for s in stems]
    scene = render_scene(2, "train", 0, size=SMALL)
    label = read_json(tmp_path / "det_annot" / "train" / "train-000000.json")
    assert label["name"] == "train-000000"
    assert set(label["attributes"]) == {"weather", "scene", "timeofday"}
    (frame,) = label["frames"]
    assert frame["timestamp"] == 10000
    assert len(frame["objects"]) == len(scene.objects)
    for number, (found, known) in enumerate(zip(frame["objects"], scene.objects, strict=True)):
        assert found["category"] == known.category
        assert found["id"] == number
        assert set(found["attributes"]) == {"occluded", "truncated", "trafficLightColor"}
        box = found["box2d"]
        assert (box["x1"], box["y1"], box["x2"], box["y2"]) == known.box
        assert 0 <= box["x1"] < box["x2"] <= SMALL[1]
        assert 0 <= box["y1"] < box["y2"] <= SMALL[0]
    for folder, known_mask in (("da_seg_annot", scene.road), ("ll_seg_annot", scene.lane)):
        mask = cv2.imread(str(tmp_path / folder / "train" / "train-000000.png"), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, known_mask)
    picture = cv2.imread(str(tmp_path / "imgs" / "train" / "train-000000.jpg"))
    assert picture is not None
    assert picture.shape == (*SMALL, 3)
    assert np.abs(picture.astype(int) - scene.frame).mean() < 8


def test_the_manifest_says_what_was_made(tmp_path: Path) -> None:
    report = generate(config(tmp_path))
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["complete"] is True
    assert manifest["scenes"] == {"train": 3, "val": 1}
    assert manifest["seed"] == 2
    assert manifest["lane_width_px"] == 8.0
    counted = manifest["objects"]["train"], manifest["objects"]["val"]
    assert sum(sum(one.values()) for one in counted) == sum(report.objects.values()) > 0


def test_a_second_run_keeps_what_is_there_and_makes_what_is_missing(tmp_path: Path) -> None:
    generate(config(tmp_path))
    before = files(tmp_path)
    (tmp_path / "det_annot" / "train" / "train-000001.json").unlink()
    (tmp_path / "imgs" / "val" / "val-000000.jpg").unlink()
    leftover = tmp_path / "imgs" / "train" / ".train-000001.abcdefgh.tmp.jpg"
    leftover.write_bytes(b"half a picture")
    os.utime(leftover, (1e9, 1e9))
    seen: list[SynthProgress] = []
    report = generate(config(tmp_path), seen.append)
    assert (report.written, report.kept) == (2, 2)
    assert [state.done for state in seen] == [2, 3, 4]
    assert {state.total for state in seen} == {4}
    assert files(tmp_path) == before


def test_a_data_set_may_grow_but_not_change(tmp_path: Path) -> None:
    generate(config(tmp_path))
    report = generate(config(tmp_path, 4, 1))
    assert (report.written, report.kept) == (1, 4)
    with pytest.raises(HnxError, match="another generated data set") as caught:
        generate(config(tmp_path, 4, 1, seed=3))
    assert "seed 2 instead of 3" in caught.value.why
    assert caught.value.code == ExitCode.USAGE
    with pytest.raises(HnxError, match="another generated data set"):
        generate(config(tmp_path, 2, 1))
    with pytest.raises(HnxError, match="another generated data set"):
        generate(config(tmp_path, 4, 1, lane_width=2.0))
    assert generate(config(tmp_path, 2, 1, seed=3, overwrite=True)).written == 3
    assert len(files(tmp_path)) == 3 * 4 + 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_peoples_data_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    theirs = tmp_path / "imgs" / "train" / "0000f77c-6257be58.jpg"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"a picture")
    with pytest.raises(HnxError, match="holds other data") as caught:
        generate(config(tmp_path, overwrite=overwrite))
    assert "imgs" in caught.value.why
    assert list(files(tmp_path)) == ["imgs/train/0000f77c-6257be58.jpg"]


def test_a_foreign_manifest_is_other_data(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(HnxError, match="holds other data"):
        generate(config(tmp_path))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(HnxError, match="not valid JSON"):
        generate(config(tmp_path))


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("")
    with pytest.raises(HnxError, match="it is a file"):
        generate(config(path))


@pytest.mark.parametrize(("code", "workers"), [(errno.ENOSPC, 1), (errno.EROFS, 1), (errno.ENOTDIR, 2)])
def test_disk_errors_are_one_sentence_and_leave_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, workers: int
) -> None:
    blocked = tmp_path / "imgs" / "train"

    def begin(state: SynthProgress) -> None:
        # a worker imports its own modules: its failure has to come from the disk itself
        if workers == 2 and state.done == 0:
            blocked.rmdir()
            blocked.write_text("in the way")

    if workers == 1:
        monkeypatch.setattr(writing_module, "write_bytes", lambda path, data: _fail(path, code))
    with pytest.raises(HnxError, match="Cannot write") as caught:
        generate(config(tmp_path, workers=workers), begin)
    assert caught.value.code == ExitCode.FAILED
    assert read_json(tmp_path / "manifest.json")["complete"] is False
    assert not list(tmp_path.rglob("*.tmp*"))


def _fail(path: Path, code: int) -> None:
    from hybridnets.errors import from_os_error

    raise from_os_error(f"Cannot write {path}", OSError(code, os.strerror(code), str(path)))


def test_a_killed_worker_is_one_sentence_and_the_next_run_goes_on(tmp_path: Path) -> None:
    before = children()  # what earlier tests of this process left behind

    def kill(state: SynthProgress) -> None:
        if state.done == 2:
            os.kill(min(children() - before), signal.SIGKILL)

    with pytest.raises(HnxError, match="worker process died while it was working on") as caught:
        generate(config(tmp_path, 40, 1, workers=2), kill)
    assert "SIGKILL" in caught.value.why
    assert "run it again" in caught.value.fix
    assert children() <= before
    assert read_json(tmp_path / "manifest.json")["complete"] is False
    assert generate(config(tmp_path, 40, 1)).kept >= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_stopping_leaves_whole_files_and_no_process(tmp_path: Path, workers: int) -> None:
    def stop(state: SynthProgress) -> None:
        if state.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(config(tmp_path, 90, 1, workers=workers), stop)
    assert children() == set()
    assert not list(tmp_path.rglob("*.tmp*"))
    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_text())
    done = len(list((tmp_path / "det_annot").rglob("*.json")))
    assert 2 <= done < 91
    # nothing that was begun is left half-way
    assert len(list((tmp_path / "imgs").rglob("*.jpg"))) == done


def test_two_runs_share_a_folder_only_for_the_same_scenes(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    alone = tmp_path / "alone"
    generate(config(alone))
    shared = tmp_path / "shared"
    seen: list[int] = []

    def meanwhile(state: SynthProgress) -> None:
        if state.done == 1 and not seen:
            seen.append(state.done)
            with pytest.raises(HnxError, match="Another run writes"):
                generate(config(shared, seed=3, overwrite=True))
            with pytest.raises(HnxError, match="another generated data set"):
                generate(config(shared, seed=3))
            assert generate(config(shared)).written == 3

    assert generate(config(shared), meanwhile).written == 4
    assert seen == [1]
    assert files(shared) == files(alone)
    generate(config(shared, seed=3, overwrite=True))


def test_a_folder_in_the_place_of_a_file_is_no_scene(tmp_path: Path) -> None:
    generate(config(tmp_path))
    path = tmp_path / "imgs" / "train" / "train-000001.jpg"
    path.unlink()
    path.mkdir()
    with pytest.raises(HnxError, match=path.name):
        generate(config(tmp_path))
    path.rmdir()
    assert generate(config(tmp_path)).written == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": -1}, "--train -1"),
        ({"val": 2_000_000}, "--val 2000000"),
        ({"train": 0, "val": 0}, "nothing to generate"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**63}, "--seed"),
        ({"workers": 0}, "--workers 0"),
        ({"size": (10, 256)}, "Size 256x10"),
        ({"lane_width": 0.5}, "--lane-width 0.5"),
        ({"lane_width": float("nan")}, "--lane-width nan"),
    ],
)
def test_bad_options_are_refused_before_work(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(HnxError, match=words) as caught:
        config(tmp_path, **options)
    assert caught.value.code == ExitCode.USAGE
    assert caught.value.fix


def test_processes_never_outnumber_scenes(tmp_path: Path) -> None:
    assert config(tmp_path, 1, 1, workers=16).processes == 2
    assert config(tmp_path, 100, 0, workers=3).processes == 3
    assert config(tmp_path, 100, 0, workers=None).processes >= 1


@pytest.mark.parametrize("content", ["[]", '{"frames": []}', '{"frames": [{"objects": [{"id": 1}]}]}', "{"])
def test_a_damaged_label_is_named(tmp_path: Path, content: str) -> None:
    generate(config(tmp_path))
    path = tmp_path / "det_annot" / "train" / "train-000001.json"
    path.write_text(content)
    with pytest.raises(HnxError, match=r"train-000001\.json") as caught:
        generate(config(tmp_path))
    assert caught.value.fix == "delete it and run the same command again"
    path.unlink()
    assert generate(config(tmp_path)).written == 1


def test_overwrite_makes_the_same_data_set_anew(tmp_path: Path) -> None:
    generate(config(tmp_path))
    before = files(tmp_path)
    (tmp_path / "imgs" / "train" / "train-000000.jpg").write_bytes(b"no picture")
    (tmp_path / "det_annot" / "train" / "train-000001.json").write_text("{")
    report = generate(config(tmp_path, overwrite=True))
    assert (report.written, report.kept) == (4, 0)
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["imgs/train/train-000000.jpg", "det_annot/val/val-000000.json"])
def test_an_empty_file_is_made_again(tmp_path: Path, name: str) -> None:
    generate(config(tmp_path))
    before = files(tmp_path)
    (tmp_path / name).write_bytes(b"")
    assert generate(config(tmp_path)).written == 1
    assert files(tmp_path) == before
