"""From a new process to the first inference: `python -m benchmarks.coldstart BUNDLE`.

Every start has a process of its own, and the kinds take turns, forwards and then backwards: the graph as upstream's
code exports it and our un-rewritten export (both compiled by OpenVINO without hnx), the bundle on a machine that has
never seen it (an empty cache, which is filled), and on one that has. What counts is the ratio of the time from opening
files to the first result, libraries already imported; beside it stands the ratio with the imports. Files come from
the system's file cache for all alike.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.coldstart.samples import SEEN, STOCK, UPSTREAM, take_samples
from benchmarks.coldstart.table import rows, text
from benchmarks.coldstart.upstream import can_make_upstream, make_upstream
from benchmarks.environment import Stopwatch, describe_environment
from benchmarks.rewrites import make_stock
from benchmarks.scripts import exit_code, foreign_cores, is_busy, write_figures
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.errors import ExitCode
from runtimes.base import available_threads
from runtimes.cpu import has_native

__all__ = ["main"]

SCHEMA_VERSION = 1


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _plain(bundle: Bundle, stock: Path | None, folder: Path) -> dict[str, Bundle]:
    """The graphs that OpenVINO compiles without hnx, the slowest first."""
    found = {}
    if can_make_upstream(bundle):
        _tell(f"exporting: {UPSTREAM}")
        found[UPSTREAM] = make_upstream(bundle, folder / UPSTREAM / "hybridnets.onnx")
    else:
        _tell("left out: upstream's graph needs a bundle with weights, both heads and an EfficientNet")
    if stock is None:
        (folder / STOCK).mkdir()
        found[STOCK] = make_stock(bundle, folder / STOCK, _tell)
    else:
        found[STOCK] = open_bundle(stock)
    return found


def _main(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle)
    precision = options.precision or ("bf16" if has_native("bf16") else "fp32")
    threads = options.threads or available_threads()
    with tempfile.TemporaryDirectory(prefix="hnx-coldstart-") as name:
        folder = Path(name)
        plain = _plain(bundle, options.stock, folder)
        caches = folder / "caches"
        caches.mkdir()
        _tell("measuring")
        watch = Stopwatch()
        samples = take_samples(bundle, plain, caches, precision=precision, threads=threads, rounds=options.rounds)
        wall, others = watch.stop()
    found = rows(samples, list(plain))
    print(f"{bundle.name}, OpenVINO {precision}, {threads} thread(s), {options.rounds} rounds, new processes")
    print(text(found, list(plain)))
    # our own children are other programs to the stopwatch; what they cost after their answer is not in their account
    own = sum(sample.process_cpu_ms / 1e3 for kinds in samples.values() for taken in kinds for sample in taken)
    foreign = foreign_cores(wall, None if others is None else others - own)
    if is_busy(foreign):
        print(f"busy machine: other programs kept {foreign:.1f} cores busy meanwhile; look at the spread and CPU")
    if options.json is not None:
        report: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "bundle": bundle.name,
            "precision": precision,
            "threads": threads,
            "rounds": options.rounds,
            "foreign_cores": foreign,
            "environment": describe_environment(),
            "rows": [asdict(row) | {"samples": [[asdict(s) for s in r] for r in samples[row.name]]} for row in found],
        }
        write_figures(options.json, report)
    base = next(iter(plain))
    seen = next(row for row in found if row.name == SEEN).ratios[base].paired
    print(f"seen before: {seen:.3f} of {base}")
    if options.check is not None and seen > options.check:
        print(f"the limit is {options.check:.3f}")
        return int(ExitCode.GATE_FAILED)
    return int(ExitCode.OK)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 3 where a bundle seen before stays above the ratio given with --check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coldstart", description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle with weights.safetensors, or any with --stock")
    parser.add_argument("--stock", type=Path, metavar="BUNDLE", help="un-rewritten graph (default: exported again)")
    parser.add_argument("--rounds", type=int, default=8, help="each goes through all starts twice (default: 8)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: bf16 where the CPU has it")
    parser.add_argument("--threads", type=int, help="default: all available")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples too")
    parser.add_argument(
        "--check", type=float, metavar="RATIO", help="exit with 3 when the bundle needs more of the first row's time"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1 or (options.threads is not None and options.threads < 1):
        parser.error("--rounds and --threads count from 1")
    return exit_code(lambda: _main(options))


if __name__ == "__main__":
    sys.exit(main())
