"""`hnx data check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hybridnets.project import Project
    from tools.check import CheckReport, SplitReport

__all__ = ["command"]


@click.command(
    short_help="Say what of a data set is missing or broken, file by file.",
    epilog="""\b
Examples:
  hnx data check datasets
  hnx data check datasets --split val --json check.json

Exit codes: 0 when every sample can be used (warnings may remain), 1 when something is missing or broken.""",
)
@click.argument("data", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "-p", "--project", default="bdd100k", show_default=True, metavar="NAME|FILE.yml", help="Classes and mask folders."
)
@click.option("--split", metavar="S", help="Check this split alone.  [default: the project's train_set and test_set]")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write everything, every file."
)
@click.option("--workers", type=click.IntRange(0, 256), metavar="K", help="Processes.  [default: one a core, up to 8]")
@click.option(
    "--show", type=click.IntRange(min=0), default=5, show_default=True, help="Files to name for each kind of problem."
)
def command(
    data: Path | None, project: str, split: str | None, json_file: Path | None, workers: int | None, show: int
) -> None:
    """Read every image, label and mask below DIR and say what is missing or broken, and how to make it.

    DIR holds imgs, det_annot, da_seg_annot and ll_seg_annot, each with the splits train and val; without DIR the
    folders that the project names are read.
    """
    from benchmarks.report import check_output
    from hnx.console import note
    from hybridnets.errors import ExitCode
    from hybridnets.files import write_json
    from hybridnets.project import load_project

    if json_file is not None:
        check_output(json_file)
    loaded = load_project(project)
    for sentence in loaded.warnings:
        note(sentence)
    report = _check(loaded, data, split, workers)
    if json_file is not None:
        write_json(json_file, report.to_json())
    _print(report, show)
    if report.errors:
        raise click.exceptions.Exit(ExitCode.FAILED)


def _check(project: Project, data: Path | None, split: str | None, workers: int | None) -> CheckReport:
    from hnx.console import progress
    from tools.check import check_dataset

    with progress() as bar:
        task = bar.add_task("checking", total=None, extra="")

        def show(name: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=f"checking {name}", extra="samples")

        return check_dataset(project, data, split, workers=workers, on_progress=show)


def _print(report: CheckReport, show: int) -> None:
    from hnx.console import success

    splits = [split for split in report.splits if split.samples]
    if splits:
        _print_figures(splits)
    _print_findings(report, show)
    warnings = len(report.findings) - report.errors
    samples = sum(split.samples for split in splits)
    broken = sum(split.broken for split in splits)
    rest = f"{warnings} warning{'s' * (warnings != 1)}"
    if report.errors and not samples:
        print(f"there is no sample: {report.errors} error(s), {rest}")
    elif report.errors:
        print(f"{broken} of {samples} samples cannot be used as they are: {report.errors} error(s), {rest}")
    else:
        success(f"all {samples} samples can be used, {rest}")


def _print_figures(splits: list[SplitReport]) -> None:
    """One column for each split."""
    from rich.markup import escape

    from hnx.console import plain_table, stdout
    from hybridnets.errors import printable

    table = plain_table("")
    for split in splits:
        table.add_column(escape(printable(split.split)), justify="right")

    def row(title: str, *cells: str) -> None:
        table.add_row(escape(printable(title)), *(escape(cell) for cell in cells))

    row("samples", *(str(split.samples) for split in splits))
    row("with errors", *(str(split.broken) for split in splits))
    if any(split.unlabelled for split in splits):
        row("unlabelled, not read", *(str(split.unlabelled) for split in splits))
    row("image size", *(_sizes(split) for split in splits))
    for name in splits[0].classes:
        row(f"boxes of {name}", *(str(split.boxes[name]) for split in splits))
    row("samples without boxes", *(str(split.without_boxes) for split in splits))
    if any(split.boxes_unlabelled for split in splits):
        row("samples whose boxes nobody labelled", *(str(split.boxes_unlabelled) for split in splits))
    for bin_name in splits[0].size_bins():
        row(f"boxes of side {bin_name} px*", *(_share(s.size_bins()[bin_name], s.boxes.total()) for s in splits))
    for index, name in enumerate(splits[0].seg_classes):
        shares = [split.shares[index] for split in splits]
        row(f"{name}, share of pixels", *("-" if share is None else f"{share:.2%}" for share in shares))
        row(f"{name}, empty masks", *(str(split.masks_empty[index]) for split in splits))
    stdout().print(table)
    print("* square root of the area, in pixels of the network's input")
    for split in splits:
        if split.ignored:
            names = ", ".join(f"{name} {count}" for name, count in split.ignored.most_common(12))
            print(printable(f"{split.split}: boxes of categories this project leaves out: {names}"))


def _sizes(split: SplitReport) -> str:
    names = [f"{width}x{height}" for (width, height), _ in split.image_sizes.most_common(2)]
    more = len(split.image_sizes) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "") or "-"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _print_findings(report: CheckReport, show: int) -> None:
    """Grouped by kind, errors first."""
    import itertools

    from hybridnets.errors import printable
    from tools.check import KINDS

    for kind, group in itertools.groupby(report.findings, key=lambda finding: finding.kind):
        found, row = list(group), KINDS[kind]
        print(f"{row.severity}: {row.title} ({len(found)})")
        for finding in found[:show]:
            print(printable(f"  {finding.file}: {finding.what}"))
        if len(found) > show:
            print(f"  ... and {len(found) - show} more; --json FILE names all")
        print(f"  fix: {row.fix}")
