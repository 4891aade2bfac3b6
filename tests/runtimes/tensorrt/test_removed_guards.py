"""Each guard is removed from a copy of the source, and the contract tests on that copy fail (`.ci/trt`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtimes.tensorrt import mutants
from tests.runtimes.tensorrt.mutants import Mutant
from tests.runtimes.tensorrt.test_real_bindings import VERSIONS

pytestmark = pytest.mark.trt


def run(root: Path, *words: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """A module of the copy; nothing of the repository itself is on its path."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHONPATH"))}
    command = [python, "-m", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, env=environment)


def lacking(guard: str) -> str:
    """The newest version whose real bindings do not have what a guard is around."""
    return [version for version, guards in VERSIONS.items() if guard in guards][-1]


@pytest.mark.parametrize("mutant", mutants.CAPABILITIES, ids=str)
def test_real_bindings_refuse_what_a_removed_guard_calls(mutant: Mutant, tmp_path: Path) -> None:
    if "HNX_TRT_BINDINGS" not in os.environ:
        pytest.skip(".ci/trt fetches NVIDIA's wheels and says where they are in HNX_TRT_BINDINGS")
    version = lacking(mutant.guard)
    python = os.environ.get("HNX_TRT_PYTHON310", "") if version == "8.5.3.1" else sys.executable
    if not python:
        pytest.skip("the bindings of 8.5.3.1 need Python 3.10")
    report = tmp_path / "report.json"
    bindings = str(Path(os.environ["HNX_TRT_BINDINGS"]) / version)
    done = run(mutants.tree(tmp_path, mutant), "tests.runtimes.tensorrt.standin", bindings, str(report), python=python)
    assert done.returncode == 1, f"nobody noticed that {mutant} is gone from {version}"
    assert not report.exists()
    last = done.stderr.strip().splitlines()[-1]
    print(f"without {mutant.guard}, {version}: {last}")
    assert last.startswith("AttributeError"), done.stderr[-2000:]
    assert f"runtimes/tensorrt/{mutant.module}.py" in done.stderr  # of the copy, where the call is


def words_for(*chosen: Mutant) -> list[str]:
    """Words that run the tests which notice these."""
    files = dict.fromkeys(f"tests/runtimes/tensorrt/{mutant.noticed[0]}" for mutant in chosen)
    names = " or ".join(dict.fromkeys(mutant.noticed[1] for mutant in chosen))
    return ["pytest", "-q", "-n0", "-p", "no:cacheprovider", *files, "-k", names]


@pytest.mark.parametrize("mutant", mutants.SAFETY, ids=str)
def test_the_test_of_a_removed_guard_fails(mutant: Mutant, tmp_path: Path) -> None:
    done = run(mutants.tree(tmp_path, mutant), *words_for(mutant))
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert " failed" in done.stdout.splitlines()[-1]
    assert " error" not in done.stdout.splitlines()[-1]


def test_with_their_guards_they_pass(tmp_path: Path) -> None:
    """What fails above fails for want of the guard, not because it runs in a copy."""
    done = run(mutants.tree(tmp_path), *words_for(*mutants.SAFETY))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
