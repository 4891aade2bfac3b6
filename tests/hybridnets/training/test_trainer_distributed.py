"""Two processes compute what one does with the doubled batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridnets.training import resume
from tests.hybridnets.training.tiny import make_data

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_data(tmp_path_factory.mktemp("data"), val=5)  # odd: one process has more than the other


def computed(launcher: list[str], data: Path, out: Path) -> Path:
    """The folder `out`, after processes of their own have written there what they found."""
    script = str(ROOT / "tests" / "hybridnets" / "training" / "processes.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, script, str(data), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what one process wrote."""
    return computed([], data, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what two processes under torchrun wrote."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return computed(launcher, data, tmp_path_factory.mktemp("two"))


def found(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(out / "found.pt", weights_only=True)
    return content


def test_gradients_and_statistics_equal_those_of_the_doubled_batch(one: Path, two: Path) -> None:
    assert (found(one)["size"], found(two)["size"]) == (1, 2)
    single, other = found(one)["gradients"], found(two)["gradients"]
    assert set(single) == set(other)
    squares = (g.square().sum() for n, g in single.items() if not n.startswith("buffer"))
    whole = torch.sqrt(sum(squares, torch.zeros(())))
    for name, value in single.items():
        # biases in front of a batch norm have no gradient but rounding, and some running means are 0
        floor = 1.0 if name.startswith("buffer") else 1e-6 * whole
        assert (value - other[name]).norm() <= 1e-5 * max(value.norm(), floor), name


def test_validation_equals_that_of_one_process_to_the_last_bit(one: Path, two: Path) -> None:
    assert found(two)["validation"] == found(one)["validation"]


def test_one_process_writes_for_all(two: Path) -> None:
    content = resume.read_last(two / "run" / resume.LAST)
    assert content["step"] == content["steps_per_epoch"] == 2  # 8 images, two processes with 2 each
    assert len(list((two / "run").glob("*_best.pth"))) == 1


def test_what_another_process_cannot_read_is_counted(two: Path) -> None:
    name = (two / "broken.txt").read_text()
    assert json.loads((two / "run" / "report.json").read_text())["broken_samples"] == [name]
    assert resume.read_last(two / "run" / resume.LAST)["history"]["broken"] == [name]
