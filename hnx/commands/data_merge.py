"""`hnx data merge`: one data set out of several."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command(
    epilog="""\b
Examples:
  hnx data merge all datasets bdd100k
  hnx data merge mixed synthetic 'labelled-by-teacher*16'     few real frames among many scenes

The files are linked, so the new data set takes no room; where that is impossible they are copied. The same command
goes on where it was stopped, and takes in samples that the parts got since. More parts add their samples; where others
would take samples away, DIR is refused.""",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("parts", metavar="PART[*N]...", nargs=-1, required=True)
@click.option("-p", "--project", default="bdd100k", show_default=True, help="Project name or .yml file.")
@click.option("--overwrite", is_flag=True, help="Replace another merged data set in DIR; never touches other data.")
def command(folder: Path, parts: tuple[str, ...], project: str, overwrite: bool) -> None:
    """Make the data set DIR of the data sets PART; with *N the training samples of a part count N times.

    Sample a of a part taken twice becomes a and a.x2. Validation samples are taken once. DIR/merge.json says what was
    merged.
    """
    from hnx.console import note, progress, success
    from hybridnets.project import load_project
    from tools.merge import merge, parse_part

    loaded = load_project(project)
    for sentence in loaded.warnings:
        note(sentence)
    chosen = [parse_part(text) for text in parts]
    with progress() as bar:
        task = bar.add_task("samples", total=None, extra="")
        report = merge(
            loaded,
            chosen,
            folder,
            lambda done, total: bar.update(task, completed=done, total=total),
            overwrite=overwrite,
        )
    counts = ", ".join(f"{count} in {split}" for split, count in report.samples.items() if count)
    success(f"{folder}: {counts}" + (f" ({report.kept} were there)" if report.kept else ""))
    if report.removed:
        note(f"{report.removed} files of an earlier merge were no part of this one, and were removed")
    if report.copied:
        note(f"{report.copied} of {report.files} files had to be copied")
