from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hnx.__main__ import main
from hnx.commands import data_convert
from hybridnets.errors import HnxError
from tests.tools.convert.builders import det_frame, dump, image, outputs, own_frames, unpack
from tools.convert import engine
from tools.convert.frame import output_files
from tools.convert.journal import MANIFEST

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path) -> int:
    return main(["data", "convert", "--workers", "0", *map(str, arguments)])


def test_everything_is_found_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = unpack(tmp_path / "downloads", "v2020")
    assert run(root, tmp_path / "out") == 0
    out = capsys.readouterr().out
    for text in (
        "det_20 (2020)",
        "masks, numbering of 2020",
        "polygons (2020)",
        "train: 2 frames, road = direct+alternative, lanes 8 px wide",
        "val: 2 frames, road = direct+alternative, lanes 2 px wide",
        "12 boxes written",
        "4 of these joined from two edges",
        "4 frames in",
    ):
        assert text in out
    assert len(outputs(tmp_path / "out")) == 16


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = unpack(tmp_path / "downloads", "v1")
    assert run(root, tmp_path / "out", "--dry-run", "--drivable", "direct", "--split", "val") == 0
    out = capsys.readouterr().out
    assert "single JSON (v1, 2018-08-28)" in out
    assert "numbering of 2018 (by file names and background values of 2 masks)" in out
    assert "val: 2 frames, road = direct, lanes 2 px wide" in out
    assert "train" not in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "widths"),
    [("8", (8, 8)), ("train=4,val=3", (4, 3)), ("val=5", (8, 5)), ("val=5,train=6", (6, 5))],
)
def test_lane_widths(tmp_path: Path, text: str, widths: tuple[int, int]) -> None:
    assert run(unpack(tmp_path / "in", "v0"), tmp_path / "out", "--lane-width", text) == 0
    splits = json.loads((tmp_path / "out" / MANIFEST).read_text())["splits"]
    assert (splits["train"]["lane_width"], splits["val"]["lane_width"]) == widths


@pytest.mark.parametrize(
    "arguments",
    [
        ["--lane-width", "wide"],
        ["--lane-width", "train=8;val=2"],
        ["--lane-width", "0"],
        ["--lane-width", "test=3"],
        ["--lane-types", "single wite"],
        ["--lane-types", ","],
        ["--boxes", "voc", "x"],
        ["--boxes", "yolo", "x"],
        ["--drivable", "all"],
        ["--split", "test"],
        ["--workers", "-1"],
        ["--images", "move"],
    ],
)
def test_usage_errors(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, tmp_path / "out", *arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_options_reach_the_converter(tmp_path: Path) -> None:
    options = "--lane-types all --lane-direction parallel --no-lane-pairs --ignored mark --category-names keep"
    assert run(unpack(tmp_path / "in", "v2020"), tmp_path / "out", *options.split(), "--images", "copy") == 0
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert len(manifest["options"]["lane_types"]) == 8
    assert manifest["options"]["lane_directions"] == ["parallel"]
    val = manifest["splits"]["val"]
    assert "lanes_from_pairs" not in val["counts"]
    assert (val["counts"]["lanes"], val["counts"]["lanes_not_chosen"]) == (10, 2)
    assert val["counts"]["boxes_marked_ignored"] == 2
    assert val["counts"]["image_copy"] == 2
    label = json.loads(next((tmp_path / "out/det_annot/val").iterdir()).read_text())
    assert "pedestrian" in {entry["category"] for entry in label["frames"][0]["objects"]}


def test_missing_downloads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image(tmp_path / "in/images/100k/val/a.jpg")
    assert run(tmp_path / "in", tmp_path / "out") == 1
    err = capsys.readouterr().err
    for text in ("The val split lacks boxes and drivable and lanes", "'Detection 2020 Labels'", "md5", "https://"):
        assert text in err
    assert run(tmp_path / "nowhere", tmp_path / "out") == 1


def test_broken_json_names_byte_and_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = own_frames(tmp_path / "in", ["a", "b"])
    path = root / "labels/det_20/det_val.json"
    text = path.read_text()
    at = text.index('"b.jpg"')
    path.write_text(text[:at] + text[at + 1 :])
    assert run(root, tmp_path / "out", "--empty-masks") == 1
    err = capsys.readouterr().err
    assert f"byte {at}" in err
    assert "in element 1 (the one after 'a.jpg')" in err
    assert not (tmp_path / "out").exists()


def test_hostile_names_write_nothing_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = own_frames(tmp_path / "in", ["a"])
    names = ["../../x.jpg", "/tmp/x.jpg", "a/../../x.jpg", "x\u001b[31m.jpg", "..", ""]
    dump(root / "labels/det_20/det_val.json", [det_frame("a.jpg"), *map(det_frame, names)])
    assert run(root, tmp_path / "out", "--empty-masks") == 0
    captured = capsys.readouterr()
    assert "6 (a name that cannot be a file name)" in captured.out
    assert "\u001b[31m" not in captured.out + captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert len(outputs(tmp_path / "out")) == 4


def test_coco_and_yolo(tmp_path: Path) -> None:
    image(tmp_path / "in/a.jpg")
    whole = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "car"}]}
    coco = dump(
        tmp_path / "c.json", {**whole, "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]}
    )
    common = ["--split", "train", "--empty-masks"]
    assert run(tmp_path / "in", tmp_path / "one", "--boxes", "coco", coco, *common) == 0
    assert run(tmp_path / "in", tmp_path / "none", "--boxes", "coco", coco, "--split", "train") == 1
    (tmp_path / "t").mkdir()
    (tmp_path / "t/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "names.txt").write_text("car\n")
    yolo = ["--boxes", "yolo", tmp_path / "t", "--names", tmp_path / "names.txt"]
    assert run(tmp_path / "in", tmp_path / "two", *yolo, *common) == 0
    for name in ("one", "two"):
        label = json.loads(output_files(tmp_path / name, "train", "a")[1].read_text())
        assert [entry["category"] for entry in label["frames"][0]["objects"]] == ["car"]


def test_remarks_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(unpack(tmp_path / "in", "v2020"), tmp_path / "out", "--lanes-from", "masks", "--split", "val") == 0
    captured = capsys.readouterr()
    assert "stay two lines" in captured.err
    assert "stay two lines" not in captured.out


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise HnxError("Cannot write x", why="the disk is full", fix="free some space")

    monkeypatch.setattr(engine, "convert_frame", full)
    assert run(own_frames(tmp_path / "in", ["a"]), tmp_path / "out", "--empty-masks") == 1
    assert "the disk is full" in capsys.readouterr().err
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", "--help"]) == 0
    out = capsys.readouterr().out
    for parameter in data_convert.command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_ends_with_130_and_the_rest_is_done_later(tmp_path: Path, number: signal.Signals) -> None:
    root = own_frames(tmp_path / "in", [f"{i:04}" for i in range(1500)])
    arguments = ["data", "convert", str(root), str(tmp_path / "out"), "--empty-masks", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-m", "hnx", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    folder = tmp_path / "out/det_annot/val"
    while child.poll() is None and not (folder.is_dir() and any(folder.glob("0*.json"))):
        pass
    os.killpg(child.pid, number)  # as a terminal does: to all of them
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert err.splitlines()[-1] == "hnx: stopped"
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "out").rglob("*.tmp.*"))
    written = len(list(folder.iterdir()))
    assert 0 < written < 1500
