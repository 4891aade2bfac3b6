"""Whole runs: what they write, what they refuse, and what they survive."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridnets.carried import carried_size
from hybridnets.checkpoint import build_model, infer_config, load_checkpoint
from hybridnets.errors import ExitCode, HnxError
from hybridnets.network import Outputs
from hybridnets.training import resume, task
from hybridnets.training.data import Batch
from hybridnets.training.events import Silent, ValidationEvent
from hybridnets.training.trainer import train
from hybridnets.training.validation import Scores, Validation, fitness_of
from tests.hybridnets.training.tiny import NamedScorer, config, make_data, project


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_data(tmp_path_factory.mktemp("data"), train=4, val=2)


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of two epochs with two steps each."""
    folder = tmp_path_factory.mktemp("done")
    train(config(data, folder), make_scorer=lambda _: NamedScorer())
    return folder


class Heard(Silent):
    """Remembers everything."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.validations: list[ValidationEvent] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def validated(self, event: ValidationEvent) -> None:
        self.validations.append(event)


def test_the_best_network_is_read_by_everything_of_ours_and_by_upstream(done: Path) -> None:
    (best,) = done.glob("hybridnets-d0_*_best.pth")
    content = torch.load(best, weights_only=True)
    assert {"model", "epoch", "step", "best_fitness"} <= set(content)
    checkpoint = load_checkpoint(best)
    model = build_model(checkpoint)
    assert model.config == config(done, done).model_config
    assert carried_size(best) == carried_size(done / "best.safetensors") == config(done, done).input_size
    tight = load_checkpoint(done / "best.safetensors")
    assert tight.metadata["classes"] == ["car"]
    assert tight.metadata["seg_classes"] == ["road", "lane"]
    assert infer_config(tight.state, metadata=tight.metadata) == model.config
    assert all(value.equal(checkpoint.state[name]) for name, value in tight.state.items())


def test_last_holds_what_upstream_calls_model_and_all_to_go_on(done: Path) -> None:
    content = resume.read_last(done / resume.LAST)
    assert content["step"] == 4
    assert list(content["model"]) == list(content["train_model"])
    assert len(content["optimizer"]["state"]) > 300
    assert build_model(load_checkpoint(done / resume.LAST)).config.compound_coef == 0


def test_logs_and_report(done: Path) -> None:
    with (done / "log.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert all(
        float(row["loss"]) == pytest.approx(float(row["cls"]) + float(row["reg"]) + float(row["seg"]), 1e-4)
        for row in rows
    )
    report = json.loads((done / "report.json").read_text())
    assert report["steps"] == 4
    assert report["config"]["batch_size"] == 2
    assert report["averaged_weights"] is True
    assert (done / str(report["curves"])).read_bytes().startswith(b"\x89PNG")
    assert list((done / "tensorboard").glob("events*"))


def test_a_finished_folder_is_not_overwritten_unasked(done: Path, data: Path) -> None:
    with pytest.raises(HnxError, match="holds a run already"):
        train(config(data, done))


def test_two_runs_cannot_share_a_folder(data: Path, tmp_path: Path) -> None:
    with resume.folder_lock(tmp_path), pytest.raises(HnxError, match="Another run is writing"):
        train(config(data, tmp_path))


def test_a_full_disk_keeps_the_previous_checkpoint(done: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (done / resume.LAST).read_bytes()

    synchronise = os.fsync

    def full(handle: int) -> None:
        """Of a disk that has room for tables, and not for a checkpoint."""
        if os.fstat(handle).st_size > 1 << 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        synchronise(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HnxError, match=r"the disk is full[\s\S]*of before is whole"):
        train(config(data, done, resume=True, epochs=3))
    assert (done / resume.LAST).read_bytes() == before
    assert not list(done.glob(".last*"))


def test_a_damaged_checkpoint_is_told_apart_from_a_run(tmp_path: Path, data: Path) -> None:
    with pytest.raises(HnxError, match="There is nothing to resume"):
        train(config(data, tmp_path, resume=True))
    (tmp_path / resume.LAST).write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(HnxError, match="it is damaged"):
        train(config(data, tmp_path, resume=True))


def test_last_is_ours_or_upstreams_newest_step_file(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="nothing to resume"):
        resume.find_last(tmp_path)
    for name in ("hybridnets-d3_3_112.pth", "hybridnets-d3_2_900_best.pth", "hybridnets-d3_10_1000.pth"):
        (tmp_path / name).touch()
    found = resume.find_last(tmp_path)
    assert (found.path.name, found.resumable) == ("hybridnets-d3_10_1000.pth", False)
    (tmp_path / resume.LAST).touch()
    assert resume.find_last(tmp_path).resumable


@pytest.mark.parametrize("on_nan", ["skip", "stop"])
def test_a_poisonous_sample_is_named(on_nan: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = task.make_criterion

    def make(loss: Any) -> Any:
        inner = healthy(loss)

        def criterion(outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
            terms = inner(outputs, batch)
            return {**terms, "loss": terms["loss"] * (torch.nan if "train_02" in batch.names else 1.0)}

        return criterion

    monkeypatch.setattr(task, "make_criterion", make)
    heard = Heard()
    if on_nan == "stop":
        with pytest.raises(HnxError, match=r"not finite with .*train_02"):
            train(config(data, tmp_path, on_nan="stop"), listener=heard)
        return
    result = train(config(data, tmp_path), listener=heard)
    assert (result.steps, result.skipped) == (4, 2)
    assert sum("train_02" in text and "left out" in text for text in heard.notes) == 2
    state = resume.read_last(tmp_path / resume.LAST)
    assert all(value.isfinite().all() for value in state["train_model"].values() if value.is_floating_point())
    assert state["ema_updates"] == 2


def test_broken_samples_are_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", train=4, val=3)
    (data / "imgs" / "train" / "train_01.jpg").write_bytes(b"")
    (data / "ll_seg_annot" / "val" / "val_02.png").write_bytes(b"x")
    heard = Heard()
    result = train(config(data, tmp_path / "run", epochs=1), listener=heard)
    assert result.validation is not None
    assert (result.validation.images, result.validation.broken) == (2, ("val_02",))
    assert any("train_01" in text for text in heard.notes)
    assert json.loads((tmp_path / "run" / "report.json").read_text())["broken_samples"] == ["train_01"]


def test_images_to_measure_on_are_read_before_the_first_step(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", train=2, val=2)
    for path in (data / "imgs" / "val").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(HnxError, match="None of the 2 images of val can be read") as caught:
        train(config(data, tmp_path / "run"))
    assert "val_00" in caught.value.why
    assert not (tmp_path / "run").exists()


def test_other_classes_keep_everything_but_the_last_layer(done: Path, data: Path, tmp_path: Path) -> None:
    (best,) = done.glob("*_best.pth")
    heard = Heard()
    more = dataclasses.replace(project(), classes=("car", "bus"))
    run = config(data, tmp_path, weights=best, project=more, epochs=1, freeze_backbone=True)
    train(run, listener=heard)
    assert any("the last layer of classifier starts anew" in text for text in heard.notes)
    old, new = load_checkpoint(best).state, load_checkpoint(tmp_path / resume.LAST).state
    assert all(new[name].equal(value) for name, value in old.items() if name.startswith(("encoder.", "bifpn.")))
    with pytest.raises(HnxError, match="does not fit a network of coefficient 1"):
        train(config(data, tmp_path / "other", weights=best, compound_coef=1))


class Scripted:
    """A scorer whose detection figure is given for each validation."""

    frame_target = False

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def score(self, sample: Any, outputs: Any) -> str:
        return str(sample.name)

    def summarise(self, records: Any) -> Scores:
        return Scores(self.values.pop(0), {}, {})


def test_early_stopping_waits_for_its_patience_after_the_last_improvement(data: Path, tmp_path: Path) -> None:
    heard = Heard()
    run = config(data, tmp_path, epochs=9, es_patience=2, es_min_delta=0.01, batch_size=4, keep_best=2)
    result = train(run, make_scorer=lambda _: Scripted([0.1, 0.3, 0.305, 0.2, 0.9]), listener=heard)
    # 0.305 is better, but not by the delta
    assert [event.fitness for event in heard.validations] == [0.1, 0.3, 0.305, 0.2]
    assert result.stopped_early
    assert result.fitness == 0.305
    kept = sorted(path.name for path in tmp_path.glob("*_best.pth"))
    assert kept == ["hybridnets-d0_1_2_best.pth", "hybridnets-d0_2_3_best.pth"]
    assert result.best == tmp_path / "hybridnets-d0_2_3_best.pth"


def test_fitness_of_all_tasks_and_of_one() -> None:
    scored = Validation(Scores(0.5, {"road": 0.9, "lane": 0.1}), {"loss": 2.0}, 1, ())
    assert fitness_of(scored, "det") == 0.5
    assert fitness_of(scored, "all") == pytest.approx(0.5)
    assert fitness_of(scored, "all", segmentation=False) == 0.5
    assert fitness_of(scored, "all", detection=False) == pytest.approx(0.5)
    assert fitness_of(Validation(None, {"loss": 2.0}, 1, ()), "all") == -2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.0}, "learning rate of 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"freeze_det": True, "freeze_seg": True}, "Both tasks are frozen"),
        ({"size": (100, 128)}, "100x128"),
        ({"amp": "int8"}, "Unknown amp"),
        ({"epochs": 0}, "epochs is 0"),
        ({"compound_coef": 9}, "coefficient 9"),
    ],
)
def test_what_cannot_be_is_refused_at_once(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(HnxError, match=message) as caught:
        config(tmp_path, tmp_path, **changes)
    assert caught.value.code == ExitCode.USAGE


def test_no_data_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="There is no data set"):
        train(config(tmp_path / "nowhere", tmp_path / "run"))
