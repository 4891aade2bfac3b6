"""Two processes against one: what is run, what is read, what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training import processes
from benchmarks.training.processes import Scaling, ScalingJob, main, measure_scaling, run_training, speed_in
from hybridnets.errors import HnxError
from tests.hybridnets.training.tiny import make_data


def test_the_first_row_of_a_log_is_no_measure(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,images_per_s\n4,1\n8,5\n12,7\n16,100\n")
    assert speed_in(log) == 7.0
    log.write_text("step,images_per_s\n4,1\n")
    with pytest.raises(HnxError, match="has 1 rows"):
        speed_in(log)


def test_rounds_change_who_is_first_and_which_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[int | None] = []

    def run(job: ScalingJob, folder: Path, *, pinned_to: int | None) -> float:
        seen.append(pinned_to)
        return 2.0 if pinned_to is not None else 3.0

    monkeypatch.setattr(processes, "run_training", run)
    monkeypatch.setattr(processes, "cores", lambda: [4, 6])
    found = measure_scaling(ScalingJob(tmp_path), 2)
    assert seen == [4, None, None, 6]
    assert found == Scaling((2.0, 2.0), (3.0, 3.0))
    assert found.ratio == 1.5


@pytest.mark.skipif(not hasattr(processes.os, "sched_getaffinity"), reason="needs Linux")
@pytest.mark.parametrize("pinned", [True, False])
def test_the_real_command_is_run(pinned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return popen(command, **options)

    monkeypatch.setattr(processes.subprocess, "Popen", start)
    data = make_data(tmp_path / "data", train=32, val=1)
    job = ScalingJob(data, 0, (128, 128), 2, epochs=1)
    core = min(processes.os.sched_getaffinity(0)) if pinned else None
    assert run_training(job, tmp_path / "run", pinned_to=core) > 0
    assert ("torch.distributed.run" in commands[0]) != pinned
    assert commands[0][commands[0].index("hnx") + 1] == "train"


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match=r"hnx train ended with 1[\s\S]*There is no data set"):
        run_training(ScalingJob(tmp_path / "none"), tmp_path / "run", pinned_to=min(processes.os.sched_getaffinity(0)))


def test_one_core_is_not_enough(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert main(["--data", "somewhere"]) == 4
    assert "1 cores" in capsys.readouterr().err
