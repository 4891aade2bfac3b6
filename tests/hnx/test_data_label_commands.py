"""`hnx data pseudo` with a bundle as the teacher, and `hnx data merge`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from hnx.__main__ import main
from hybridnets.errors import ExitCode
from tests.hybridnets.training.tiny import make_data


def names(folder: Path, split: str = "train") -> list[str]:
    return sorted(path.stem for path in (folder / "imgs" / split).iterdir())


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(2):
        cv2.imwrite(str(folder / f"f{index}.png"), np.full((90, 160, 3), 60 * index, np.uint8))
    return folder


def test_a_bundle_labels_frames_that_training_can_read(
    frames: Path, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (frames / "broken.png").write_bytes(b"no picture")
    command = [
        "data",
        "pseudo",
        str(frames),
        "--teacher",
        str(bundle_path),
        "--conf",
        "1",
        "-o",
        str(tmp_path / "real"),
    ]
    assert main(command) == ExitCode.OK
    shown = capsys.readouterr()
    assert "2 frames labelled" in shown.out
    assert "left out" in shown.err
    assert len(names(tmp_path / "real")) == 2
    for name in names(tmp_path / "real"):
        label = json.loads((tmp_path / "real" / "det_annot" / "train" / f"{name}.json").read_text())
        assert "unlabelled" not in label  # the bundle has boxes, too
        for kind in ("da_seg_annot", "ll_seg_annot"):
            mask = cv2.imread(str(tmp_path / "real" / kind / "train" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            assert mask is not None
            assert mask.shape == (90, 160)
    assert main(command) == ExitCode.OK
    assert "2 were there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code"), [(["--every", "0"], ExitCode.USAGE), (["--teacher", "nowhere.onnx"], ExitCode.FAILED)]
)
def test_pseudo_refuses(more: list[str], code: ExitCode, frames: Path, bundle_path: Path, tmp_path: Path) -> None:
    command = ["data", "pseudo", str(frames), "--teacher", str(bundle_path), "-o", str(tmp_path / "real"), *more]
    assert main(command) == code
    assert not (tmp_path / "real" / "imgs").exists()


def test_merge_takes_a_part_as_often_as_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data(tmp_path / "a", train=3, val=1)
    make_data(tmp_path / "b" / "set", train=2, val=1)
    for folder in (tmp_path / "b" / "set").glob("*/*"):
        for path in folder.iterdir():
            path.rename(path.with_name(f"b_{path.name}"))
    found = tmp_path / "all"
    command = ["data", "merge", str(found), str(tmp_path / "a"), f"{tmp_path / 'b' / 'set'}*2"]
    assert main(command) == ExitCode.OK
    assert names(found) == [
        *("b_train_00", "b_train_00.x2", "b_train_01", "b_train_01.x2"),
        *("train_00", "train_01", "train_02"),
    ]
    assert names(found, "val") == ["b_val_00", "val_00"]
    capsys.readouterr()
    assert main(command) == ExitCode.OK
    assert "9 were there" in capsys.readouterr().out


def test_merge_of_other_parts_is_refused_or_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data(tmp_path / "a", train=2, val=1)
    part, found = str(tmp_path / "a"), tmp_path / "all"
    assert main(["data", "merge", str(found), part, f"{part}*2"]) == ExitCode.OK
    assert "6 in train, 1 in val" in capsys.readouterr().out
    assert main(["data", "merge", str(found), part]) == ExitCode.USAGE
    assert "--overwrite" in capsys.readouterr().err
    assert main(["data", "merge", str(found), part, "--overwrite"]) == ExitCode.OK
    assert "2 in train, 1 in val" in capsys.readouterr().out
    assert len(names(found)) == 2


@pytest.mark.parametrize("part", ["nowhere", "*2", "a*0", "a*x"])
def test_merge_refuses(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path / "a", train=1, val=1)
    assert main(["data", "merge", "all", part]) in (ExitCode.FAILED, ExitCode.USAGE)
    assert not (tmp_path / "all" / "imgs" / "train").exists()
