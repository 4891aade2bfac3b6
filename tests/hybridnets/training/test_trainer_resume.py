"""A run that is cut off anywhere and resumed ends where an uninterrupted one does."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hybridnets.training import resume
from hybridnets.training.events import Silent, StepEvent
from hybridnets.training.trainer import train
from tests.hybridnets.training.tiny import config, make_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted run of 8 steps."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    train(config(data, folder))
    return folder


def losses(folder: Path) -> dict[int, float]:
    with (folder / "log.csv").open() as stream:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(stream)}


def assert_equal_runs(one: Path, other: Path) -> None:
    a, b = losses(one), losses(other)
    assert list(a) == list(b) == list(range(1, 9))
    assert max(abs(a[step] - b[step]) / abs(a[step]) for step in a) <= 1e-6
    first, second = (resume.read_last(folder / resume.LAST) for folder in (one, other))
    for key in ("model", "train_model"):
        for name, value in first[key].items():
            torch.testing.assert_close(second[key][name], value, rtol=1e-6, atol=1e-7)
    assert first["ema_updates"] == second["ema_updates"] == 8


class StopAt(Silent):
    """Sends this process a signal after a step, as Ctrl-C or a scheduler does."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def stepped(self, event: StepEvent) -> None:
        if event.step == self.step:
            os.kill(os.getpid(), self.number)


# a signal that comes while step 2 is told ends the run after step 3; one while step 4, the last of its epoch, is
# told cuts off the validation, which is made up for
@pytest.mark.parametrize(("step", "number"), [(2, signal.SIGINT), (4, signal.SIGTERM)])
def test_signals_stop_after_a_step_and_the_run_goes_on(
    step: int, number: int, data: Path, whole: Path, tmp_path: Path
) -> None:
    before = signal.getsignal(number)
    heard, stopped = StopAt(step, number), {2: 3, 4: 4}[step]
    with pytest.raises(KeyboardInterrupt):
        train(config(data, tmp_path), listener=heard)
    assert signal.getsignal(number) == before
    assert resume.read_last(tmp_path / resume.LAST)["step"] == stopped
    assert f"stopped at step {stopped}; go on with -w last" in heard.texts
    result = train(config(data, tmp_path, resume=True))
    assert result.steps == 8
    assert_equal_runs(whole, tmp_path)


_CHILD = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from tests.hybridnets.training.tiny import config
from hybridnets.training.events import Silent
from hybridnets.training.trainer import train

class Loud(Silent):
    def stepped(self, event):
        print(event.step, flush=True)

train(config(Path(sys.argv[1]), Path(sys.argv[2]), save_interval=2), listener=Loud())
"""


def test_kill_9_at_any_moment_loses_at_most_the_steps_since_the_last_save(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(data), str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "5":
            time.sleep(0.05)  # somewhere within the next step
            child.kill()
            break
    child.wait()
    assert child.returncode == -signal.SIGKILL
    assert resume.read_last(tmp_path / resume.LAST)["step"] in (4, 6)
    assert train(config(data, tmp_path, save_interval=2, resume=True)).steps == 8
    assert_equal_runs(whole, tmp_path)


def test_a_finished_run_resumes_to_the_same_end(whole: Path, data: Path) -> None:
    before, loss = (whole / "log.csv").read_bytes(), json.loads((whole / "report.json").read_text())["last_loss"]
    result = train(config(data, whole, resume=True))
    assert (result.steps, result.last_loss) == (8, loss)
    assert (whole / "log.csv").read_bytes() == before
    assert loss == pytest.approx(losses(whole)[8], rel=1e-6)
    assert json.loads((whole / "report.json").read_text())["last_loss"] == loss
    history = resume.read_last(whole / resume.LAST)["history"]
    assert history["validated_epoch"] == 1
    assert len(history["best"]) == 1


def test_what_was_logged_stays_where_epochs_get_fewer_steps(tmp_path: Path) -> None:
    data, run = make_data(tmp_path / "data", train=4, val=1), tmp_path / "run"
    train(config(data, run, precise_bn=0))
    tables = [run / name for name in ("log.csv", "validation.csv")]
    before = [table.read_text() for table in tables]
    for epochs in (3, 4):
        train(config(data, run, precise_bn=0, resume=True, epochs=epochs, accumulate=2))
    rows = [[row.split(",")[:2] for row in table.read_text().splitlines()[1:]] for table in tables]
    assert rows[0] == [["1", "0"], ["2", "0"], ["3", "1"], ["4", "1"], ["3", "2"], ["4", "3"]]
    assert rows[1] == [["2", "0"], ["4", "1"], ["3", "2"], ["4", "3"]]
    assert all(table.read_text().startswith(text) for table, text in zip(tables, before, strict=True))
