"""Where options come from that nobody gives: the run that goes on, or the weights a new one starts from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridnets.carried import carried_size
from hybridnets.checkpoint import load_checkpoint, save_safetensors
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import Project
from hybridnets.training import resume
from hybridnets.training.config import TrainConfig
from hybridnets.training.distill.config import DistillConfig
from hybridnets.training.inherited import options_of_weights
from hybridnets.training.loop import Loop
from hybridnets.training.optimizer import make_optimizer
from hybridnets.training.parts import Parts
from hybridnets.training.resumed import options_of_run
from hybridnets.training.schedule import Schedule
from hybridnets.training.start import starting_network
from hybridnets.training.trainer import train
from tests.hybridnets.training.tiny import config, make_data, project

CPU = torch.device("cpu")
BEGAN: dict[str, Any] = {
    "activation": "hardswish",
    "epochs": 1,
    "ema": False,
    "cal_map": False,
    "warmup_steps": 3,
    "lr": 0.01,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_data(tmp_path_factory.mktemp("data"), train=2, val=1)


def stored(run: TrainConfig) -> Mapping[str, Any]:
    """What `last.pth` holds of a run's options."""
    return {"config": json.loads(json.dumps(run.to_json())), "seg_mode": run.project.seg_mode}


def bare(run: TrainConfig) -> TrainConfig:
    """The run's folder, and defaults for everything else."""
    return TrainConfig(run.project, run.folder, resume=True, device="cpu", workers=3)


def test_what_nobody_chose_is_as_the_run_had_it(tmp_path: Path) -> None:
    run = config(tmp_path / "data", tmp_path, workers=0, **BEGAN)
    notes: list[str] = []
    assert options_of_run(bare(run), stored(run), frozenset(), notes.append) == dataclasses.replace(
        run, resume=True, workers=3
    )
    assert notes == []


def test_what_somebody_chose_holds_and_is_told(tmp_path: Path) -> None:
    run = config(tmp_path / "data", tmp_path, **BEGAN)
    notes: list[str] = []
    asked = dataclasses.replace(bare(run), epochs=9, lr=0.01)
    found = options_of_run(asked, stored(run), {"epochs", "lr"}, notes.append)
    assert found == dataclasses.replace(run, resume=True, workers=3, epochs=9)
    assert notes == ["going on with --num-epochs 9; until now it was 1"]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"activation": "swish"}, ("--activation swish", "--activation hardswish")),
        ({"compound_coef": 3}, ("--compound-coef 3", "--compound-coef 0")),
        ({"size": (256, 128)}, ("--size 256x128", "--size 128x128")),
        ({"optim": "sgd"}, ("--optim sgd", "--optim adamw")),
        ({"cal_map": True}, ("--cal-map True", "--cal-map False")),
        ({"fitness": "det"}, ("--fitness det", "--fitness all")),
        ({"project": dataclasses.replace(project(), seg_multilabel=True)}, ("mode multilabel", "mode multiclass")),
        ({"project": dataclasses.replace(project(), classes=("bus",))}, ("obj_list [bus]", "obj_list [car]")),
        (
            {"project": dataclasses.replace(project(), classes=("car", "bus"))},
            ("obj_list [car, bus]", "obj_list [car]"),
        ),
        (
            {"project": dataclasses.replace(project(), seg_list=("lane", "road"))},
            ("seg_list [lane, road]", "seg_list [road, lane]"),
        ),
    ],
)
def test_another_network_optimizer_or_measure_is_refused(
    changes: dict[str, Any], names: tuple[str, str], tmp_path: Path
) -> None:
    run = config(tmp_path / "data", tmp_path, **BEGAN)
    asked = dataclasses.replace(bare(run), **changes)
    with pytest.raises(HnxError) as caught:
        options_of_run(asked, stored(run), frozenset(changes), print)
    assert names[0] in caught.value.what
    assert names[1] in caught.value.why
    assert caught.value.code == ExitCode.USAGE


def test_a_run_that_does_not_say_its_classes_goes_on(tmp_path: Path) -> None:
    run = config(tmp_path / "data", tmp_path)
    content = json.loads(json.dumps(dict(stored(run))))
    for name in ("classes", "seg_list"):
        del content["config"]["project"][name]
    other = dataclasses.replace(run, project=dataclasses.replace(project(), classes=("bus",)), resume=True)
    assert options_of_run(other, content, frozenset(), print).project.classes == ("bus",)
    with pytest.raises(HnxError, match="it is damaged"):
        content["config"]["project"]["classes"] = 3
        options_of_run(other, content, frozenset(), print)


