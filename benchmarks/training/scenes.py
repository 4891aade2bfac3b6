"""Generated scenes to train on, made by `hnx data synth` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.surroundings import with_root
from hybridnets.errors import HnxError

__all__ = ["make_scenes", "reason_in"]


def reason_in(said: bytes) -> str:
    """The command's own error in what a child said, else its last words."""
    text = said.decode(errors="replace").strip()
    own = text.find("hnx: ")
    return " ".join(text[own:].splitlines()[:2]) if own >= 0 else text[-300:]


def make_scenes(folder: Path, train: int, seed: int) -> None:
    """Write `train` scenes to train on and one to validate on; those that lie there are kept.

    Raises:
        HnxError: it failed.
    """
    words = ["data", "synth", str(folder), "--train", str(train), "--val", "1", "--seed", str(seed)]
    done = subprocess.run([sys.executable, "-m", "hnx", *words], env=with_root(), capture_output=True, check=False)
    if done.returncode:
        raise HnxError(f"hnx data synth ended with {done.returncode}", why=reason_in(done.stderr))
