"""`hnx weights list`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hybridnets.weights import WeightsEntry

__all__ = ["command"]


@click.command(short_help="Say which trained weights there are, and which are on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON on standard output.")
def command(as_json: bool) -> None:
    """List the weights that come with this installation, and those that can be downloaded."""
    from hybridnets.weights import entries

    rows = [(entry, *_place(entry)) for entry in entries()]
    if as_json:
        values: list[dict[str, Any]] = [
            {**entry.to_json(), "state": state, "path": path} for entry, state, path in rows
        ]
        print(json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False))
        return
    _print(rows)


def _place(entry: WeightsEntry) -> tuple[str, str | None]:
    """`shipped`, `downloaded` or `to download`, and where the file lies or would lie."""
    from hybridnets.errors import HnxError
    from hybridnets.weights import local_path

    try:
        path = local_path(entry)
    except HnxError:  # no cache folder: no reason to list nothing
        return "to download", None
    if entry.is_shipped:
        return "shipped", str(path)
    return ("downloaded" if path.is_file() else "to download"), str(path)


def _print(rows: list[tuple[WeightsEntry, str, str | None]]) -> None:
    from rich.markup import escape

    from hnx.console import plain_table, stdout
    from hybridnets.errors import printable

    table = plain_table("name", "coefficient", "trained at", "activation", "MB", "licence", "where", "what")
    for index in (1, 4):
        table.columns[index].justify = "right"
    for entry, state, _ in rows:
        cells = (
            entry.name,
            str(entry.compound_coef),
            f"{entry.size[0]}x{entry.size[1]}",
            entry.activation,
            "?" if entry.bytes is None else f"{entry.bytes / 1e6:.1f}",
            entry.licence,
            state,
            entry.summary,
        )
        table.add_row(*(escape(printable(cell)) for cell in cells))
    stdout().print(table)
    names = [entry.name for entry, state, _ in rows if state == "to download"]
    if names:
        print(f"hnx weights download {names[0]} fetches what is not on this machine")
    usable = [entry.name for entry, state, _ in rows if state != "to download"]
    if usable:
        print(f"hnx export -w {usable[0]} makes a bundle of it")
