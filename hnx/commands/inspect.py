"""`hnx inspect`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from export.inspection import BlockStatistics, Inspection
    from export.rewrites import Statistics

__all__ = ["command"]


class Shape(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on, not before
    """Sizes with an x between them."""

    name = "NxCxHxW"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """`1x3x384x640` to (1, 3, 384, 640)."""
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"[1-9]\d{0,5}([xX×][1-9]\d{0,5}){0,7}", str(value)):
            self.fail(f"{value!r} is not a shape such as 1x3x384x640", param, ctx)
        return tuple(int(part) for part in re.split("[xX×]", str(value)))


@click.command(
    short_help="Show a network by block: nodes, MACs, bytes, parameters.",
    epilog="Examples:  hnx inspect exports/hybridnets_c3_384x640   |   hnx inspect other.onnx --rewrite none   |   "
    "hnx inspect --rewrite segmentation-head,max-pool --json graph.json",
)
@click.argument("source", required=False, metavar="[BUNDLE|FILE.onnx]")
@click.option(
    "--rewrite",
    metavar="all|none|LIST",
    help="Exact rewrites whose effect is shown.  [default: those of the export; all for other files]",
)
@click.option("--shape", type=Shape(), help="Sizes of the first input of a file that leaves some free.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write everything here.")
def command(source: str | None, rewrite: str | None, shape: tuple[int, ...] | None, json_file: Path | None) -> None:
    """Show what a network consists of, block by block, before and after exact rewrites.

    Takes a bundle or any ONNX file. MACs are those of convolutions and matrix products; activation bytes those of every
    result that a node writes, before any runtime fuses nodes. Networks of others are grouped by the names of their
    nodes, or by the size of what these make.
    """
    from export.inspection import inspect_bundle, inspect_file
    from export.rewrites import parse_rewrites
    from hnx.console import note, status
    from hnx.defaults import resolve_bundle
    from hybridnets.files import write_json

    names = None if rewrite is None else parse_rewrites(rewrite)
    file = Path(source) if source is not None and source.endswith(".onnx") else None
    if shape is not None and file is None:
        raise click.UsageError("--shape is for .onnx files; the sizes of a bundle are fixed")
    with status("reading the graph") as step:
        if file is not None:
            found = inspect_file(file, names, shape)
        else:
            bundle = resolve_bundle(source)
            bare = bundle.path if bundle.path.is_file() else None
            found = inspect_bundle(bundle, names, step) if bare is None else inspect_file(bare, names)
    _print(found)
    for text in found.notes:
        note(text)
    if json_file is not None:
        write_json(json_file, found.to_json())


def _print(found: Inspection) -> None:
    from hnx.console import stdout
    from hybridnets.errors import printable

    print(printable(f"{found.source}, opset {found.opset}"))
    for word, specs in (("in ", found.inputs), ("out", found.outputs)):
        for spec in specs:
            print(printable(f"{word} {spec}"))
    stdout().print(_table("block", (*found.blocks, *(() if found.parts() else (found.total,)))))
    if found.parts():
        stdout().print(_table("part", (*found.parts(), found.total)))
    for report in found.passes:
        print(report)


# heading, and how its value is written
_COLUMNS: tuple[tuple[str, Callable[[Statistics], str]], ...] = (
    ("nodes", lambda s: str(s.nodes)),
    ("GMAC", lambda s: f"{s.macs / 1e9:.3f}"),
    ("activations MB", lambda s: f"{s.activation_bytes / 1e6:.2f}"),
    ("parameters", lambda s: f"{s.parameters:,}".replace(",", " ")),
)


def _table(heading: str, rows: Sequence[BlockStatistics]) -> object:
    """Each cell is `before -> after`, or one number where both are the same."""
    from rich.markup import escape

    from hnx.console import plain_table
    from hybridnets.errors import printable

    table = plain_table(heading)
    for name, _ in _COLUMNS:
        table.add_column(name, justify="right")
    for row in rows:
        cells = []
        for _, text in _COLUMNS:
            before, after = text(row.before), text(row.after)
            cells.append(before if before == after else f"{before} -> {after}")
        table.add_row(escape(printable(row.name)), *cells)
    return table
