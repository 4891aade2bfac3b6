"""`hnx train`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from hnx.grouped import GroupedCommand
from hnx.train_options import GROUPS, UPSTREAMS

if TYPE_CHECKING:
    from hybridnets.training.config import TrainConfig
    from hybridnets.training.trainer import TrainResult

__all__ = ["command"]

_EPILOG = """\b
Examples:
  hnx data synth datasets --train 1000 --val 200 && hnx train -c 3 -b 12 --num-epochs 100
  hnx train -w last                                       go on after a crash, a kill or Ctrl-C
  hnx train -p my.yml -w hybridnets.pth --freeze-backbone --lr 1e-3 -o runs
  torchrun --nproc-per-node 4 -m hnx train -b 12 --sync-bn --amp bf16

Upstream's spellings work too: --num_epochs 10 --cal_map False --load_weights last. The folder OUTPUT/PROJECT holds
last.pth, the best networks, best.safetensors for `hnx export -w`, log.csv, TensorBoard logs, report.json, curves."""


def _train(**options: Any) -> None:
    """Train a network, or go on with a run.

    Batches, augmentation and dropout follow from --seed and the step: a run that was killed and resumed with
    `-w last` ends where it would have ended. Options not given with it are as the run had them; -o and -p name its
    folder. Under torchrun the same command uses several GPUs.
    """
    from hnx.console import note
    from hnx.train_request import chosen_fields, configure
    from hnx.training import Display, make_scorer
    from hybridnets.training.trainer import train

    main = os.environ.get("RANK", "0") == "0"
    tell = note if main else _ignore
    given = chosen_fields(click.get_current_context())
    config = configure(options, tell)
    for sentence in (*config.project.warnings, *_remarks(options, config)):
        tell(sentence)
    with Display(config) as display:
        result = train(config, make_scorer=make_scorer, listener=display, given=given)
    if main:
        _print(result)


def _ignore(text: str) -> None:
    """Under torchrun one process talks for all."""


def _remarks(options: dict[str, Any], config: TrainConfig) -> list[str]:
    found = []
    gpus = options["num_gpus"] or 0
    if options["log_path"] is not None:
        found.append(f"--log-path is not needed: logs lie beside the checkpoints, in {config.folder}")
    if gpus > 1 and os.environ.get("WORLD_SIZE", "1") == "1":
        found.append(f"one process uses one GPU; for {gpus}: torchrun --nproc-per-node {gpus} -m hnx train ...")
    return found


def _print(result: TrainResult) -> None:
    from hnx.console import success

    left = f", {result.skipped} steps left out" if result.skipped else ""
    success(f"trained {result.steps} steps{left}: {result.folder / 'report.json'}")
    if result.best is not None:
        measure = "minus loss" if result.by_loss else "fitness"
        success(f"best network: {result.best} ({measure} {result.fitness:.4f})")
        print(f"Next: hnx export -w {result.folder / 'best.safetensors'}")


command = GroupedCommand(
    "train",
    callback=_train,
    groups=GROUPS,
    others=UPSTREAMS,
    help=_train.__doc__,
    short_help="Train a network: all three tasks at once.",
    epilog=_EPILOG,
)
