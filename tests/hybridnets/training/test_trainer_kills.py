"""Twenty kills at random moments leave no trace; takes minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hybridnets.training import kills


def test_differences_are_seen(tmp_path: Path) -> None:
    """The comparison of the long test tells runs apart."""
    import torch

    from hybridnets.training import resume

    keys = ("format", "steps_per_epoch", "digest", "history", "anchors", "schedule", "scaler", "ema_updates")
    for name, value in (("a", 1.0), ("b", 1.0 + 1e-4)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "log.csv").write_text(f"step,epoch,lr,a,b,c,d,e,f,speed\n1,0,1,2,2,2,2,2,{2 * value},{value}\n")
        (folder / "validation.csv").write_text("step,epoch,a,b,c,d,speed\n1,0,1,1,1,1,9\n")
        tensors = {"w": torch.tensor([value])}
        content = dict.fromkeys(keys, 0) | {"format": resume.FORMAT, "step": 1, "optimizer": {"state": {}}}
        resume.write_checkpoint(folder / resume.LAST, {**content, "model": tensors, "train_model": tensors})
    loss, weights, equal = kills.difference(tmp_path / "a", tmp_path / "b")
    assert (loss, weights) == (pytest.approx(1e-4, rel=1e-3), pytest.approx(1e-4, rel=1e-3))
    assert not equal
    assert kills.difference(tmp_path / "a", tmp_path / "a") == (0.0, 0.0, True)


@pytest.mark.slow
def test_twenty_kills_leave_the_run_as_it_would_have_been() -> None:
    command = [sys.executable, "-m", "tests.hybridnets.training.kills", "--count", "20", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=kills.ROOT, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "20 kills with -9" in done.stdout
    assert " bit for bit equal" in done.stdout
    assert "not bit for bit" not in done.stdout
    assert " 0 orphaned processes" in done.stdout
