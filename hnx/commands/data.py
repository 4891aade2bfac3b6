"""`hnx data`: a group of its own; each member lives in `hnx/commands/data_<name>.py`."""

from __future__ import annotations

import click

from hnx.lazy import LazyGroup

__all__ = ["MEMBERS", "command"]

MEMBERS: dict[str, str] = {
    "synth": "Generate labelled driving scenes: nothing to download.",
    "check": "Say what of a data set is missing or broken, file by file.",
    "merge": "Make one data set of several, some of them taken more than once.",
    "pseudo": "Label frames with a trained network.",
    "convert": "Bring BDD100K downloads, or your own frames and boxes, into the layout.",
}


@click.group(
    cls=LazyGroup,
    members=MEMBERS,
    package="hnx.commands.data_",
    short_help="Generate, check, convert and merge labelled driving data.",
    epilog="Examples:  hnx data synth datasets --train 1000 --val 200 --seed 1   |   hnx data check datasets",
)
def command() -> None:
    """Data in upstream's layout: imgs, det_annot, da_seg_annot and ll_seg_annot, each with train and val."""
