"""`hnx data pseudo`: labels by a teacher."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hnx.finite import FiniteRange

if TYPE_CHECKING:
    from tools.pseudo import Teacher

__all__ = ["command"]

_EVERY = 100  # frames between two lines of progress where there is no terminal


@click.command(
    epilog="""\b
Examples:
  hnx data pseudo frames/ drive.mp4 --teacher twinlitenet.onnx -o real
  hnx data pseudo drive.mp4 --every 10 --teacher exports/hybridnets_c3_384x640 --conf 0.5 -o real
  hnx data merge mixed synthetic 'real*16' && hnx train --data mixed

A frame without box labels is left out of the detection loss and of every figure of detection; its label file says
"unlabelled": ["boxes"].""",
)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--teacher", required=True, metavar="FILE|BUNDLE", type=click.Path(path_type=Path),
    help="A segmentation network in ONNX (1x3xHxW, RGB in 0..1; two channels an output), or a bundle of hnx export.",
)  # fmt: skip
@click.option("-o", "--output", "folder", required=True, metavar="DIR", type=click.Path(path_type=Path),
              help="The data set; frames are added to it.")  # fmt: skip
@click.option("-p", "--project", default="bdd100k", show_default=True, help="Project name or .yml file.")
@click.option("--split", default="train", show_default=True, help="Which part of the data set.")
@click.option("--outputs", metavar="OUT=CLASS,...", help="What an ONNX teacher's outputs mean.  [default: by name]")
@click.option("--mirror/--no-mirror", default=True, show_default=True,
              help="An ONNX teacher sees the mirror image, too, and the mean counts.")  # fmt: skip
@click.option("--conf", type=FiniteRange(0.0, 1.0), default=0.4, show_default=True,
              help="Lowest score of a bundle's boxes.")  # fmt: skip
@click.option("--every", type=int, default=1, show_default=True, metavar="N", help="Take every n-th frame of a video.")
@click.option("--limit", type=int, metavar="N", help="At most so many frames of each source.")
@click.option("--overwrite", is_flag=True, help="Label frames again that are there.")
def command(
    sources: tuple[str, ...],
    teacher: Path,
    folder: Path,
    project: str,
    split: str,
    outputs: str | None,
    mirror: bool,
    conf: float,
    every: int,
    limit: int | None,
    overwrite: bool,
) -> None:
    """Label the frames of SOURCE (pictures, folders, videos) with a trained network and write a data set."""
    from hnx.console import note, progress, success
    from hybridnets.errors import printable
    from hybridnets.project import load_project
    from tools.pseudo import PseudoConfig, PseudoProgress, label_frames

    loaded = load_project(project)
    for sentence in loaded.warnings:
        note(sentence)
    config = PseudoConfig(sources, folder, loaded, split, every, limit, overwrite)
    judge = _open_teacher(teacher, outputs, mirror, conf)
    with progress() as bar:
        task = bar.add_task("frames", total=None, extra="")

        def show(state: PseudoProgress) -> None:
            bar.update(task, completed=state.done, total=state.total)
            if bar.disable and state.done % _EVERY == 0:
                print(f"{state.done} frames", file=sys.stderr, flush=True)

        report = label_frames(config, judge, show)
    for problem in report.problems:
        note(f"{problem.what}: {problem.why}; left out")
    kept = f", {report.kept} were there" if report.kept else ""
    success(f"{report.folder}: {report.written} frames labelled by {judge.name} in split {report.split}{kept}")
    for name, share in report.shares.items() if report.written else ():
        print(f"{printable(name):8} {share:.1%} of the pixels, not found in {report.empty[name]} frames")
    print(f"boxes    {'not labelled' if report.boxes is None else report.boxes}")
    print(f"next     hnx data check {printable(shlex.quote(str(report.folder)))} --split {report.split}")


def _open_teacher(path: Path, outputs: str | None, mirror: bool, conf: float) -> Teacher:
    from tools.pseudo.teacher import OnnxTeacher, parse_outputs

    if path.is_dir():
        from hnx.teacher import BundleTeacher

        return BundleTeacher(path, conf)
    return OnnxTeacher(path, None if outputs is None else parse_outputs(outputs), mirror=mirror)
