"""`hnx distill`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hnx.distill_options import GROUPS
from hnx.grouped import GroupedCommand

if TYPE_CHECKING:
    from hnx.distillation import Comparison, Stage
    from hybridnets.training.config import TrainConfig
    from hybridnets.training.trainer import TrainResult

__all__ = ["command"]

_EPILOG = """\b
Examples:
  hnx distill drives/ -w hybridnets.pth                   the HardSwish twin, from pictures and nothing else
  hnx distill drive.mp4 --every 10 --data datasets --max-drop 1
  hnx distill drives/ -w hybridnets.pth --resume          go on after a crash, a kill or Ctrl-C

FRAMES are pictures, folders, patterns, videos or data sets; no label is read. The folder holds what `hnx train` leaves
there, and distill.json with all figures."""


def _distill(frames: tuple[str, ...], **options: Any) -> None:
    """Make a network's twin with another activation, which learns from it on frames that nobody labelled.

    On CPUs HardSwish is far quicker than Swish. The student starts from the teacher's weights, its batch norms are
    measured anew, and it is trained to match the teacher's three outputs and the maps behind them. Agreement is
    measured before, during and after; with --data both networks are evaluated on labels, too.
    """
    from hnx.console import note
    from hnx.distill_request import configure
    from hnx.distillation import compare, open_labelled, stages, write_report
    from hnx.train_request import chosen_fields
    from hnx.training import Display, make_scorer
    from hybridnets.training.trainer import train

    main = os.environ.get("RANK", "0") == "0"
    given = chosen_fields(click.get_current_context())
    config = configure(frames, options, note if main else _ignore)
    data: Path | None = options["data"]
    # before the training, which takes hours
    split = None if data is None or not main else open_labelled(config, data)
    with Display(config) as display:
        result = train(config, make_scorer=make_scorer, listener=display, given=given)
    if not main:
        return
    config = result.config  # a run that goes on keeps the options it had
    moments = stages(config, result)
    _print(config, result, moments)
    student = config.folder / "best.safetensors"
    report = write_report(config, result, moments, None)  # whatever becomes of the labels
    comparison = None
    if split is not None:
        comparison = compare(config, split, student)
        report = write_report(config, result, moments, comparison)
        _print_labelled(config, comparison)
    print(f"all figures: {report}")
    if comparison is not None and options["max_drop"] is not None:
        _check(comparison, options["max_drop"])
    print(f"Next: hnx export -w {student}")


def _ignore(text: str) -> None:
    """Under torchrun one process talks for all."""


def _print(config: TrainConfig, result: TrainResult, moments: list[Stage]) -> None:
    from hnx.console import plain_table, stdout, success

    left = f", {result.skipped} steps left out" if result.skipped else ""
    success(f"distilled in {result.steps} steps{left}: {config.folder / 'best.safetensors'}")
    names = list(moments[0].figures) if moments else []
    table = plain_table("agreement with the teacher", *names, "loss")
    for moment in moments:
        table.add_row(moment.name, *(_text(moment.figures[name]) for name in names), _text(moment.loss))
    stdout().print(table)
    print("held-out frames, with the teacher's own predictions as labels")


def _print_labelled(config: TrainConfig, comparison: Comparison) -> None:
    from hnx.console import plain_table, stdout

    names = list(comparison.teacher)
    table = plain_table(f"{comparison.images} labelled images", *names)
    table.add_row("teacher", *(_text(comparison.teacher[name]) for name in names))
    table.add_row(f"student, {config.activation}", *(_text(comparison.student.get(name)) for name in names))
    table.add_row("points lost", *(f"{comparison.drops[name]:+.2f}" for name in names if name in comparison.drops))
    stdout().print(table)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _check(comparison: Comparison, limit: float) -> None:
    """Refuse a student that lost too much; mAP50-95 is shown, and not held against the limit."""
    from hybridnets.errors import ExitCode, HnxError

    missing = [name for name in comparison.teacher if name not in comparison.student]
    over = {name: value for name, value in comparison.drops.items() if name != "mAP50-95" and value > limit}
    if over or missing:
        told = [f"{name} {value:.2f} points" for name, value in over.items()]
        told += [f"{name} cannot be measured" for name in missing]
        raise HnxError(
            f"The student loses more than {limit:g} points",
            why=", ".join(told),
            fix="train longer (--num-epochs) or on more frames; the network is kept",
            code=ExitCode.GATE_FAILED,
        )


command = GroupedCommand(
    "distill",
    callback=_distill,
    groups=GROUPS,
    others=(click.Argument(["frames"], nargs=-1, required=True, metavar="FRAMES..."),),
    help=_distill.__doc__,
    short_help="Make a HardSwish twin of a network, from frames without labels.",
    epilog=_EPILOG,
)
