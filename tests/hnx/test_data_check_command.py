"""`hnx data check` as users call it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hnx.__main__ import main
from hybridnets.errors import ExitCode
from tests.processes import alive, children

PARITY = Path(__file__).parents[1] / "data" / "parity" / "dataset"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good samples with masks without oddities."""
    root = tmp_path / "set"
    for kind, suffix in (("imgs", "jpg"), ("det_annot", "json"), ("da_seg_annot", "png"), ("ll_seg_annot", "png")):
        (root / kind / "val").mkdir(parents=True)
        for name in ("val_00", "val_03"):
            shutil.copy(PARITY / kind / "val" / f"{name}.{suffix}", root / kind / "val")
    return root


def test_warnings_alone_are_no_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(folder), "--workers", "0"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert "all 2 samples can be used" in out
    assert "there is no train" in out
    assert "1280x720" in out
    assert err == ""


def test_what_is_broken_is_named_with_its_fix(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = folder / "ll_seg_annot" / "val" / "val_03.png"
    lost.unlink()
    report = folder.parent / "out" / "check.json"
    code = main(["data", "check", str(folder), "--split", "val", "--json", str(report), "--workers", "1"])
    assert code == ExitCode.FAILED
    out = capsys.readouterr().out
    assert f"{lost}: no lane mask, but image and label and road mask" in out
    assert "fix: make the mask" in out
    assert "1 of 2 samples cannot be used" in out
    data = json.loads(report.read_text())
    assert data["ok"] is False
    assert data["kinds"]["mask-missing"]["count"] == 1
    assert data["findings"][0]["file"] == str(lost)
    assert data["splits"]["val"]["samples"] == 2


def test_long_lists_are_cut_on_the_screen_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(9):
        (folder / "imgs" / "val" / f"note{index}.txt").write_text("")
    report = folder.parent / "check.json"
    arguments = ["data", "check", str(folder), "--split", "val", "--workers", "0", "--show", "2"]
    assert main([*arguments, "--json", str(report)]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "note1.txt" in out
    assert "note2.txt" not in out
    assert "... and 7 more" in out
    assert json.loads(report.read_text())["kinds"]["stray"]["count"] == 9


def test_names_cannot_command_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "imgs" / "val" / "a\x1b[31m[bold].txt").write_text("")
    label = folder / "det_annot" / "val" / "val_00.json"
    label.write_text(label.read_text().replace("motorcycle", "m\\u001b[31m"))
    main(["data", "check", str(folder), "--workers", "0"])
    assert "\x1b[31m" not in capsys.readouterr().out


def test_projects_and_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.rename(folder.parent / "dataset")
    monkeypatch.chdir(folder.parent)
    # this project's roots are dataset/imgs and so on
    project = str(PARITY / "project_nc10_multilabel.yml")
    assert main(["data", "check", "-p", project, "--workers", "0"]) == ExitCode.OK
    assert "boxes of traffic light" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], ExitCode.FAILED, "hnx data synth nowhere"),
        ([".", "-p", "nobody"], ExitCode.USAGE, "no project"),
        ([".", "--split", "../x"], ExitCode.USAGE, "no split"),
        ([".", "--workers", "-1"], ExitCode.USAGE, "--workers"),
        ([".", "--json", "."], ExitCode.USAGE, "Cannot write"),
    ],
)
def test_mistakes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: ExitCode,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", *arguments]) == code
    assert message in capsys.readouterr().err


def test_ctrl_c_ends_it_cleanly(folder: Path) -> None:
    for kind, suffix in (("imgs", "jpg"), ("det_annot", "json"), ("da_seg_annot", "png"), ("ll_seg_annot", "png")):
        for index in range(1500):
            (folder / kind / "val" / f"more{index}.{suffix}").symlink_to(folder / kind / "val" / f"val_03.{suffix}")
    process = subprocess.Popen(
        [sys.executable, "-m", "hnx", "data", "check", str(folder), "--workers", "2"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(children(process.pid)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    family = children(process.pid)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert out == ""
    assert err.strip() == "hnx: stopped"
    # one that was not known yet when the signal came ends by itself
    while any(map(alive, family)):
        assert time.monotonic() < deadline, "children are left"
        time.sleep(0.01)
