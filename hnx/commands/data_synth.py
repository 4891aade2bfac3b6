"""`hnx data synth`: labelled driving scenes from random numbers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

__all__ = ["command"]

_EVERY = 100  # scenes between two lines of progress where there is no terminal


@click.command(
    epilog="""\b
Examples:
  hnx data synth datasets --train 1000 --val 200 --seed 1
  hnx data synth datasets --train 5000 --val 200 --seed 1      goes on, and grows to 5000
  hnx data synth /tmp/other --train 100 --val 100 --seed 7 --lane-width 2

The same seed gives the same pixels on any number of workers. A run that was stopped goes on when the same command is
given again. Lane labels are equally wide in both splits; BDD100K has 8 px in train and 2 px in val.""",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--train", type=int, default=1000, show_default=True, help="Scenes to train on.")
@click.option("--val", type=int, default=200, show_default=True, help="Scenes to evaluate on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other scenes.")
@click.option("--workers", type=int, help="Processes.  [default: one for each core]")
@click.option(
    "--lane-width",
    type=float,
    default=8.0,
    show_default=True,
    metavar="PX",
    help="Width of lane labels, in pixels of a picture 720 rows high.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Make everything anew, whatever generated data set lies in DIR; never touches other data.",
)
def command(
    folder: Path, train: int, val: int, seed: int, workers: int | None, lane_width: float, overwrite: bool
) -> None:
    """Write labelled driving scenes to DIR: pictures, boxes, drivable area and lane lines.

    The layout is upstream's (imgs, det_annot, da_seg_annot, ll_seg_annot, each with train and val), 1280x720. Nothing
    is downloaded, and no rights are claimed in what is made. About 4 scenes a second on each core.
    """
    from hnx.console import progress, success
    from hybridnets.errors import printable
    from tools.synth import SynthConfig, SynthProgress, generate

    config = SynthConfig(folder, train, val, seed, workers, lane_width=lane_width, overwrite=overwrite)
    with progress() as bar:
        task = bar.add_task("scenes", total=train + val, extra="")

        def show(state: SynthProgress) -> None:
            bar.update(task, completed=state.done, extra=f"{state.kept} kept" if state.kept else "")
            if bar.disable and (state.done % _EVERY == 0 or state.done == state.total):
                print(f"{state.done} of {state.total} scenes", file=sys.stderr, flush=True)

        report = generate(config, show)
    success(f"{report.folder}: {train} scenes to train on, {val} to evaluate on ({report.written} new)")
    print("objects  " + (", ".join(f"{count} {name}" for name, count in report.objects.items()) or "none"))
    print(f"next     hnx data check {printable(shlex.quote(str(report.folder)))}")
