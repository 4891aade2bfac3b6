"""`hnx quickstart`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from benchmarks.report import Report
    from hybridnets.bundle import Bundle

__all__ = ["command"]

_PHASES = {
    "loading": "loading every runtime",
    "measuring": "measuring, all of them in turns",
    "going on": "going on: some medians are not fixed yet",
}


@click.command(
    short_help="Export, measure and picture the default network in one go.",
    epilog="Examples:  hnx quickstart   |   hnx quickstart -o /tmp/first-look",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results") / "quickstart",
    show_default=True,
    help="Folder of the report and the picture.",
)
def command(output: Path) -> None:
    """Make a bundle if there is none, measure it on every runtime of this machine, and draw a real road frame.

    Takes about two minutes. Without a checkpoint in weights/hybridnets.pth the network is a seeded untrained one:
    the timings hold, the picture only shows that the pipeline works.
    """
    from benchmarks.report import check_output, print_report, write_report
    from hnx.console import stdout
    from hnx.defaults import resolve_bundle

    json_file, picture = output / "bench.json", output / "overlay.jpg"
    for path in (json_file, picture):
        check_output(path)
    bundle = resolve_bundle(None)
    report = _measure(bundle)
    print_report(report, stdout())
    write_report(report, json_file)
    runtime = _draw(bundle, picture)
    print()
    print(_summary(bundle, report, json_file, picture, runtime))


def _measure(bundle: Bundle) -> Report:
    from benchmarks.config import BenchConfig
    from benchmarks.latency import Progress, run_bench
    from hnx.console import status

    config = BenchConfig(bundle, preset="fast")
    if sys.stderr.isatty():
        with status("measuring every runtime") as step:
            return run_bench(config, lambda progress: step(progress.text))

    # a log wants to know what it waits for, not every turn
    said = ""

    def say(progress: Progress) -> None:
        nonlocal said
        if progress.phase != said:
            said = progress.phase
            print(_PHASES[said], file=sys.stderr, flush=True)

    return run_bench(config, say)


def _draw(bundle: Bundle, picture: Path) -> str:
    from hybridnets.data import read_demo_frame
    from hybridnets.draw import draw_overlay
    from hybridnets.sinks import write_image
    from runtimes.predictor import load

    frame = read_demo_frame()
    with load(bundle) as predictor:
        write_image(picture, draw_overlay(frame, predictor(frame), bundle.classes, bundle.seg_classes))
        return predictor.runtime.name


def _summary(bundle: Bundle, report: Report, json_file: Path, picture: Path, runtime: str) -> str:
    proof = bundle.manifest.get("proof", {}).get("outputs", {})
    worst = max((item["rel_l2"] for item in proof.values()), default=None)
    lines = [f"bundle   {bundle.path}" + (f", equal to PyTorch within {worst:.1e}" if worst is not None else "")]
    if report.measured:
        best = min(report.measured, key=lambda row: row["end_to_end_ms"]["p50"])
        lines.append(
            f"fastest  {best['runtime']} {best['executed']}: {best['end_to_end_ms']['p50']:.1f} ms a frame end to end "
            f"(p99 {best['end_to_end_ms']['p99']:.1f}), of which network {best['forward_ms']['p50']:.1f}"
        )
    lines += [f"report   {json_file}", f"picture  {picture} ({runtime})"]
    if bundle.untrained:
        lines.append("         made with untrained weights: it shows that the pipeline works, nothing else")
    lines += [
        "",
        "Next:",
        "  hnx export -w YOUR.pth --width 640 --height 384    your checkpoint as a proved bundle",
        "  hnx bench --runtime all                            a latency table to trust",
        "  hnx infer VIDEO.mp4 --save-json                    boxes, road and lanes on your own frames",
        "  hnx compare --runtime torch,openvino               outputs, boxes and masks side by side",
    ]
    return "\n".join(lines)
