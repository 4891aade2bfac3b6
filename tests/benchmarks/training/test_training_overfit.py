"""The check that a network learns: its options are the command's, its figures those of the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.training import overfit
from benchmarks.training.scenes import make_scenes
from hybridnets.errors import HnxError
from hybridnets.project import load_project
from tests.hybridnets.training.tiny import make_data

SCORES = {"mAP50": 0.95, "seg": {"road": {"IoU": 0.98}, "lane": {"IoU": 0.5}}}


def test_figures_and_bars() -> None:
    found = overfit.figures({"last": {"scores": SCORES}})
    assert found == {"mAP50": 0.95, "road IoU": 0.98, "lane IoU": 0.5}
    assert overfit.missed(found) == ["lane IoU"]
    assert overfit.figures({"last": {"scores": {**SCORES, "mAP50": None}}})["mAP50"] == 0.0


def test_the_real_command_runs_and_the_gate_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def generate(folder: Path, train: int, seed: int) -> None:
        make_data(folder, train=4, val=1)

    monkeypatch.setattr(overfit, "make_scenes", generate)
    folder = tmp_path / "out"
    words = ["--folder", str(folder), "--epochs", "1", "--size", "128x128", "--log-interval", "1"]
    assert overfit.main(words) == 3
    assert "lane IoU" in capsys.readouterr().out
    assert load_project(str(folder / "overfit.yml")).dataset.test_set == "train"
    report = json.loads((folder / "overfit" / "report.json").read_text())
    assert report["last"]["scores"]["images"] == 4  # what it was trained on
    assert report["config"]["augment"] is False
    # a finished run is only read again
    assert overfit.main(words) == 3
    assert json.loads((folder / "overfit" / "report.json").read_text())["steps"] == report["steps"] == 1


def test_scenes_are_made_by_the_real_command(tmp_path: Path) -> None:
    make_scenes(tmp_path / "data", 1, 3)
    assert len(list((tmp_path / "data" / "imgs" / "train").iterdir())) == 1
    (tmp_path / "file").touch()
    with pytest.raises(HnxError, match="hnx data synth ended with"):
        make_scenes(tmp_path / "file" / "data", 1, 3)
