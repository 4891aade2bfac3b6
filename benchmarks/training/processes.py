"""Images/s of `hnx train` in two processes under torchrun, against one process pinned to one core.

    python -m benchmarks.training.processes -c 0 --size 384x256 -b 4 --rounds 3

Every process computes with one thread and reads its own images (`-n 0`), so that two of them have exactly twice the
cores of one. Both ways run the real command on the same generated scenes, in turns, and what they write to log.csv
about their speed is read; writing checkpoints and the first rows, in which kernels are chosen, do not count.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.surroundings import ROOT, with_root
from benchmarks.training.arguments import ending, positive, size
from benchmarks.training.scenes import make_scenes, reason_in
from hybridnets.errors import ExitCode, HnxError

__all__ = ["Scaling", "ScalingJob", "main", "measure_scaling", "speed_in"]

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
LOG_STEPS = 4  # of a row of log.csv


@dataclass(frozen=True)
class ScalingJob:
    """What is trained.

    Attributes:
        data: a data set whose validation split is small: it is measured once at the end of every run.
        coefficient, size, batch_size: of the network, its input (width, height), and of each process's batches.
        epochs: of every run; two processes take half the steps of one.
        sync_bn: two processes normalise over both batches.
        timeout: seconds that one run may take.
    """

    data: Path
    coefficient: int = 0
    size: tuple[int, int] = (384, 256)
    batch_size: int = 4
    epochs: int = 2
    sync_bn: bool = False
    timeout: float = 1800.0


@dataclass(frozen=True)
class Scaling:
    """Images/s of each round, in their order.

    Attributes:
        one: of one process on one core.
        two: of both processes together.
    """

    one: tuple[float, ...]
    two: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median over the rounds of two / one: the runs of a round share the machine's mood."""
        return statistics.median(b / a for a, b in zip(self.one, self.two, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {**asdict(self), "ratio": self.ratio}


def speed_in(log: Path) -> float:
    """Median images/s of a run's log.csv without its first row.

    Raises:
        HnxError: it has fewer than two rows.
    """
    with log.open(newline="", encoding="utf-8") as stream:
        speeds = [float(row["images_per_s"]) for row in csv.DictReader(stream)]
    if len(speeds) < 2:
        raise HnxError(f"{log} has {len(speeds)} rows", why="the first one is no measure", fix="ask for more epochs")
    return statistics.median(speeds[1:])


def cores() -> list[int]:
    """Numbers of the cores that this process may use.

    Raises:
        HnxError: fewer than two (exit code 4), or the system does not tell.
    """
    found = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(found) < 2:
        raise HnxError(
            f"{len(found) or 'An unknown number of'} cores",
            why="two processes need two, and one must be pinned to one",
            fix="run this on Linux with at least two cores",
            code=ExitCode.NOTHING_RAN,
        )
    return found


def run_training(job: ScalingJob, folder: Path, *, pinned_to: int | None) -> float:
    """Images/s of one run of `hnx train`: of one process on a core, or of two under torchrun.

    Raises:
        HnxError: it fails or takes too long.
    """
    width, height = job.size
    options = {
        "--data": job.data.resolve(),
        "-o": folder.resolve(),
        "-c": job.coefficient,
        "--size": f"{width}x{height}",
        "-b": job.batch_size,
        "-n": 0,
        "--num-epochs": job.epochs,
        "--val-interval": 0,
        "--cal-map": False,
        "--log-interval": LOG_STEPS,
        "--sync-bn": job.sync_bn,
        "--device": "cpu",
    }
    words = [str(word) for pair in options.items() for word in pair]
    command = [sys.executable, *(() if pinned_to is not None else TORCHRUN), "-m", "hnx", "train", *words]
    environment = with_root(OMP_NUM_THREADS="1")
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment, cwd=ROOT)
        try:
            if pinned_to is not None:
                os.sched_setaffinity(process.pid, {pinned_to})  # before it starts any thread
            code = process.wait(job.timeout)
        except subprocess.TimeoutExpired:
            raise HnxError(
                f"A run took more than {job.timeout:.0f} s", fix="give a smaller network, input or data set"
            ) from None
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun ends its own processes
                process.wait()
        if code:
            raise HnxError(f"hnx train ended with {code}", why=reason_in(os.pread(said.fileno(), 1 << 20, 0)))
    return speed_in(next(folder.glob("*/log.csv")))


def measure_scaling(
    job: ScalingJob, rounds: int, on_round: Callable[[int, float, float], None] = lambda index, one, two: None
) -> Scaling:
    """Runs of both kinds in turns; who goes first changes from round to round, and so does the core.

    Args:
        on_round: told the number of each round, from 1, and both speeds.

    Raises:
        HnxError: a run failed, or there are not two cores.
    """
    usable = cores()
    found: dict[str, list[float]] = {"one": [], "two": []}
    with tempfile.TemporaryDirectory(prefix="hnx-scaling-") as work:
        for index in range(rounds):
            for name in sorted(found, reverse=index % 2 == 1):
                core = usable[index % len(usable)] if name == "one" else None
                found[name].append(run_training(job, Path(work) / f"{index}{name}", pinned_to=core))
            on_round(index + 1, found["one"][-1], found["two"][-1])
    return Scaling(tuple(found["one"]), tuple(found["two"]))


def _with_scenes(job: ScalingJob, rounds: int, scenes: int) -> Scaling:
    """Measure on generated scenes of its own where no data set is named."""

    def show(index: int, one: float, two: float) -> None:
        print(f"round {index} of {rounds}: one {one:.2f}, two {two:.2f} images/s, {two / one:.2f}", file=sys.stderr)

    if job.data != Path():
        return measure_scaling(job, rounds, show)
    with tempfile.TemporaryDirectory(prefix="hnx-scenes-") as folder:
        make_scenes(Path(folder), scenes, seed=0)
        return measure_scaling(replace(job, data=Path(folder)), rounds, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both speeds and their ratio; JSON with --json."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.processes", description="Two training processes against one on one core."
    )
    parser.add_argument("--data", type=Path, default=Path(), help="a data set with few validation images")
    parser.add_argument("--scenes", type=positive, default=64, help="generated where there is no --data")
    parser.add_argument("-c", "--coef", type=int, default=0)
    parser.add_argument("--size", type=size, default=(384, 256))
    parser.add_argument("-b", "--batch", type=positive, default=4)
    parser.add_argument("--epochs", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--sync-bn", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    job = ScalingJob(options.data, options.coef, options.size, options.batch, options.epochs, options.sync_bn)

    def act() -> int:
        found = _with_scenes(job, options.rounds, options.scenes)
        print(f"one process on one core  {statistics.median(found.one):7.2f} images/s")
        print(f"two under torchrun       {statistics.median(found.two):7.2f} images/s")
        print(f"ratio                    {found.ratio:7.2f} (median of {options.rounds} rounds)")
        if options.json is not None:
            from hybridnets.files import write_json

            write_json(options.json, found.to_json())
        return 0

    return ending(act)


if __name__ == "__main__":
    sys.exit(main())
