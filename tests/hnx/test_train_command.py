"""`hnx train`: options under upstream's names, its help, and one run from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hnx.commands.train import command
from hybridnets.errors import HnxError
from hybridnets.training.begin import check_start
from hybridnets.training.trainer import TrainResult
from tests.hybridnets.training.tiny import SIZE, make_data


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the command asks the trainer for; nothing is trained."""
    found: dict[str, Any] = {}

    def train(config: Any, given: Any = None, **_: Any) -> TrainResult:
        found["config"], found["given"] = config, given
        return TrainResult(config, 0, None, None, None, False, 0, None)

    monkeypatch.setattr("hybridnets.training.trainer.train", train)
    monkeypatch.chdir(tmp_path)
    return found


def run(*arguments: str) -> None:
    result = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    if result.exception is not None:
        raise result.exception


def test_upstreams_spellings_and_truth_values(seen: dict[str, Any]) -> None:
    run(
        *("-p", "bdd100k", "-bb", "None", "--compound_coef", "4", "--num_workers", "3", "--batch_size", "5"),
        *("--freeze_backbone", "True", "--freeze_det", "False", "--lr", "0.01", "--optim", "sgd"),
        *("--num_epochs", "7", "--val_interval", "2", "--save_interval", "9", "--es_min_delta", "0.1"),
        *("--es_patience", "4", "--cal_map", "False", "--conf_thres", "0.01", "--iou_thres", "0.5"),
        *("--saved_path", "runs", "--log_path", "logs", "--num_gpus", "0", "--amp", "True", "--verbose", "False"),
        *("--plots", "False", "--debug", "True"),
    )
    config = seen["config"]
    assert (config.compound_coef, config.workers, config.batch_size, config.epochs) == (4, 3, 5, 7)
    assert (config.freeze_backbone, config.freeze_det, config.cal_map) == (True, False, False)
    assert (config.lr, config.optim, config.val_interval, config.save_interval) == (0.01, "sgd", 2, 9)
    assert (config.es_min_delta, config.es_patience, config.conf, config.iou) == (0.1, 4, 0.01, 0.5)
    assert (config.folder, config.device, config.amp, config.limit) == (Path("runs/bdd100k"), "cpu", "auto", 50)
    assert config.backbone is None


def test_an_encoder_is_a_file_or_a_word(seen: dict[str, Any]) -> None:
    run("-bb", "resnet18", "--encoder", "pretrained")
    assert (seen["config"].backbone, seen["config"].encoder) == ("resnet18", "pretrained")
    run("--encoder", "efficientnet-b3.pth")
    assert seen["config"].encoder == Path("efficientnet-b3.pth")
    with pytest.raises(HnxError, match="timm backbones only"):
        run("--encoder", "pretrained")


def test_our_spellings_and_flags_without_a_value(seen: dict[str, Any]) -> None:
    run(
        "--freeze-seg",
        "--no-cal-map",
        "--amp",
        "--size",
        "256x128",
        "--ema",
        "False",
        "-o",
        "x",
        "--activation",
        "relu",
    )
    config = seen["config"]
    assert (config.freeze_seg, config.cal_map, config.amp, config.ema) == (True, False, "auto", False)
    assert (config.size, config.folder, config.activation) == ((256, 128), Path("x/bdd100k"), "relu")


def test_defaults_are_upstreams_where_it_has_them(seen: dict[str, Any]) -> None:
    run()
    config = seen["config"]
    assert (config.compound_coef, config.batch_size, config.epochs, config.lr, config.optim) == (
        3,
        12,
        500,
        1e-4,
        "adamw",
    )
    assert (config.save_interval, config.val_interval, config.conf, config.iou) == (500, 1, 0.001, 0.6)
    assert (config.seed, config.amp, config.es_patience, config.es_min_delta) == (42, "off", 0, 0.0)
    assert config.folder == Path("checkpoints/bdd100k")
    assert not config.resume


def test_last_finds_ours_and_upstreams_files(seen: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="nothing to resume"):
        run("-w", "last")
    folder = tmp_path / "checkpoints" / "bdd100k"
    folder.mkdir(parents=True)
    (folder / "hybridnets-d3_1_20.pth").touch()
    (folder / "hybridnets-d3_1_30_best.pth").touch()
    run("--load_weights", "last")
    assert seen["config"].weights == Path("checkpoints/bdd100k/hybridnets-d3_1_20.pth")
    (folder / "last.pth").touch()
    run("-w", "last")
    assert seen["config"].resume
    with pytest.raises(HnxError, match=r"the checkpoint gone\.pth"):
        run("-w", "gone.pth")


def test_the_trainer_is_told_what_somebody_chose(seen: dict[str, Any]) -> None:
    run()
    assert seen["given"] == frozenset()
    run(
        *("--num_epochs", "7", "-c", "3", "--no-cal-map", "--debug", "--freeze-seg"),
        *("-p", "bdd100k", "--conf-thres", "0.1"),
    )
    assert seen["given"] == {"epochs", "compound_coef", "cal_map", "limit", "freeze_seg", "conf", "project"}


def test_a_process_on_another_machine_takes_last_from_rank_0(
    seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "3")
    run("-w", "last")
    assert seen["config"].resume
    assert seen["config"].weights is None
    with pytest.raises(HnxError, match=r"nothing to resume in .* of this machine"):
        check_start(seen["config"], None)
    check_start(seen["config"], {"step": 1})


def test_help_is_grouped_and_hides_underscores() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    for title in ("Data and network:", "Learning:", "Validation and files:", "Machine:", "Examples:"):
        assert title in text
    assert "--num-epochs INTEGER" in text
    assert "--num_epochs INTEGER" not in text


def test_words_that_are_no_truth_values_are_refused() -> None:
    result = CliRunner().invoke(command, ["--cal-map", "maybe"])
    assert result.exit_code == 2
    assert "neither True nor False" in result.output


def test_a_run_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hybridnets.project import shipped_projects

    assert "bdd100k" in shipped_projects()
    import hybridnets.project as projects

    shipped = Path(projects.__file__).with_name("projects") / "bdd100k.yml"
    own = tmp_path / "tiny.yml"
    own.write_text(shipped.read_text().replace("[720, 1280]", str(list(SIZE))))
    data = make_data(tmp_path / "data", train=2, val=2)
    monkeypatch.chdir(tmp_path)
    run(
        *("-p", "tiny.yml", "--data", str(data), "-c", "0", "--size", "128x128", "-b", "2", "--num_epochs", "1"),
        *("-n", "0", "--num_gpus", "0", "--log-interval", "1"),
    )
    folder = tmp_path / "checkpoints" / "tiny"
    report = json.loads((folder / "report.json").read_text())
    assert report["last"]["scores"]["images"] == 2
    assert set(report["last"]["scores"]["seg"]) == {"road", "lane"}
    assert (folder / "hybridnets-d0_0_1_best.pth").is_file()
    captured = capsys.readouterr()
    assert captured.err == "" or "Traceback" not in captured.err
