"""`hnx distill` on a tiny network and a handful of frames: what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from hnx import distillation
from hnx.__main__ import main
from hnx.distillation import Comparison
from hybridnets.checkpoint import build_model, load_checkpoint, save_safetensors
from hybridnets.config import ModelConfig
from hybridnets.dataset import SampleReader, Split, open_split
from hybridnets.errors import ExitCode, HnxError
from hybridnets.network.weights import create_model
from hybridnets.training import trainer
from hybridnets.training.config import TrainConfig
from hybridnets.training.data import TrainingSet
from hybridnets.training.normaliser import Normaliser
from hybridnets.training.recalibrate import Recalibrator
from hybridnets.training.trainer import TrainResult
from tests.hybridnets.training.tiny import make_data, project

META = {
    "classes": ["car"],
    "seg_classes": ["road", "lane"],
    "anchors": {"scales": [1.0, 1.6, 2.5], "ratios": [[0.62, 1.58], [1.0, 1.0], [1.58, 0.62]]},
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a folder of frames and a teacher whose weights say something."""
    folder = tmp_path_factory.mktemp("distill")
    make_data(folder / "data", train=10, val=2)
    shutil.copytree(folder / "data" / "imgs" / "train", folder / "frames")
    config = ModelConfig(compound_coef=0, num_classes=1, seg_classes=2, seg_mode="multiclass", activation="swish")
    teacher = create_model(config, 3)
    # an untrained network whose maps have the size of a trained one's
    split = open_split(project(), folder / "data", "train")
    normaliser = Normaliser((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    Recalibrator(SampleReader(split, (128, 128)), split.names, normaliser, torch.device("cpu"), images=10, seed=0).run(
        teacher
    )
    save_safetensors(folder / "teacher.safetensors", teacher, META)
    return folder


def words(place: Path, output: Path, *more: str) -> list[str]:
    return [
        *("distill", str(place / "frames"), "-w", str(place / "teacher.safetensors"), "--size", "128x128"),
        *("-b", "2", "-n", "0", "--num-epochs", "2", "--held-out", "2", "--log-interval", "1", "--precise-bn", "4"),
        *("-o", str(output), "--device", "cpu", *more),
    ]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_student_comes_closer_and_both_are_evaluated(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = words(place, tmp_path, "--data", str(place / "data"), "--lr", "1e-4", "--max-drop", "100")
    assert main(run) == ExitCode.OK
    folder = tmp_path / "teacher-hardswish"
    shown = capsys.readouterr()
    assert "activation swapped" in shown.out
    assert "points lost" in shown.out
    report = json.loads((folder / "distill.json").read_text())
    names = [moment["name"] for moment in report["agreement"]]
    assert names[:2] == ["activation swapped", "batch norms recalibrated"]
    assert names[-1].startswith("kept")
    assert report["agreement"][-1]["loss"] < report["agreement"][0]["loss"]
    assert set(report["labelled"]["teacher"]) >= {"road IoU", "lane IoU"}
    student, teacher = (load_checkpoint(path) for path in (folder / "best.safetensors", place / "teacher.safetensors"))
    assert student.metadata["activation"] == "hardswish"
    assert any(not torch.equal(student.state[key], teacher.state[key]) for key in teacher.state)
    assert build_model(student).config.activation == "hardswish"


def test_a_killed_run_ends_where_it_would_have(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(words(place, tmp_path / "whole")) == ExitCode.OK
    reads, real = [0], TrainingSet.__getitem__

    def dying(self: TrainingSet, ticket: object) -> object:
        reads[0] += 1
        if reads[0] > 5:
            raise KeyboardInterrupt
        return real(self, ticket)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSet, "__getitem__", dying)
        assert main(words(place, tmp_path / "cut", "--save-interval", "1")) == ExitCode.INTERRUPTED
    assert 0 < len(rows(tmp_path / "cut" / "teacher-hardswish")) < 8
    assert main(words(place, tmp_path / "cut", "--resume")) == ExitCode.OK
    whole, cut = (rows(tmp_path / name / "teacher-hardswish") for name in ("whole", "cut"))
    assert [(row["step"], row["loss"], row["features"]) for row in whole] == [
        (row["step"], row["loss"], row["features"]) for row in cut
    ]
    a, b = (load_checkpoint(tmp_path / n / "teacher-hardswish" / "best.safetensors").state for n in ("whole", "cut"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    before = tmp_path / "cut" / "teacher-hardswish" / "distill.json"
    assert json.loads(before.read_text())["agreement"][0]["name"] == "activation swapped"


def test_a_run_goes_on_as_it_began(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = str(place / "data" / "imgs" / "val")
    begun = words(place, tmp_path, "--num-epochs", "1", "--feature-weight", "0.5", "--lr", "1e-3")
    begun += ["--held-out-frames", measured]
    assert main(begun) == ExitCode.OK
    folder = tmp_path / "teacher-hardswish"
    first = torch.load(folder / "last.pth", weights_only=True)["config"]
    capsys.readouterr()
    bare = ["distill", str(place / "frames"), "-w", str(place / "teacher.safetensors"), "-o", str(tmp_path)]
    bare += ["--resume", "-n", "0", "--device", "cpu"]
    compared: list[TrainConfig] = []

    def compare(config: TrainConfig, split: Split, student: Path) -> Comparison:
        compared.append(config)
        return Comparison(2, {"mAP50": 0.5}, {"mAP50": 0.5})

    monkeypatch.setattr(distillation, "compare", compare)
    assert main([*bare, "--num-epochs", "2", "--data", str(place / "data")]) == ExitCode.OK
    # both networks are evaluated as the run measured them
    assert [(config.input_size, config.batch_size) for config in compared] == [((128, 128), 2)]
    said = capsys.readouterr().err
    assert "going on with --num-epochs 2; until now it was 1" in said
    assert said.count("going on with") == 1
    last = torch.load(folder / "last.pth", weights_only=True)["config"]
    assert last["epochs"] == 2
    assert (last["size"], last["batch_size"]) == ([128, 128], 2)
    same = ("lr", "batch_size", "log_interval", "precise_bn", "distill", "activation")
    assert {name: last[name] for name in same} == {name: first[name] for name in same}
    assert last["distill"]["held_out_sources"] == [measured]
    # what somebody chooses anew is told
    assert main([*bare, "--num-epochs", "3", "--feature-weight", "2"]) == ExitCode.OK
    assert "going on with --feature-weight 2.0; until now it was 0.5" in capsys.readouterr().err
    # and a damaged choice of frames is a damaged run
    content = torch.load(folder / "last.pth", weights_only=True)
    del content["config"]["distill"]["every"]
    torch.save(content, folder / "last.pth")
    assert main(bare) == ExitCode.FAILED
    assert "last.pth" in capsys.readouterr().err


def test_a_gate_that_fails_keeps_the_network(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = words(place, tmp_path, "--data", str(place / "data"), "--max-drop", "-100", "--num-epochs", "1")
    assert main(run) == ExitCode.GATE_FAILED
    assert "loses more than -100 points" in capsys.readouterr().err
    assert (tmp_path / "teacher-hardswish" / "best.safetensors").is_file()


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (["--activation", "swish"], ExitCode.USAGE, "has swish already"),
        (["--max-drop", "1"], ExitCode.USAGE, "without labels"),
        (["--resume"], ExitCode.FAILED, "leaving `--resume` out"),
        (["--lr", "0"], ExitCode.USAGE, "learning rate of 0"),
        (["-p", "nowhere"], ExitCode.USAGE, "no project"),
        (["--held-out", "0"], ExitCode.USAGE, "held-out"),
    ],
)
def test_what_is_refused(
    more: list[str], code: ExitCode, text: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(place, tmp_path, *more)) == code
    assert text in capsys.readouterr().err
    assert not (tmp_path / "teacher-hardswish" / "last.pth").exists()


def test_labels_are_looked_for_before_the_training(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> TrainResult:
        raise AssertionError("trained")

    monkeypatch.setattr(trainer, "train", never)
    assert main(words(place, tmp_path, "--data", str(tmp_path / "typo"))) != ExitCode.OK
    assert "There is no data set" in capsys.readouterr().err


def test_figures_are_kept_where_the_labelled_images_cannot_be_read(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(config: TrainConfig, **_: object) -> TrainResult:
        config.folder.mkdir(parents=True)
        return TrainResult(config, 7, None, None, None, False, 0, None)

    def unreadable(*_: object) -> Comparison:
        raise HnxError("No image of the split val can be read")

    monkeypatch.setattr(trainer, "train", trained)
    monkeypatch.setattr(distillation, "compare", unreadable)
    assert main(words(place, tmp_path, "--data", str(place / "data"))) == ExitCode.FAILED
    assert "No image" in capsys.readouterr().err
    report = json.loads((tmp_path / "teacher-hardswish" / "distill.json").read_text())
    assert (report["steps"], report["labelled"]) == (7, None)


def test_broken_frames_are_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = Path(shutil.copytree(place / "frames", tmp_path / "frames"))
    for path in sorted(frames.iterdir())[:3]:
        path.write_bytes(b"no picture")
    run = words(place, tmp_path / "out", "--num-epochs", "1")
    run[1] = str(frames)
    assert main(run) == ExitCode.OK
    assert "is left out" in capsys.readouterr().err
    for path in frames.iterdir():
        path.write_bytes(b"no picture")
    run[run.index(str(tmp_path / "out"))] = str(tmp_path / "other")
    assert main(run) == ExitCode.FAILED


def test_the_kept_network_is_found_where_steps_were_counted_anew(tmp_path: Path) -> None:
    (tmp_path / "validation.csv").write_text("step,epoch,loss\n3,0,0.5\n6,1,0.25\n4,2,0.75\n6,4,0.875\n")
    config = TrainConfig(project(), tmp_path)
    result = TrainResult(config, 6, None, 0.9, None, False, 0, None, best_step=6, best_epoch=1)
    found = distillation.stages(config, result)
    assert (found[-1].name, found[-1].loss) == ("kept, of step 6", 0.25)
    assert len(found) == 5
