"""`hnx weights`: a group of its own; each member lives in `hnx/commands/weights_<name>.py`."""

from __future__ import annotations

import click

from hnx.lazy import LazyGroup

__all__ = ["MEMBERS", "command"]

MEMBERS: dict[str, str] = {
    "list": "Say which trained weights there are, and which are on this machine.",
    "path": "Print where the file of some weights lies.",
    "download": "Fetch weights from the web; goes on where it was cut off.",
}


@click.group(
    cls=LazyGroup,
    members=MEMBERS,
    package="hnx.commands.weights_",
    short_help="List, find and download trained weights.",
    epilog="Examples:  hnx weights list   |   hnx weights download hybridnets-v1 && hnx export -w hybridnets-v1",
)
def command() -> None:
    """Trained weights by name: wherever a command takes -w, it takes these names, too."""
