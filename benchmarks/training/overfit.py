"""Whether a network learns at all: c0 from scratch must know 64 generated scenes by heart in the end.

    OMP_NUM_THREADS=1 nice python -m benchmarks.training.overfit --folder runs/overfit

Everything is done by the real `hnx train`, which validates on the very scenes it trains on. A run that was stopped
goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.surroundings import with_root
from benchmarks.training.arguments import ending, positive, size
from benchmarks.training.scenes import make_scenes
from hybridnets import project as projects
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import read_json, write_bytes

__all__ = ["BARS", "Overfit", "main", "missed", "overfit"]

NAME = "overfit"
SCENES, SEED = 64, 5
# what has to be reached: upstream's measures on the letterboxed input
BARS = {"mAP50": 0.90, "road IoU": 0.97, "lane IoU": 0.60}


@dataclass(frozen=True)
class Overfit:
    """One run.

    Attributes:
        folder: for the scenes, the project file and the run.
        epochs: passes over the scenes.
        size: (width, height) of the input.
        extra: further options of `hnx train`, which override those here.
    """

    folder: Path
    epochs: int = 200
    size: tuple[int, int] = (384, 256)
    extra: tuple[str, ...] = ()

    def options(self) -> list[str]:
        """Words for `hnx train`.

        Forty times the usual learning rate: on 12 scenes at 256x128 the loss after 135 steps of four images was 3.4
        with 1e-3, 1.3 with 3e-3 and 1.1 with 8e-3. Batches of four take more steps for as many images. Clipped at 5,
        because the gradients of the first steps (norm 1000) would slow Adam down for the next 1000. It ends at mAP50
        0.933, road 0.977, lane 0.753; 120 epochs of the 200 reach the bars, with 0.0003 of the road to spare.
        """
        width, height = self.size
        fixed = {
            "-p": self.folder / f"{NAME}.yml",
            "--data": self.folder / "data",
            "-o": self.folder,
            "-c": 0,
            "--size": f"{width}x{height}",
            "-b": 4,
            "--num-epochs": self.epochs,
            "--lr": 4e-3,
            "--warmup": 50,
            "--weight-decay": 0.0,
            "--clip-norm": 5.0,
            "--seg-weight": 4.0,
            "--augment": False,
            "--val-interval": max(1, self.epochs // 5),
            "--save-interval": 200,
            "-n": 0,
            "--device": "cpu",
        }
        return [str(word) for pair in fixed.items() for word in pair] + list(self.extra)


def prepare(job: Overfit) -> None:
    """Generate the scenes once, and write a project that validates on its training data.

    Raises:
        HnxError: a file cannot be written.
    """
    make_scenes(job.folder / "data", SCENES, SEED)
    shipped = Path(projects.__file__).with_name("projects") / f"{projects.DEFAULT_PROJECT}.yml"
    content = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    content["dataset"]["test_set"] = content["dataset"]["train_set"]
    write_bytes(job.folder / f"{NAME}.yml", yaml.safe_dump(content, sort_keys=False).encode())


def overfit(job: Overfit) -> dict[str, float]:
    """Figures of the last validation, under the names of `BARS`.

    Raises:
        HnxError: the data cannot be made, or the run failed.
    """
    prepare(job)
    last = ["-w", "last"] if (job.folder / NAME / "last.pth").is_file() else []
    command = [sys.executable, "-m", "hnx", "train", *job.options(), *last]
    code = subprocess.run(command, env=with_root(), check=False).returncode
    if code:
        known = {int(c) for c in ExitCode}
        raise HnxError(f"hnx train ended with {code}", code=ExitCode(code) if code in known else ExitCode.FAILED)
    return figures(read_json(job.folder / NAME / "report.json"))


def figures(report: Mapping[str, Any]) -> dict[str, float]:
    """The measured values in a run's report; 0 for one that could not be measured."""
    scores = report["last"]["scores"]
    seg = {f"{name} IoU": part["IoU"] for name, part in scores["seg"].items()}
    return {name: float({"mAP50": scores["mAP50"], **seg}[name] or 0.0) for name in BARS}


def missed(found: Mapping[str, float]) -> list[str]:
    """Names of the figures below their bar."""
    return [name for name, bar in BARS.items() if found[name] < bar]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 3 where one of them misses its bar."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.overfit", description="c0 from scratch on 64 generated scenes."
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/overfit"))
    parser.add_argument("--epochs", type=positive, default=Overfit.epochs)
    parser.add_argument("--size", type=size, default=Overfit.size)
    options, extra = parser.parse_known_args(arguments)
    job = Overfit(options.folder, options.epochs, options.size, tuple(extra))

    def act() -> int:
        found = overfit(job)
        for name, value in found.items():
            print(f"{name:9} {value:.4f}  (at least {BARS[name]:.2f})")
        return int(ExitCode.GATE_FAILED) if missed(found) else 0

    return ending(act)


if __name__ == "__main__":
    sys.exit(main())
