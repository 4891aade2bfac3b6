"""`hnx weights path`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(
    short_help="Print where the file of some weights lies.",
    epilog='Example:  python my_script.py --weights "$(hnx weights path hybridnets-v1)"',
)
@click.argument("name")
def command(name: str) -> None:
    """Print the path of the weights NAME, and nothing else, after their digest has been checked."""
    from hybridnets.weights import find, verified

    print(verified(find(name)))
