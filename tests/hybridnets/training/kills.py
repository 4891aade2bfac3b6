"""Kill a run with -9 at random moments, resume it each time, and hold its end against an uninterrupted run's.

    python -m tests.hybridnets.training.kills --count 20 --seed 0

The run is `hnx train` in a process of its own, on generated scenes, with a checkpoint every other step, so that kills
hit steps, validations, start-ups and half-written files alike. When it ends before all kills are spent, another one
begins with those that are left.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from hybridnets.training import resume

ROOT = Path(__file__).resolve().parents[3]
TRAIN, VAL, BATCH, EPOCHS = 24, 4, 4, 8  # 48 steps
START_UPS = 0.2  # share of the kills that hit a process before its first step
SPAN = 0.25  # of a run's training time; within it each of the other kills comes


@dataclass(frozen=True)
class Outcome:
    """What all kills led to.

    Attributes:
        kills: that hit a living run, and how many of them before its first step.
        runs: interrupted runs that came to their end.
        steps: of each run.
        loss, weights: largest difference to the uninterrupted run, over all rows of the loss curve and over all
            numbers of both networks and the optimizer; relative where the number is above 1.
        equal: bit for bit.
        orphans: processes of killed runs that were alive in the end.
    """

    kills: int
    before_start: int
    runs: int
    steps: int
    loss: float
    weights: float
    equal: bool
    orphans: int


class Life:
    """One process of a run, its words in a file."""

    def __init__(self, data: Path, folder: Path, workers: int) -> None:
        last = ["-w", "last"] if (folder / "bdd100k" / resume.LAST).is_file() else []
        options = {
            "--data": data,
            "-o": folder,
            "-c": 0,
            "--size": "128x128",
            "-b": BATCH,
            "-n": workers,
            "--num-epochs": EPOCHS,
            "--val-interval": 2,
            "--save-interval": 2,
            "--log-interval": 1,
            "--lr": 1e-3,
            "--device": "cpu",
        }
        words = [str(word) for pair in options.items() for word in pair]
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in end()
        # one thread: which of several adds first is no matter of the run
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "hnx", "train", *words, *last]
        self.process = subprocess.Popen(
            command, stdout=self._words, stderr=self._words, env=environment, cwd=ROOT, start_new_session=True
        )

    def said(self) -> str:
        """Everything so far."""
        return os.pread(self._words.fileno(), 1 << 20, 0).decode(errors="replace")

    def wait_for_start(self) -> None:
        """Return when the first step is near, or the process over."""
        while self.process.poll() is None and " step " not in self.said():
            time.sleep(0.02)

    def end(self) -> bool:
        """Wait for its end; whether the run is finished."""
        code = self.process.wait()
        said = self.said()
        self._words.close()
        if code not in (0, -9):
            raise AssertionError(f"hnx train ended with {code}:\n{said}")
        return code == 0


def spend(kills: int, seed: int, work: Path, workers: int) -> Outcome:
    """Do all of it below the folder `work`."""
    from tools.synth import SynthConfig, generate

    draw = random.Random(seed)
    data = work / "data"
    generate(SynthConfig(data, train=TRAIN, val=VAL, seed=5))
    began = time.monotonic()
    life = Life(data, work / "whole", workers)
    life.wait_for_start()
    start_up = time.monotonic() - began
    if not life.end():
        raise AssertionError("the uninterrupted run was killed")
    training = time.monotonic() - began - start_up
    say(f"uninterrupted: {start_up:.1f} s to the first step, {training:.1f} s of training")
    done = before = runs = 0
    groups: set[int] = set()
    found: list[tuple[float, float, bool]] = []
    while done < kills:
        folder, finished = work / f"run{runs}", False
        while not finished:
            life = Life(data, folder, workers)
            early = False
            if done < kills:
                early = draw.random() < START_UPS
                if early:
                    time.sleep(draw.uniform(0.0, start_up))
                else:
                    life.wait_for_start()
                    time.sleep(draw.uniform(0.0, SPAN * training))
                life.process.kill()
            groups.add(life.process.pid)
            finished = life.end()
            if not finished:
                done, before = done + 1, before + early
                say(f"kill {done} of {kills}{' before the first step' if early else ''}, {position(folder)}")
        runs += 1
        found.append(difference(work / "whole" / "bdd100k", folder / "bdd100k"))
    left = survivors(groups)
    steps = int(resume.read_last(work / "whole" / "bdd100k" / resume.LAST)["step"])
    loss, weights = max(row[0] for row in found), max(row[1] for row in found)
    return Outcome(done, before, runs, steps, loss, weights, all(row[2] for row in found), left)


def survivors(groups: set[int]) -> int:
    """Processes that outlived the leader of their group by ten seconds; they are killed."""
    end = time.monotonic() + 10.0
    while (left := members(groups)) and time.monotonic() < end:
        time.sleep(0.2)
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return len(left)


def members(groups: set[int]) -> list[int]:
    """Living processes of process groups."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if state != "Z" and int(group) in groups:
                found.append(int(path.parent.name))
    return found


def position(folder: Path) -> str:
    """Where a killed run stands; its checkpoint must be whole."""
    last = folder / "bdd100k" / resume.LAST
    return f"last.pth of step {resume.read_last(last)['step']}" if last.is_file() else "nothing written yet"


def difference(one: Path, other: Path) -> tuple[float, float, bool]:
    """(of the loss curves, of all weights, bit for bit equal) of two runs."""
    loss, equal = 0.0, True
    for name, columns in (("log.csv", 9), ("validation.csv", 6)):
        first, second = rows(one / name), rows(other / name)
        if [row[0] for row in first] != [row[0] for row in second]:
            raise AssertionError(f"{name}: steps {[r[0] for r in first]} and {[r[0] for r in second]}")
        for a, b in zip(first, second, strict=True):
            # the columns behind these are speeds
            equal &= a[:columns] == b[:columns]
            loss = max(loss, *(apart(float(x), float(y)) for x, y in zip(a[:columns], b[:columns], strict=True)))
    weights = 0.0
    contents = [resume.read_last(folder / resume.LAST) for folder in (one, other)]
    for key in ("step", "model", "train_model", "optimizer", "ema_updates", "schedule"):
        for x, y in zip(*(numbers(content[key]) for content in contents), strict=True):
            equal &= x.equal(y)
            scale = x.double().abs().clamp(min=1.0)
            weights = max(weights, float(((x.double() - y.double()).abs() / scale).max()) if x.numel() else 0.0)
    return loss, weights, equal


def apart(x: float, y: float) -> float:
    return abs(x - y) / max(1.0, abs(x))


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))[1:]


def numbers(value: Any) -> Iterator[torch.Tensor]:
    """All numbers of nested values, in their order."""
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, int | float):
        yield torch.tensor(float(value), dtype=torch.float64)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what all kills led to; 1 where the runs differ by more than 1e-6."""
    parser = argparse.ArgumentParser(prog="python -m tests.hybridnets.training.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that read images")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hnx-kills-") as work:
        found = spend(options.count, options.seed, Path(work), options.workers)
    print(
        f"{found.kills} kills with -9 ({found.before_start} before the first step) in {found.runs} runs of "
        f"{found.steps} steps: largest difference to the uninterrupted run {found.loss:.1e} in the losses, "
        f"{found.weights:.1e} in weights and optimizer; {'' if found.equal else 'not '}bit for bit equal; "
        f"{found.orphans} orphaned processes; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 0 if max(found.loss, found.weights) <= 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
