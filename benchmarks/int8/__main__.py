"""`python -m benchmarks.int8 table BUNDLE --data DIR` and `python -m benchmarks.int8 agreement BUNDLE --data DIR`.

`table`: latency as a share of stock OpenVINO's, in turns, and points lost on labelled images: stock, our rewrites, our
INT8, and NNCF's default where `tools/nncf_default.py` made one. `agreement`: one Q/DQ file in ONNX Runtime, in OpenVINO
and as it is written in PyTorch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.accuracy.config import check_project
from benchmarks.accuracy.quick import read_samples
from benchmarks.environment import Stopwatch, describe_environment
from benchmarks.int8.agreement import LIMIT, Agreement, agree
from benchmarks.int8.table import Loss, losses, measure, networks
from benchmarks.rewrites import Row, make_stock
from benchmarks.scripts import exit_code, foreign_cores, is_busy, write_figures
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.dataset import Sample, open_split
from hybridnets.errors import ExitCode
from hybridnets.project import load_project
from runtimes.base import available_threads
from runtimes.cpu import has_native

__all__ = ["main"]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _samples(options: argparse.Namespace, bundle: Bundle) -> list[Sample]:
    project = load_project(options.project)
    check_project(bundle, project)
    return read_samples(bundle, open_split(project, options.data, options.split), options.limit)


def _table(options: argparse.Namespace) -> int:
    ours = open_bundle(options.bundle)
    samples = [] if options.data is None else _samples(options, ours)
    twin = None if options.twin is None else open_bundle(options.twin)
    also = [open_bundle(path) for path in options.also]
    half = "bf16" if has_native("bf16") else "fp32"
    with tempfile.TemporaryDirectory(prefix="hnx-int8-") as folder:
        stock = make_stock(ours, Path(folder), _tell)
        chosen = networks(stock, ours, half=half, nncf=options.nncf, twin=twin, also=also)
        watch = Stopwatch()
        found, timings, scored = measure(
            chosen, samples, options.threads, rounds=options.rounds, count=options.samples, on_step=_tell
        )
        wall, others = watch.stop()
    lost = losses(chosen, scored) if samples else {}
    print(
        f"{ours.name}, OpenVINO, {options.threads} thread(s), {options.rounds} rounds, {len(samples)} labelled images"
    )
    _print(found, lost)
    foreign = foreign_cores(wall, others)
    if is_busy(foreign):
        print(f"busy machine: other programs kept {foreign:.1f} cores busy meanwhile; look at paired and CPU")
    rows = [
        asdict(row) | {"loss": asdict(lost[row.name]) if row.name in lost else None, "samples_ms": asdict(timing)}
        for row, timing in zip(found, timings.values(), strict=True)
    ]
    _write(options, {"kind": "int8 table", "images": len(samples), "foreign_cores": foreign, "rows": rows})
    return int(ExitCode.OK)


def _print(found: Sequence[Row], lost: dict[str, Loss]) -> None:
    names = list(next(iter(lost.values())).points) if lost else []
    heads = "".join(f"  {f'{task} lost':>27}" for task in names)
    print(f"{'network':20} {'p50 ms':>8} {'paired':>7} {'lowest':>7} {'highest':>7} {'CPU':>6}{heads}")
    for row in found:
        cells = ""
        if row.name in lost:
            cells = "".join(f"  {_cell(lost[row.name], task):>27}" for task in names)
        print(
            f"{row.name:20} {row.p50_ms:8.2f} {row.paired:7.3f} {row.spread[0]:7.3f} {row.spread[1]:7.3f} "
            f"{row.paired_cpu:6.3f}{cells}"
        )


def _agreement(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle)
    samples = _samples(options, bundle)
    found = agree(bundle, samples, options.threads, on_step=_tell)
    print(f"{bundle.name}, {len(samples)} labelled images")
    for item in found:
        _print_agreement(item)
    _write(options, {"kind": "int8 agreement", "images": len(samples), "files": [item.to_json() for item in found]})
    worst = max(value for item in found for value in item.spread.values())
    print(f"largest difference between two runtimes on one file: {worst:.2f} points (limit {options.limit_points:g})")
    return int(ExitCode.OK if worst <= options.limit_points else ExitCode.GATE_FAILED)


def _print_agreement(item: Agreement) -> None:
    print(f"{item.file} (placement for {item.placement})")
    names = list(item.spread)
    print(f"  {'':16}" + "".join(f"{task:>14}" for task in names))
    for name, figures in item.figures.items():
        print(f"  {name:16}" + "".join(f"{figures[task]:14.2f}" for task in names))
    print(f"  {'spread':16}" + "".join(f"{item.spread[task]:14.2f}" for task in names))
    for name, lost in item.differences.items():
        print(f"  {name} lost against the simulated network: {_told(lost)}")
    if item.lost is not None:
        print(f"  the simulated network lost against {item.lost.baseline}: {_told(item.lost)}")


def _told(lost: Loss) -> str:
    """Points lost of each task, with their intervals."""
    return "; ".join(f"{task} {_cell(lost, task)}" for task in lost.points)


def _cell(lost: Loss, task: str) -> str:
    low, high = lost.interval.get(task, (float("nan"), float("nan")))
    return f"{lost.points[task]:+.2f} ({low:+.2f} to {high:+.2f})"


def _write(options: argparse.Namespace, report: dict[str, Any]) -> None:
    if options.json is None:
        return
    head = {"schema_version": 1, "threads": options.threads, "environment": describe_environment()}
    write_figures(options.json, head | report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("table", _table), ("agreement", _agreement)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("bundle", type=Path, help="with INT8 variants by hnx quantize")
        without = "; without them latency alone" if name == "table" else ""
        command.add_argument("--data", type=Path, required=not without, metavar="DIR", help=f"labelled images{without}")
        command.add_argument("--split", help="of them (default: the project's)")
        command.add_argument("-p", "--project", default="bdd100k", help="that the labels follow")
        command.add_argument("--limit", type=int, default=200, help="images at most (default: 200)")
        command.add_argument("--threads", type=int, default=available_threads(), help="default: all available")
        command.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples too")
        if name == "table":
            command.add_argument("--nncf", type=Path, metavar="XML", help="made by tools/nncf_default.py")
            command.add_argument("--twin", type=Path, metavar="BUNDLE", help="another network, against its own fp32")
            command.add_argument(
                "--also", type=Path, action="append", default=[], metavar="BUNDLE",
                help="the same network exported otherwise, as with --seg lowres; repeatable",
            )  # fmt: skip
            command.add_argument("--rounds", type=int, default=8, help="each goes through all twice (default: 8)")
            command.add_argument("--samples", type=int, default=3, help="inferences at each turn (default: 3)")
        else:
            command.add_argument(
                "--limit-points", type=float, default=LIMIT, metavar="POINTS", help="exit with 3 above it"
            )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 3 where runtimes disagree by more than --limit-points."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in ("limit", "threads", "rounds", "samples"):
        if getattr(options, name, 1) < 1:
            parser.error(f"--{name} counts from 1")
    return exit_code(lambda: int(options.run(options)))


if __name__ == "__main__":
    sys.exit(main())
