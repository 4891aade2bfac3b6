"""A run that was stopped early and is continued, and one that replaces another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hybridnets.errors import ExitCode, HnxError
from hybridnets.training import resume
from hybridnets.training.checkpoints import Checkpoints
from hybridnets.training.distributed import World
from hybridnets.training.history import History, RunState
from hybridnets.training.loop import Loop
from hybridnets.training.stopping import StopRequest
from hybridnets.training.trainer import train
from tests.hybridnets.training.tiny import config, make_data


class Told:
    """A journal that remembers its notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize(("patience", "goes_on"), [(0, True), (3, True), (2, False), (1, False)])
def test_a_run_that_was_stopped_early_goes_on_with_more_patience(
    patience: int, goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(Loop, "_steps", lambda self: done.append("steps"))
    monkeypatch.setattr(Loop, "_validate", lambda self, epoch: done.append(f"validation {epoch}"))
    # three epochs of one step, the first of which was the best
    state = RunState(1, 9, 3, History(validated_epoch=2, improved_epoch=0, stopped_early=True))
    journal, left = Told(), None
    unused: Any = left
    run = config(tmp_path, tmp_path, epochs=9, es_patience=patience)
    Loop(run, World(), unused, state, unused, journal, StopRequest()).run()  # type: ignore[arg-type]
    assert done == (["steps", "validation 8"] if goes_on else [])
    assert state.history.stopped_early is not goes_on
    assert [text for text in journal.texts if "no better network for 2 epochs" in text] == journal.texts
    assert bool(journal.texts) is not goes_on


@pytest.mark.parametrize(("step", "epochs"), [(6, 1), (5, 1), (7, 2)])
def test_a_run_that_has_more_epochs_than_it_is_to_have(step: int, epochs: int, tmp_path: Path) -> None:
    unused: Any = None
    run = config(tmp_path, tmp_path, epochs=epochs, resume=True)
    checkpoints = Checkpoints(run, World(), unused, RunState(3, 3 * epochs), "")
    with pytest.raises(HnxError, match=f"has {epochs + 1} epochs already") as caught:
        checkpoints.restore({"history": {}, "step": step, "steps_per_epoch": 3}, print)
    assert caught.value.code == ExitCode.USAGE
    assert f"--num-epochs {epochs + 1} or more" in caught.value.fix


def test_an_empty_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / resume.LAST).touch()
    with pytest.raises(HnxError, match="Cannot resume from") as caught:
        resume.read_last(tmp_path / resume.LAST)
    assert caught.value.why.startswith("it is damaged or holds more than tensors: ")
    assert not caught.value.why.endswith(("?", ": "))


OLD = ("best.safetensors", "hybridnets-d3_7_900_best.pth", "report.json", "curves.png", "before.json", "distill.json")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of a run, and one that is none of them; new runs write their state and do no step."""
    monkeypatch.setattr(Loop, "run", lambda self: self.checkpoints.save())
    torch.set_num_threads(1)
    make_data(tmp_path / "data", train=2, val=1)
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (*OLD, "last.pth", "mine.txt"):
        (folder / name).write_bytes(b"old")
    return folder


def test_a_run_that_replaces_another_leaves_nothing_of_it(old: Path) -> None:
    train(config(old.parent / "data", old, overwrite=True))
    written = {"report.json", "curves.png"}  # by the new one
    assert not any((old / name).exists() for name in set(OLD) - written)
    assert (old / "report.json").read_bytes() != b"old"
    assert (old / "mine.txt").read_bytes() == b"old"
    assert resume.read_last(old / "last.pth")["step"] == 0


def test_a_run_that_cannot_begin_removes_nothing(old: Path) -> None:
    with pytest.raises(HnxError, match="Cannot read the checkpoint"):
        train(config(old.parent / "data", old, overwrite=True, weights=old / "best.safetensors"))
    assert all((old / name).read_bytes() == b"old" for name in (*OLD, "last.pth", "mine.txt"))


def test_the_file_that_a_run_starts_from_stays(old: Path) -> None:
    resume.remove_results(old, (old.parent / "run" / "." / "best.safetensors", None))
    assert sorted(path.name for path in old.iterdir()) == ["best.safetensors", "mine.txt"]
