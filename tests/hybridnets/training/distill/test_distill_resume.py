"""What a distillation tells its user to type: it goes on with --resume, and knows no `-w last`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

from hybridnets.errors import HnxError
from hybridnets.training import resume
from hybridnets.training.begin import starting_point
from hybridnets.training.checkpoints import Checkpoints
from hybridnets.training.config import TrainConfig
from hybridnets.training.distill.config import DistillConfig
from hybridnets.training.distill.frames import UNPACKED
from hybridnets.training.distributed import World
from hybridnets.training.events import Silent
from hybridnets.training.history import RunState
from hybridnets.training.journal import Journal
from hybridnets.training.log import CsvLog
from hybridnets.training.loop import Loop
from hybridnets.training.parts import Parts
from hybridnets.training.stopping import StopRequest
from hybridnets.training.trainer import train
from tests.hybridnets.training.tiny import config

NO_PARTS = cast(Parts, SimpleNamespace(networks=lambda: (), state=dict))


class Notes(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def run(folder: Path, **changes: Any) -> TrainConfig:
    """A distillation into a folder."""
    return config(folder, folder, distill=DistillConfig(folder / "teacher.pth", ("frames",)), **changes)


def test_a_folder_that_holds_a_run(tmp_path: Path) -> None:
    (tmp_path / resume.LAST).touch()
    with pytest.raises(HnxError, match="holds a run already") as caught:
        starting_point(run(tmp_path))
    assert "(--resume)" in caught.value.fix
    assert "-w last" not in caught.value.fix


def test_no_video_is_unpacked_into_the_folder_of_another_run(tmp_path: Path) -> None:
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 96))
    for _ in range(6):
        video.write(np.zeros((96, 160, 3), np.uint8))
    video.release()
    folder = tmp_path / "run"
    settings = config(tmp_path, folder, distill=DistillConfig(tmp_path / "no.pth", (str(tmp_path / "v.avi"),)))
    with resume.folder_lock(folder), pytest.raises(HnxError, match="Another run is writing"):
        train(settings)
    (folder / resume.LAST).touch()
    with pytest.raises(HnxError, match="holds a run already"):
        train(settings)
    assert not (folder / UNPACKED).exists()


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="There is nothing to resume") as caught:
        starting_point(run(tmp_path, resume=True))
    assert caught.value.fix == "start a run by leaving `--resume` out, or name its folder with -o"
    with pytest.raises(HnxError, match="There is nothing to resume") as caught:
        starting_point(config(tmp_path, tmp_path, resume=True))
    assert "`-w last`" in caught.value.fix


def test_a_stop_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, state, heard = run(tmp_path), RunState(2, 4, step=1), Notes()
    journal = Journal(settings, World(), heard, state, scored=False, resumed=False)
    checkpoints = Checkpoints(settings, World(), NO_PARTS, state, "")
    Loop(settings, World(), NO_PARTS, state, checkpoints, journal, StopRequest())._say_stopped()
    assert heard.texts == ["stopped at step 1; go on with --resume"]

    def full(*_: object) -> None:
        raise HnxError("Cannot write", why="the disk is full", fix="make room")

    (tmp_path / resume.LAST).touch()
    monkeypatch.setattr(resume, "write_checkpoint", full)
    with pytest.raises(HnxError, match="go on with --resume"):
        checkpoints.save()
    monkeypatch.setattr(CsvLog, "add", full)
    with pytest.raises(HnxError, match="go on with --resume"):
        journal._write(CsvLog(tmp_path / "log.csv", ("step",), None), {})
    journal.close()
