"""What a run survives, and what it refuses: damaged state, full disks, leftovers of killed writers, wrong classes."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridnets.dataset import open_split
from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.training import journal, loop, resume
from hybridnets.training.events import Silent, ValidationEvent
from hybridnets.training.history import History
from hybridnets.training.label_check import check_labels
from hybridnets.training.log import CsvLog, TensorBoard
from hybridnets.training.ranking import improves, ranked
from hybridnets.training.step import TrainStep
from hybridnets.training.trainer import train
from hybridnets.training.validation import Scores, Validation, Validator
from tests.hybridnets.training.tiny import config, make_data, project


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_data(tmp_path_factory.mktemp("data"), train=2, val=1)


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of one step."""
    folder = tmp_path_factory.mktemp("done")
    train(config(data, folder, epochs=1))
    return folder


class Notes(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


class Best(Silent):
    """Remembers which validations were called the best so far."""

    def __init__(self) -> None:
        self.best: list[bool] = []

    def validated(self, event: ValidationEvent) -> None:
        self.best.append(event.best)


@pytest.mark.parametrize(
    "change",
    [
        {"steps_per_epoch": 0},
        {"step": "many"},
        {"history": 3},
        {"history": {"seconds": "long"}},
        {"anchors": {"scales": [1.0]}},
    ],
)
def test_a_checkpoint_whose_parts_make_no_sense_is_one_clear_error(
    change: Mapping[str, Any], done: Path, data: Path, tmp_path: Path
) -> None:
    content = resume.read_last(done / resume.LAST)
    resume.write_checkpoint(tmp_path / resume.LAST, {**content, **change})
    with pytest.raises(HnxError, match=r"Cannot resume from .*\n?[\s\S]*it is damaged"):
        train(config(data, tmp_path, epochs=1, resume=True))


def test_names_from_a_checkpoint_remove_networks_of_the_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    inside, outside = folder / "hybridnets-d0_0_1_best.pth", tmp_path / "hybridnets-d0_0_2_best.pth"
    other = folder / "mine.pth"
    for path in (inside, outside, other):
        path.touch()
    resume.remove_files(folder, [inside.name, f"../{outside.name}", str(outside), other.name, "gone"])
    assert not inside.exists()
    assert outside.exists()
    assert other.exists()


def test_a_run_removes_half_written_files_of_killed_ones(tmp_path: Path) -> None:
    leftovers = [".hybridnets-d0_0_1_best.abcd_123.tmp.pth", ".best.abcd1234.tmp.safetensors", ".last.zzzz9999.tmp.pth"]
    for name in (*leftovers, "own.tmp.pth", ".own.tmp.pth"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - 3600,) * 2)
    with resume.folder_lock(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [resume.LOCK, ".own.tmp.pth", "own.tmp.pth"]


@pytest.mark.parametrize("on_nan", ["skip", "stop"])
def test_a_gradient_that_is_told_late_counts_as_any_other(
    on_nan: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = TrainStep.run

    def run(self: TrainStep, batches: Any, step: int, *, stop: bool = False) -> Any:
        result, asked = healthy(self, batches, step, stop=stop)
        result.late = ("train_07",) if step == 1 else None
        return result, asked

    monkeypatch.setattr(TrainStep, "run", run)
    heard = Notes()
    if on_nan == "stop":
        with pytest.raises(HnxError, match="step 1: loss or gradient is not finite with train_07"):
            train(config(data, tmp_path, epochs=3, on_nan="stop"), listener=heard)
        return
    result = train(config(data, tmp_path, epochs=3), listener=heard)
    assert (result.steps, result.skipped) == (3, 1)
    assert sum("step 1: loss or gradient is not finite with train_07; left out" in text for text in heard.texts) == 1


class FullBoard:
    """A writer on a full disk."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_tensorboards_logs_and_not_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "open_tensorboard", lambda folder, step: TensorBoard(FullBoard()))
    heard = Notes()
    assert train(config(data, tmp_path, epochs=1), listener=heard).steps == 1
    assert sum("TensorBoard logs end here: the disk is full" in text for text in heard.texts) == 1


class CutOff(Silent):
    """Ends a run behind the row of its first validation and before the checkpoint that knows of it."""

    def validated(self, event: ValidationEvent) -> None:
        raise KeyboardInterrupt


def test_a_validation_that_is_measured_again_has_one_row(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config(data, tmp_path), listener=CutOff())
    train(config(data, tmp_path, resume=True))
    rows = (tmp_path / "validation.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2"]


def test_a_full_disk_met_by_a_log_says_how_to_go_on(
    done: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: CsvLog, row: Mapping[str, Any]) -> None:
        raise from_os_error(f"Cannot write {self.path}", OSError(errno.ENOSPC, "No space left on device"))

    shutil.copy(done / resume.LAST, tmp_path)
    before = (tmp_path / resume.LAST).read_bytes()
    monkeypatch.setattr(CsvLog, "add", full)
    with pytest.raises(HnxError, match=r"log\.csv[\s\S]*the disk is full[\s\S]*go on with -w last"):
        train(config(data, tmp_path, epochs=2, resume=True))
    assert (tmp_path / resume.LAST).read_bytes() == before


def test_a_validation_loss_that_is_no_number_is_the_worst(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [math.nan, -3.0]
    monkeypatch.setattr(loop, "fitness_of", lambda *_, **__: values.pop(0))
    heard = Notes()
    result = train(config(data, tmp_path, epochs=2), listener=heard)
    assert result.fitness == -3.0
    assert result.best == tmp_path / "hybridnets-d0_1_2_best.pth"
    assert len(list(tmp_path.glob("*_best.pth"))) == 1
    assert any("not a number" in text for text in heard.texts)


def test_the_best_files_go_only_when_last_names_them_no_more(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [1.0, 2.0]
    monkeypatch.setattr(loop, "fitness_of", lambda *_, **__: values.pop(0))
    seen: list[list[str]] = []
    remove = resume.remove_files

    def removed(folder: Path, names: set[str]) -> None:
        seen.append([row["file"] for row in resume.read_last(folder / resume.LAST)["history"]["best"]])
        remove(folder, names)

    monkeypatch.setattr(resume, "remove_files", removed)
    train(config(data, tmp_path, epochs=2))
    assert seen == [["hybridnets-d0_0_1_best.pth"], ["hybridnets-d0_1_2_best.pth"]]


def test_of_equal_networks_the_older_stays() -> None:
    old, new = ({"file": name, "fitness": 0.5} for name in ("old", "new"))
    assert ranked([old], new, 1) == ([old], {"new"})
    assert ranked([old], {**new, "fitness": 0.6}, 2)[0][0]["file"] == "new"
    assert improves(History(), -5.0, 1.0)
    assert not improves(History(es_best=0.5), 0.55, 0.1)


def test_classes_that_no_label_has_are_refused_before_training(data: Path, tmp_path: Path) -> None:
    wrong = dataclasses.replace(project(), classes=("kar",))
    with pytest.raises(HnxError, match=r"do not fit the labels[\s\S]*of kar; they are of car"):
        train(config(data, tmp_path / "run", project=wrong))
    assert not (tmp_path / "run").exists()
    notes: list[str] = []
    check_labels(open_split(dataclasses.replace(project(), classes=("car", "tram")), data, "train"), notes.append)
    assert notes == ["no box in 2 label files is of tram: check obj_list of the project file"]
    check_labels(open_split(project(), data, "train"), notes.append)
    assert len(notes) == 1


def test_one_pixel_is_too_little_for_a_batch_norm(data: Path, tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="A batch of one image of 128x128"):
        train(config(data, tmp_path / "run", batch_size=1))


class Blind:
    """A scorer that sees nothing, as of a network that finds no box."""

    frame_target = False

    def score(self, sample: Any, outputs: Any) -> str:
        return str(sample.name)

    def summarise(self, records: Any) -> Scores:
        return Scores(0.0, {"road": 0.0, "lane": 0.0}, {})


def lost_on(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Validations have these losses, whatever the network does."""
    measured = Validator.run

    def run(self: Validator, *arguments: Any) -> Validation:
        return dataclasses.replace(measured(self, *arguments), losses={"loss": losses.pop(0)})

    monkeypatch.setattr(Validator, "run", run)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_destroyed_network_is_never_the_best(
    loss: float, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost_on(monkeypatch, [loss, 3.0, loss])
    heard = Best()
    result = train(config(data, tmp_path, epochs=3), make_scorer=lambda _: Blind(), listener=heard)
    assert heard.best == [False, True, False]
    assert result.best == tmp_path / "hybridnets-d0_1_2_best.pth"
    assert [path.name for path in tmp_path.glob("*_best.pth")] == ["hybridnets-d0_1_2_best.pth"]


def test_a_run_that_led_to_no_network_fails(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost_on(monkeypatch, [math.nan, math.nan])
    for resumed in (False, True):
        with pytest.raises(HnxError, match="has led to no usable network") as caught:
            train(config(data, tmp_path, resume=resumed), make_scorer=lambda _: Blind())
        assert caught.value.code == ExitCode.FAILED
    assert not list(tmp_path.glob("*best*"))
    assert json.loads((tmp_path / "report.json").read_text())["best"] == []


def test_a_network_without_fitness_of_an_earlier_release_is_none() -> None:
    assert History(best=[{"file": "a", "fitness": -math.inf}]).usable_best is None
    assert History(best=[{"file": "a", "fitness": 0.0}]).usable_best == {"file": "a", "fitness": 0.0}
