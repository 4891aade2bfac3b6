"""`hnx sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from calibration.search import Sensitivity

__all__ = ["command"]


@click.command(
    short_help="Rank the blocks of a network by what INT8 does to each task.",
    epilog="Examples:  hnx sensitivity --data datasets --limit 200   |   hnx sensitivity exports/hybridnets_c3_384x640 "
    "--for onnxruntime --calib drive.mp4 --csv blocks.csv",
)
@click.argument("bundle", required=False)
@click.option(
    "--for",
    "target",
    type=click.Choice(["openvino", "onnxruntime", "tensorrt"]),
    default="openvino",
    show_default=True,
    help="Whose placement of INT8; tensorrt's is computed by ONNX Runtime.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Labelled images.  [default: datasets/ if it is there, else generated scenes]",
)
@click.option("-p", "--project", default="bdd100k", show_default=True, help="Of that data set: a name or a .yml file.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Images to measure on.")
@click.option("--calib", metavar="PATH", help="What ranges are measured on, as for hnx quantize.")
@click.option("--frames", type=int, default=300, show_default=True, help="How many.")
@click.option("--split", metavar="NAME", help="Of a data set to calibrate on.  [default: train]")
@click.option("--exclude", multiple=True, metavar="REGEX", help="Nodes and blocks that stay in floating point anyway.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of frames.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all available]")
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(path_type=Path),
    default=Path("results") / "sensitivity.csv",
    show_default=True,
    help="The table; a picture of the same name lies beside it.",
)
def command(
    bundle: str | None,
    target: str,
    data: Path | None,
    project: str,
    limit: int,
    calib: str | None,
    frames: int,
    split: str | None,
    exclude: tuple[str, ...],
    seed: int,
    threads: int | None,
    csv_path: Path,
) -> None:
    """Quantise each block alone and measure what every task loses; the most harmful blocks come first.

    A run that was stopped goes on when the same command is given again.
    """
    from dataclasses import replace

    from benchmarks.report import check_output
    from calibration.engine import QuantiseConfig, calibrate
    from calibration.ranges import RangeConfig
    from calibration.variants import check_manifest
    from hnx.budget import Budget, rank
    from hnx.console import note, progress, status
    from hnx.defaults import calibration_source, resolve_bundle
    from hnx.early import check_quantisable, labelled_split, warn_of_cpu
    from runtimes.base import available_threads

    threads = threads or available_threads()
    config = QuantiseConfig(
        source=calib or "",
        frames=frames,
        targets=(target,),
        ranges=RangeConfig(threads=threads),
        exclude=exclude,
        split=split,
        seed=seed,
    )
    check_output(csv_path)
    opened = resolve_bundle(bundle)
    check_manifest(opened)
    check_quantisable(opened, config.targets, exclude)
    warn_of_cpu(config.targets, losses=True)
    budget = Budget(0.0, labelled_split(opened, project, data, limit), limit, threads)
    if calib is None:
        source, part = calibration_source(opened, frames)
        config = replace(config, source=source, split=split or part)
    with status("calibrating") as step, progress() as bar:
        task = bar.add_task("calibrating", total=None, extra="inferences")
        found = calibrate(opened, config, step, lambda done, total: bar.update(task, completed=done, total=total))
    for text in found.frames.notes:
        note(text)
    ranking = rank(opened, config, target, found, budget)
    _report(ranking, csv_path, target)


def _report(ranking: Sensitivity, path: Path, target: str) -> None:
    import csv
    import io

    from hnx.console import plain_table, stdout, success
    from hybridnets.files import write_bytes

    tasks = list(ranking.baseline)
    rows = [[block, *(ranking.alone[block][task] for task in tasks)] for block in ranking.ranked()]
    table = plain_table(f"block ({target})", *(f"{task} lost" for task in tasks))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["block", *tasks])
    for block, *values in rows:
        table.add_row(str(block), *(f"{value:+.2f}" for value in values))
        writer.writerow([block, *values])
    stdout().print(table)
    whole = ", ".join(f"{task} {value:.2f}" for task, value in ranking.baseline.items())
    print(f"points lost when that block alone is INT8; float: {whole}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.getvalue().encode())
    success(f"{path}")
    picture = _picture(ranking, path.with_suffix(".png"), target)
    if picture is not None:
        success(f"{picture}")
    print("Next: hnx quantize --max-drop 0.5 puts back the most harmful ones")


def _picture(ranking: Sensitivity, path: Path, target: str) -> Path | None:
    """Bars of each task; None without matplotlib."""
    from hnx.console import note
    from hybridnets.files import atomic_path

    try:
        from matplotlib.figure import Figure
    except ImportError:
        note('no picture: matplotlib is not installed (pip install -e ".[eval]")')
        return None
    order, tasks = ranking.ranked()[::-1], list(ranking.baseline)
    figure = Figure(figsize=(4 * len(tasks), 1.2 + 0.24 * len(order)), layout="constrained")
    for number, task in enumerate(tasks):
        axes = figure.add_subplot(1, len(tasks), number + 1)
        values = [ranking.alone[block][task] for block in order]
        axes.barh(range(len(order)), values, color=["#c44e52" if value > 0 else "#4c72b0" for value in values])
        axes.set_yticks(range(len(order)), order if number == 0 else [""] * len(order), fontsize=8)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(f"{task}: points lost", fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(f"each block alone in INT8 ({target})", fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return path
