"""`python -m benchmarks.training`: a step against the plain loop, and with `--data` how fast samples are read.

Both train the same network from the same weights on the same batches, in turns, so that a busy machine hits both
alike. Ours has gradient clipping and the averaged weights on top.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.training.arguments import ending, positive, size
from benchmarks.training.compare import Job, compare
from benchmarks.training.loader import loader_speed
from hybridnets.files import write_json

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; JSON with --json."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description="A training step of ours against a plain one."
    )
    parser.add_argument("-c", "--coef", type=int, default=3)
    parser.add_argument("--size", type=size, default=(640, 384))
    parser.add_argument("-b", "--batch", type=positive, default=4)
    parser.add_argument("--rounds", type=positive, default=8)
    parser.add_argument("--amp", choices=["off", "auto", "bf16", "fp16"], default="off")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, help="a data set: also measure reading and augmenting it")
    parser.add_argument("--workers", type=positive, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    return ending(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> int:
    job = Job(options.coef, options.size, options.batch, options.amp, options.compile, options.device)
    found = compare(
        job,
        options.rounds,
        lambda index, seconds: print(
            f"round {index} of {options.rounds}: ours {seconds['ours']:.3f} s, plain {seconds['plain']:.3f} s",
            file=sys.stderr,
        ),
    )
    values = found.to_json()
    for name in ("ours", "plain"):
        seconds = statistics.median(values[name])
        print(f"{name:6} {seconds * 1e3:8.0f} ms a step  {found.images / seconds:7.2f} images/s")
    print(f"ratio  {found.ratio:8.3f} (median of {options.rounds} rounds)")
    if options.data is not None:
        speed = loader_speed(options.data, options.size, options.batch, workers=options.workers, batches=10)
        values["loader_images_per_s"] = speed
        needed = found.images / statistics.median(found.ours)
        print(f"loader {speed:8.1f} images/s with {options.workers} processes, {speed / needed:.1f} times the step's")
    if options.json is not None:
        write_json(options.json, values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