def test_what_only_a_new_run_looks_at_is_told(tmp_path: Path) -> None:
    run = config(tmp_path / "data", tmp_path, autoanchor=True)
    fresh: dict[str, Any] = {"autoanchor": True, "upstream_init": True, "encoder": Path("nofile.pth"), "precise_bn": 8}
    asked = dataclasses.replace(bare(run), **fresh)
    notes: list[str] = []
    found = options_of_run(asked, stored(run), frozenset(fresh), notes.append)
    no_effect = "has no effect: only a new run looks at it"
    assert notes == [
        "going on with --precise-bn 8; until now it was 256",
        f"--encoder nofile.pth {no_effect}",
        f"--upstream-init True {no_effect}",
    ]
    assert found.upstream_init is False
    # a student's statistics are set before its first step
    student = DistillConfig(tmp_path / "teacher.pth", ("frames",))
    notes.clear()
    found = options_of_run(
        dataclasses.replace(asked, distill=student),
        stored(dataclasses.replace(run, distill=student)),
        {"precise_bn"},
        notes.append,
    )
    assert notes == [f"--precise-bn 8 {no_effect}"]
    assert found.precise_bn == 256
    # nobody chose anything: what the run had is no news
    notes.clear()
    options_of_run(dataclasses.replace(run, resume=True), stored(run), None, notes.append)
    assert notes == []


def test_a_run_is_not_gone_on_with_and_overwritten(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="leave one of `-w last` and --overwrite out") as caught:
        config(tmp_path / "data", tmp_path, resume=True, overwrite=True)
    assert caught.value.code == ExitCode.USAGE


def test_a_project_of_another_size_does_not_change_the_run(tmp_path: Path) -> None:
    run = config(tmp_path / "data", tmp_path, size=None, project=dataclasses.replace(Project(), image_size=(256, 128)))
    asked = TrainConfig(dataclasses.replace(Project(), image_size=(512, 256)), tmp_path, resume=True)
    assert options_of_run(asked, stored(run), frozenset(), print).input_size == (256, 128)


@pytest.mark.parametrize("change", [{"epochs": "many"}, {"ema": 1}, {"size": 3}, {"limit": "x"}, {"data": 4}])
def test_options_that_make_no_sense_are_damage(change: dict[str, Any], tmp_path: Path) -> None:
    run = config(tmp_path / "data", tmp_path)
    content = stored(run)
    for damaged in ({**content, "config": {**content["config"], **change}}, {**content, "config": 3}):
        with pytest.raises(HnxError, match="it is damaged"):
            options_of_run(bare(run), damaged, frozenset(), print)


@pytest.fixture
def saves_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write their state and do no step."""
    monkeypatch.setattr(Loop, "run", lambda self: self.checkpoints.save())


@pytest.mark.usefixtures("saves_only")
def test_a_run_goes_on_with_its_options(data: Path, tmp_path: Path) -> None:
    train(config(data, tmp_path, **BEGAN))
    result = train(TrainConfig(project(), tmp_path, resume=True, device="cpu"), given=frozenset())
    assert (result.steps, result.by_loss) == (0, True)
    content = resume.read_last(tmp_path / resume.LAST)
    assert {name: content["config"][name] for name in BEGAN} == BEGAN


def parts_of(run: TrainConfig) -> Parts:
    """The pieces of a run without data."""
    network = starting_network(run, print)
    optimizer = make_optimizer(run.optim, list(network.parameters()), lr=0.1, weight_decay=0.0, device=CPU)
    schedule = Schedule("constant", 0.1, 1)
    left: Any = None
    return Parts(run.project, run.input_size, network, optimizer, schedule, None, left, left, left, left)


def test_another_optimizer_or_network_is_told_before_a_step(tmp_path: Path) -> None:
    """For a `last.pth` that does not say with which options it was made."""
    parts = parts_of(config(tmp_path, tmp_path))
    weights = parts.network.state_dict()
    content = {"train_model": weights, "optimizer": parts.optimizer.state_dict()}
    with pytest.raises(HnxError, match="its optimizer is another one than SGD: it has no"):
        parts_of(config(tmp_path, tmp_path, optim="sgd")).load_state(content)
    del weights["encoder._conv_stem.weight"]
    with pytest.raises(HnxError, match=r"Missing key.*encoder\._conv_stem\.weight"):
        parts.load_state(content)


def test_weights_of_another_coefficient_say_which(tmp_path: Path) -> None:
    path = tmp_path / "c0.pth"
    torch.save(starting_network(config(tmp_path, tmp_path), print).state_dict(), path)
    with pytest.raises(HnxError, match="trained with: -c 0"):
        starting_network(config(tmp_path, tmp_path, compound_coef=1, weights=path), print)


METADATA = {
    "classes": ["car"],
    "seg_classes": ["road", "lane"],
    "anchors": {"scales": [1.0, 1.5, 2.0], "ratios": [[0.5, 1.5], [1.0, 1.0], [1.5, 0.5]]},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of coefficient 0 with hardswish and anchors of its own."""
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    run = config(path.parent, path.parent, activation="hardswish")
    save_safetensors(path, starting_network(run, print), METADATA)
    return path


