"""The group of commands. Each lives in `hnx/commands/<name>.py` and is imported when it is used."""

from __future__ import annotations

from pathlib import Path

import click

from hnx import __version__
from hnx.lazy import LazyGroup

__all__ = ["COMMANDS", "cli"]

# name -> one line for `hnx --help`; data, so that the help imports no command
COMMANDS: dict[str, str] = {
    "quickstart": "Export, measure and picture the default network in one go.",
    "export": "Turn a checkpoint into a proved deployment bundle.",
    "quantize": "Add INT8 and FP16 networks to a bundle, calibrated on frames.",
    "sensitivity": "Rank the blocks of a network by what INT8 does to each task.",
    "tune": "Find the fastest setting of a bundle inside an accuracy budget, and keep it.",
    "build-trt": "Build a TensorRT plan of a bundle for this machine's GPU.",
    "inspect": "Show a network by block: nodes, MACs, bytes, parameters.",
    "infer": "Run a bundle on images, videos, cameras or streams.",
    "bench": "Measure latency per runtime and precision.",
    "eval": "Measure the accuracy of all three tasks per runtime and precision.",
    "report": "Put accuracy and latency of every row into one table.",
    "compare": "Hold the outputs of two runtimes or bundles against each other.",
    "data": "Generate, check and convert labelled driving data.",
    "train": "Train, fine-tune or go on training.",
    "distill": "Make a HardSwish twin of a network, from frames without labels.",
    "weights": "List, find and download trained weights.",
    "doctor": "Say what can run on this machine, and how to get the rest.",
}


@click.group(
    cls=LazyGroup,
    members=COMMANDS,
    package="hnx.commands.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with `hnx quickstart`. Exit codes: 0 ok, 1 failed, 2 usage, 3 gate failed, 4 nothing could run "
    "here, 130 interrupted.",
)
@click.version_option(__version__, prog_name="hnx")
def cli() -> None:
    """Deploy and measure HybridNets: cars, drivable area and lane lines on Jetson, GPU and CPU."""
    from hybridnets.errors import HnxError

    try:
        Path.cwd()
    except OSError as error:  # libraries of the runtimes end the process without a word of it
        raise HnxError("The current folder no longer exists", why="it was deleted", fix="cd to another one") from error
