"""`hnx compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hnx.finite import FiniteRange

if TYPE_CHECKING:
    from benchmarks.agreement import Agreement

__all__ = ["command"]


@click.command(
    short_help="Hold the outputs of two runtimes or bundles against each other.",
    epilog="Examples:  hnx compare exports/hybridnets_c3_384x640 --runtime torch,openvino   |   hnx compare old new "
    "--runtime openvino --source drive.mp4",
)
@click.argument("bundles", nargs=-1, metavar="[BUNDLE [BUNDLE]]")
@click.option(
    "--runtime",
    default="torch,openvino",
    show_default=True,
    metavar="A[:PRECISION],B[:PRECISION]",
    help="The two sides; one name serves both bundles.",
)
@click.option("--source", help="Image, folder, glob or video.  [default: the shipped road frame]")
@click.option("--frames", type=click.IntRange(min=1), default=16, show_default=True, help="At most this many frames.")
@click.option(
    "--tolerance", type=FiniteRange(min=0), help="Largest relative L2.  [default: by precision, 1e-4 for fp32]"
)
@click.option(
    "--conf",
    type=FiniteRange(0, 1),
    help="Score threshold of boxes.  [default: 0.25, or what a graph suppresses with]",
)
@click.option("--iou", type=FiniteRange(0, 1), help="Overlap limit of boxes.  [default: 0.3, or a graph's]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all]")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here.")
def command(
    bundles: tuple[str, ...],
    runtime: str,
    source: str | None,
    frames: int,
    tolerance: float | None,
    conf: float | None,
    iou: float | None,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Run two deployments on the same real frames and say how far they agree.

    Compares the raw outputs, the boxes and the masks of one bundle on two runtimes, or of two bundles. Where the two
    graphs do different parts of pre- and postprocessing, the outputs that both have, boxes and masks. Ends with exit
    code 3 when a limit is exceeded.
    """
    import itertools

    from benchmarks.agreement import Side, compare
    from benchmarks.report import check_output
    from hnx.console import note, note_problems, status
    from hnx.defaults import resolve_bundle
    from hybridnets.data import demo_frame
    from hybridnets.errors import ExitCode
    from hybridnets.files import write_json
    from hybridnets.sources import open_source
    from runtimes.registry import parse_runtimes

    if len(bundles) > 2:
        raise click.UsageError("name one bundle, or two")
    rows = parse_runtimes(runtime)
    if len(rows) > 2 or (len(rows) == 1 and len(bundles) < 2):
        raise click.UsageError("--runtime needs two runtimes such as torch,openvino, or one for two bundles")
    if json_file is not None:
        check_output(json_file)
    opened = [resolve_bundle(name) for name in bundles or (None,)]
    sides = [
        Side(opened[min(i, len(opened) - 1)], row.name, precision or "fp32")
        for i, (row, precision) in enumerate(rows if len(rows) == 2 else rows * 2)
    ]
    with status(f"comparing {sides[0]} with {sides[1]}"), open_source(source or str(demo_frame())) as images:
        result = compare(
            sides[0],
            sides[1],
            (frame.image for frame in itertools.islice(images, frames)),
            threads=threads,
            conf=conf,
            iou=iou,
            tolerance=tolerance,
        )
    for text in images.notes:
        note(text)
    note_problems(images.problems)
    _print(result)
    if json_file is not None:
        write_json(json_file, result.to_json() | {"unreadable": len(images.problems)})
    if result.problems:
        for sentence in result.problems:
            click.echo(f"beyond tolerance: {sentence}", err=True)
        raise click.exceptions.Exit(ExitCode.GATE_FAILED)
    if images.problems and not images.is_video:
        note(f"{len(images.problems)} of {len(images.files)} images could not be read")
        raise click.exceptions.Exit(ExitCode.FAILED)


def _print(result: Agreement) -> None:
    from hnx.console import plain_table, stdout, success

    print(f"{result.first} and {result.second}, {result.frames} frame(s)")
    table = plain_table("output")
    for name in ("max abs", "relative L2", "cosine"):
        table.add_column(name, justify="right")
    for role, value in result.outputs.items():
        table.add_row(role, f"{value.max_abs:.2e}", f"{value.rel_l2:.2e}", f"{value.cosine:.9f}")
    if result.outputs:
        stdout().print(table)
    a, b, matched = result.boxes
    print(f"boxes: {a} and {b}, {matched} matched ({result.box_agreement:.1%})")
    if result.pixel_agreement is not None:
        print(f"masks: {result.pixel_agreement:.3%} of the pixels agree")
    if not result.problems:
        success(f"equal within {result.tolerance:.0e} relative L2" if result.outputs else "equal boxes and masks")
