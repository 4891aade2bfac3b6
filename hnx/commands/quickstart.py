"""`hnx quickstart`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from benchmarks.accuracy.report import EvalReport
    from benchmarks.joined import JoinedReport
    from benchmarks.report import Report
    from hybridnets.bundle import Bundle

__all__ = ["command"]

# some 20 s for four runtimes on two cores, scenes included
SCENES = 16
_PHASES = {
    "loading": "loading every runtime",
    "measuring": "measuring, all of them in turns",
    "going on": "going on: some medians are not fixed yet",
}


@click.command(
    short_help="Export, measure, evaluate and picture the default network in one go.",
    epilog="Examples:  hnx quickstart   |   hnx quickstart -o /tmp/first-look   |   hnx quickstart -w my.safetensors",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results") / "quickstart",
    show_default=True,
    help="Folder of the report and the picture.",
)
@click.option(
    "-w",
    "--weights",
    metavar="NAME|FILE",
    help="Export these first: a checkpoint, or a name of `hnx weights list`.  [default: the newest bundle in exports/, "
    "else weights/hybridnets.pth, else what came with this installation]",
)
def command(output: Path, weights: str | None) -> None:
    """Make a bundle if there is none, measure its speed and accuracy on every runtime of this machine, draw a frame.

    Takes about three minutes; accuracy is that on 16 generated scenes. With an untrained network the timings hold,
    accuracy only shows that the runtimes agree, and the picture that the pipeline works.
    """
    from benchmarks.report import check_output, print_report, write_report
    from hnx.console import stdout
    from hnx.defaults import export_default, resolve_bundle

    json_file, accuracy_file, picture = output / "bench.json", output / "eval.json", output / "overlay.jpg"
    table_file = output / "report.md"
    for path in (json_file, accuracy_file, table_file, picture):
        check_output(path)
    bundle = resolve_bundle(None) if weights is None else export_default(weights)
    report = _measure(bundle)
    print_report(report, stdout())
    write_report(report, json_file)
    accuracy = _evaluate(bundle, report, accuracy_file)
    joined = None if accuracy is None else _join(report, json_file, accuracy, accuracy_file, table_file)
    runtime = _draw(bundle, picture)
    print()
    lines = _agreement(accuracy, accuracy_file)
    if joined is not None:
        lines.append(f"both     {table_file}, made by: hnx report {json_file} {accuracy_file}")
    print(_summary(bundle, report, json_file, picture, runtime, lines))


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


def _evaluate(bundle: Bundle, report: Report, file: Path) -> EvalReport | None:
    """Accuracy of the rows that were timed; None where it cannot be had, which is no reason to end."""
    from benchmarks.accuracy.config import EvalConfig
    from benchmarks.accuracy.views import write_report
    from benchmarks.report import row_name
    from hnx.console import note
    from hnx.defaults import generated_split
    from hnx.evaluation import evaluate
    from hybridnets.errors import HnxError
    from hybridnets.project import load_project

    # an untrained network's low precisions say nothing
    rows = [row_name(row) for row in report.measured if row["precision"] == "fp32" or not bundle.untrained]
    if not rows:
        return None
    try:
        config = EvalConfig(
            bundle,
            generated_split(load_project(), SCENES),
            runtimes=",".join(rows),
            # an untrained network finds 46 000 boxes a frame above the paper's 0.001
            protocol="deploy" if bundle.untrained else "paper",
            store=file.parent / "eval",
            fresh=True,
        )
        accuracy = evaluate(config).report
    except HnxError as error:
        note(f"no accuracy: {error}")
        return None
    write_report(accuracy, file)
    return accuracy


def _join(
    speed: Report, speed_file: Path, accuracy: EvalReport, accuracy_file: Path, table_file: Path
) -> JoinedReport | None:
    """Print and write what each row costs in accuracy beside its latency; None where there is nothing to join."""
    from benchmarks.joined import join, print_joined, write_joined
    from hnx.console import note, stdout
    from hybridnets.errors import HnxError

    try:
        joined = join({speed_file: speed}, {accuracy_file: accuracy})
    except HnxError as error:
        note(f"no common table: {error}")
        return None
    print()
    print_joined(joined, stdout())
    write_joined(joined, table_file)
    return joined


def _agreement(report: EvalReport | None, file: Path) -> list[str]:
    """How far the runtimes lie apart in float32, in one line."""
    rows = [] if report is None else [row for row in report.measured if row["precision"] == "fp32"]
    if report is None or not rows:
        return []
    drops = [
        abs(row["drop"]["metrics"][name]["points"])
        for row in rows
        if "drop" in row
        for name in report.settings["watched"]
        if name in row["drop"]["metrics"]
    ]
    words = f"{len(rows)} runtimes agree within {max(drops):.3f} percent points in fp32" if drops else "one runtime"
    return [f"accuracy {file}: {words} on {rows[0]['images']} generated scenes"]


def _draw(bundle: Bundle, picture: Path) -> str:
    from hybridnets.data import read_demo_frame
    from hybridnets.draw import draw_overlay
    from hybridnets.sinks import write_image
    from runtimes.predictor import load

    frame = read_demo_frame()
    with load(bundle) as predictor:
        write_image(picture, draw_overlay(frame, predictor(frame), bundle.classes, bundle.seg_classes))
        return predictor.runtime.name


def _summary(bundle: Bundle, report: Report, json_file: Path, picture: Path, runtime: str, accuracy: list[str]) -> str:
    proof = bundle.manifest.get("proof", {}).get("outputs", {})
    worst = max((item["rel_l2"] for item in proof.values()), default=None)
    lines = [f"bundle   {bundle.path}" + (f", equal to PyTorch within {worst:.1e}" if worst is not None else "")]
    if report.measured:
        best = min(report.measured, key=lambda row: row["end_to_end_ms"]["p50"])
        lines.append(
            f"fastest  {best['runtime']} {best['executed']}: {best['end_to_end_ms']['p50']:.1f} ms a frame end to end "
            f"(p99 {best['end_to_end_ms']['p99']:.1f}), of which network {best['forward_ms']['p50']:.1f}"
        )
    lines += [f"report   {json_file}", *accuracy, f"picture  {picture} ({runtime})"]
    if bundle.untrained:
        lines.append("         made with untrained weights: it shows that the pipeline works, nothing else")
    lines += [
        "",
        "Next:",
        "  hnx export -w YOUR.pth --width 640 --height 384    your checkpoint as a proved bundle",
        "  hnx bench --runtime all                            a latency table to trust",
        "  hnx eval --data datasets                           accuracy on your labelled images, and every drop",
        "  hnx report bench.json eval.json                    both in one table, from --json files of the two",
        "  hnx infer VIDEO.mp4 --save-json                    boxes, road and lanes on your own frames",
        "  hnx compare --runtime torch,openvino               outputs, boxes and masks side by side",
    ]
    return "\n".join(lines)