def test_a_new_run_takes_the_network_of_its_weights(weights: Path, tmp_path: Path) -> None:
    asked = TrainConfig(project(), tmp_path, weights=weights)
    notes: list[str] = []
    found = options_of_weights(asked, frozenset(), notes.append)
    assert (found.compound_coef, found.activation, found.backbone) == (0, "hardswish", None)
    assert found.project.anchors.scales == (1.0, 1.5, 2.0)
    assert (found.project.mean, found.project.std) == ((0.5,) * 3, (0.25,) * 3)
    assert len(notes) == 1
    assert notes[0].startswith("taken from best.safetensors: coefficient 0, activation hardswish, anchors of scales")
    fitted = options_of_weights(dataclasses.replace(asked, autoanchor=True), frozenset(), notes.append)
    assert fitted.project.anchors == project().anchors


def test_what_somebody_chose_is_not_taken_from_the_weights(weights: Path, tmp_path: Path) -> None:
    asked = TrainConfig(project(), tmp_path, weights=weights, activation="relu")
    notes: list[str] = []
    found = options_of_weights(asked, {"activation"}, notes.append)
    assert (found.compound_coef, found.activation) == (0, "relu")
    assert notes[0] == "best.safetensors was trained with activation hardswish and goes on with relu"
    notes.clear()
    assert options_of_weights(asked, None, notes.append) == asked
    assert "anchors, mean, std" in notes[1]


@pytest.mark.usefixtures("saves_only")
def test_a_run_keeps_what_it_took_from_its_weights(weights: Path, data: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"size": (128, 128), "batch_size": 2, "workers": 0, "device": "cpu"}
    train(TrainConfig(project(), tmp_path, data, weights, **more), given=frozenset({"size", "batch_size"}))
    train(TrainConfig(project(), tmp_path, resume=True, device="cpu", workers=0), given=frozenset())
    content = resume.read_last(tmp_path / resume.LAST)
    assert content["anchors"]["scales"] == METADATA["anchors"]["scales"]  # type: ignore[index]
    assert content["config"]["project"]["mean"] == METADATA["mean"]
    assert (content["config"]["activation"], content["config"]["compound_coef"]) == ("hardswish", 0)


def test_metadata_of_weights_that_make_no_sense_are_refused(weights: Path, tmp_path: Path) -> None:
    run = config(tmp_path, tmp_path, activation="hardswish")
    path = tmp_path / "other.safetensors"
    save_safetensors(path, starting_network(run, print), {**METADATA, "mean": "grey"})
    with pytest.raises(HnxError, match="Cannot use the metadata"):
        options_of_weights(dataclasses.replace(run, weights=path), frozenset(), print)


def test_a_network_says_at_which_size_it_was_trained(tmp_path: Path) -> None:
    parts_of(config(tmp_path, tmp_path, size=(256, 128))).write_safetensors(tmp_path / "best.safetensors")
    assert load_checkpoint(tmp_path / "best.safetensors").metadata["size"] == [256, 128]
    assert carried_size(tmp_path / "best.safetensors") == (256, 128)
