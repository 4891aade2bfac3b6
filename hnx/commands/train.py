"""`hnx train`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hnx.commands.export import Size
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from hybridnets.training.config import TrainConfig

__all__ = ["command"]

# sections of the help, in the order in which they matter
_GROUPS = {
    "Data and network": (
        *("project", "data", "compound_coef", "weights", "encoder", "size", "activation", "backbone"),
        *("freeze_backbone", "freeze_det", "freeze_seg"),
    ),
    "Learning": (
        *("num_epochs", "batch_size", "accumulate", "lr", "optim", "weight_decay", "schedule", "warmup", "clip_norm"),
        *("ema", "ema_decay", "augment", "autoanchor", "upstream_init", "seed", "on_nan"),
    ),
    "Validation and files": (
        *("output", "overwrite", "save_interval", "val_interval", "cal_map", "no_cal_map", "fitness", "conf_thres"),
        *("iou_thres", "keep_best", "es_patience", "es_min_delta", "log_interval"),
    ),
    "Machine": ("device", "num_workers", "amp", "compile", "channels_last", "sync_bn", "num_gpus"),
}
_TRUTHS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_AMP = {"true": "auto", "1": "auto", "yes": "auto", "on": "auto", "false": "off", "0": "off", "no": "off"}
_DEBUG_IMAGES = 50


class Truth(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on, not before
    """True or False, in the words upstream's users type; the option alone means True."""

    name = "[True|False]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """`False` to False."""
        if isinstance(value, bool):
            return value
        found = _TRUTHS.get(str(value).lower())
        if found is None:
            self.fail(f"{value!r} is neither True nor False", param, ctx)
        return found


class AmpMode(click.ParamType):  # type: ignore[type-arg]
    """off, bf16, fp16, auto; True and False as upstream has them."""

    name = "[off|auto|bf16|fp16]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`True` to `auto`."""
        word = str(value).lower()
        word = _AMP.get(word, word)
        if word not in ("off", "auto", "bf16", "fp16"):
            self.fail(f"{value!r} is not one of off, auto, bf16, fp16", param, ctx)
        return word


class _GroupedCommand(click.Command):
    """Options in sections instead of one long list."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        known = {name for names in _GROUPS.values() for name in names}
        groups = {**_GROUPS, "Help": tuple(o.name or "" for o in options if o.name not in known)}
        for title, names in groups.items():
            records = [option.get_help_record(ctx) for option in options if option.name in names]
            shown = [_without_underscores(record) for record in records if record is not None]
            if shown:
                with formatter.section(title):
                    formatter.write_dl(shown)


def _without_underscores(record: tuple[str, str]) -> tuple[str, str]:
    """Upstream's spellings are understood, and not shown."""
    words = record[0].split(", ")
    kept = [word for word in words if "_" not in word.split(" ")[0]]
    tail = "" if not kept or " " in kept[-1] or " " not in words[-1] else f" {words[-1].split(' ', 1)[1]}"
    return ", ".join(kept) + tail, record[1]


def _truth(
    *names: str, default: bool = False, help: str, **more: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        *names, type=Truth(), is_flag=False, flag_value="True", default=default, show_default=True, help=help, **more
    )


_PATH = click.Path(path_type=Path)


@click.command(
    cls=_GroupedCommand,
    short_help="Train a network: all three tasks at once.",
    epilog="""\b
Examples:
  hnx data synth datasets --train 1000 --val 200 && hnx train -c 3 -b 12 --num-epochs 100
  hnx train -w last                                       go on after a crash, a kill or Ctrl-C
  hnx train -p my.yml -w hybridnets.pth --freeze-backbone --lr 1e-3 -o runs
  torchrun --nproc-per-node 4 -m hnx train -b 12 --sync-bn --amp bf16

Upstream's spellings work too: --num_epochs 10 --cal_map False --load_weights last. The folder OUTPUT/PROJECT holds
last.pth, the best networks, best.safetensors for `hnx export -w`, log.csv, TensorBoard logs, report.json, curves.""",
)
@click.option("-p", "--project", default="bdd100k", show_default=True, help="Project name or .yml file.")
@click.option(
    "--data",
    "--data-path",
    "--data_path",
    "data",
    type=_PATH,
    metavar="DIR",
    help="Folder of a data set, as `hnx data synth DIR` writes it.  [default: the folders of the project]",
)
@click.option(
    "-c", "--compound-coef", "--compound_coef", type=int, default=3, show_default=True, help="Coefficient 0-7."
)
@click.option("-bb", "--backbone", help="Encoder of the timm package in place of the coefficient's EfficientNet.")
@click.option(
    "-w",
    "--weights",
    "--load-weights",
    "--load_weights",
    "weights",
    metavar="FILE|last",
    help="Start from a checkpoint, or `last`: go on with the run of the output folder.",
)
@click.option(
    "--encoder", type=_PATH, metavar="FILE", help="Pretrained EfficientNet of the package efficientnet_pytorch."
)
@click.option("--size", type=Size(), help="Input size, multiples of 128.  [default: the project's]")
@click.option(
    "--activation", type=click.Choice(["swish", "hardswish", "relu"]), default="swish", show_default=True,
    help="hardswish and relu run and quantise better on edge devices.",
)  # fmt: skip
@_truth("--freeze-backbone", "--freeze_backbone", help="Leave encoder and BiFPN as they are, batch norms too.")
@_truth("--freeze-det", "--freeze_det", help="Leave the detection heads as they are.")
@_truth("--freeze-seg", "--freeze_seg", help="Leave the segmentation head as it is.")
@click.option("--num-epochs", "--num_epochs", type=int, default=500, show_default=True, help="Epochs in all.")
@click.option(
    "-b", "--batch-size", "--batch_size", type=int, default=12, show_default=True, help="Images a step and process."
)
@click.option("--accumulate", type=int, default=1, show_default=True, help="Batches a step.")
@click.option("--lr", type=float, default=1e-4, show_default=True, help="Learning rate after the warm-up.")
@click.option("--optim", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True, help="Optimizer.")
@click.option("--weight-decay", "--weight_decay", type=float, default=0.01, show_default=True, help="As torch has it.")
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "plateau", "constant"]),
    default="cosine",
    show_default=True,
    help="Of the learning rate; plateau is upstream's.",
)
@click.option("--warmup", type=int, metavar="STEPS", help="[default: 3 epochs, at most 1000 steps or a tenth]")
@click.option(
    "--clip-norm", "--clip_norm", type=float, default=10.0, show_default=True, help="Largest gradient norm; 0: none."
)
@_truth("--ema", default=True, help="Average the weights; validation and the best network take the average.")
@click.option("--ema-decay", "--ema_decay", type=float, default=0.9998, show_default=True, help="Of the average.")
@_truth("--augment", default=True, help="Turn, scale, shift, flip and recolour training images as the project says.")
@_truth("--autoanchor", help="Fit the anchors to the boxes first.  [also: need_autoanchor of the project]")
@_truth("--upstream-init", "--upstream_init", help="Draw all convolutions anew, as upstream does to its encoder.")
@click.option("--seed", type=int, default=42, show_default=True, help="Of everything random.")
@click.option(
    "--on-nan",
    "--on_nan",
    type=click.Choice(["skip", "stop"]),
    default="skip",
    show_default=True,
    help="When a loss is not finite: name the images and leave them out, or end.",
)
@click.option(
    "-o",
    "--output",
    "--saved-path",
    "--saved_path",
    "output",
    type=_PATH,
    default=Path("checkpoints"),
    show_default=True,
    help="Folder of runs; this one goes to OUTPUT/PROJECT.",
)
@_truth("--overwrite", help="Start anew in a folder that holds a run.")
@click.option(
    "--save-interval", "--save_interval", type=int, default=500, show_default=True,
    help="Steps between writes of last.pth; every epoch writes it, too.",
)  # fmt: skip
@click.option(
    "--val-interval", "--val_interval", type=int, default=1, show_default=True,
    help="Epochs between validations; 0: only at the end.",
)  # fmt: skip
@_truth("--cal-map", "--cal_map", default=True, help="Choose the best network by its fitness, not by its loss.")
@click.option("--no-cal-map", is_flag=True, help="The same as --cal-map False.")
@click.option(
    "--fitness", type=click.Choice(["all", "det"]), default="all", show_default=True,
    help="all: mean of 0.1 mAP50 + 0.9 mAP50-95 and each class's IoU; det: the first alone, as upstream.",
)  # fmt: skip
@click.option(
    "--conf-thres", "--conf_thres", type=float, default=0.001, show_default=True, help="Score of validation boxes."
)
@click.option("--iou-thres", "--iou_thres", type=float, default=0.6, show_default=True, help="IoU of their NMS.")
@click.option("--keep-best", "--keep_best", type=int, default=1, show_default=True, help="Best networks to keep.")
@click.option(
    "--es-patience", "--es_patience", type=int, default=0, show_default=True,
    help="Stop after so many epochs without a better network; 0: never.",
)  # fmt: skip
@click.option(
    "--es-min-delta", "--es_min_delta", type=float, default=0.0, show_default=True, help="What counts as better."
)
@click.option("--log-interval", "--log_interval", type=int, default=10, show_default=True, help="Steps a log row.")
@click.option("--device", help="cuda, cuda:1 or cpu.  [default: CUDA where there is one]")
@click.option(
    "-n", "--num-workers", "--num_workers", type=int, help="Processes that read images.  [default: cores, at most 8]"
)
@click.option(
    "--amp", type=AmpMode(), is_flag=False, flag_value="auto", default="off", show_default=True,
    help="Mixed precision; the losses stay float32.",
)  # fmt: skip
@_truth("--compile", help="Compile the network with torch.compile: minutes first, then faster steps.")
@_truth("--channels-last", "--channels_last", default=True, help="Memory layout of the network.")
@_truth("--sync-bn", "--sync_bn", help="Batch norms over all processes of torchrun.")
@click.option("--num-gpus", "--num_gpus", type=int, help="0: cpu. For several, start with torchrun.")
# understood for upstream's sake
@click.option("--log-path", "--log_path", type=_PATH, hidden=True)
@_truth("--debug", help="", hidden=True)
@_truth("-v", "--verbose", default=True, help="", hidden=True)
@_truth("--plots", default=True, help="", hidden=True)
def command(**options: Any) -> None:
    """Train a network, or go on with a run.

    Batches, augmentation and dropout follow from --seed and the step: a run that was killed and resumed with
    `-w last` ends where it would have ended. Under torchrun the same command uses several GPUs.
    """
    from hnx.console import note, success
    from hnx.training import Display, make_scorer
    from hybridnets.training.trainer import train

    config = _config(options)
    for sentence in config.project.warnings:
        note(sentence)
    if not os.environ.get("RANK", "0").isdigit() or int(os.environ.get("RANK", "0")) == 0:
        _tell_about(options, config)
    with Display(config) as display:
        result = train(config, make_scorer=make_scorer, listener=display)
    if int(os.environ.get("RANK", "0")):
        return
    left = f", {result.skipped} steps left out" if result.skipped else ""
    success(f"trained {result.steps} steps{left}: {result.folder / 'report.json'}")
    if result.best is not None:
        measure = "fitness" if config.cal_map else "minus loss"
        success(f"best network: {result.best} ({measure} {result.fitness:.4f})")
        print(f"Next: hnx export -w {result.folder / 'best.safetensors'}")


def _tell_about(options: dict[str, Any], config: TrainConfig) -> None:
    from hnx.console import note

    if options["log_path"] is not None:
        note(f"--log-path is not needed: logs lie beside the checkpoints, in {config.folder}")
    if (options["num_gpus"] or 0) > 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        note(f"one process uses one GPU; for {options['num_gpus']}: torchrun --nproc-per-node {options['num_gpus']} "
             "-m hnx train ...")  # fmt: skip


def _config(options: dict[str, Any]) -> TrainConfig:
    """The checked configuration; everything that can be refused is refused before torch is loaded."""
    from hybridnets.project import load_project
    from hybridnets.training.config import TrainConfig

    project = load_project(options["project"])
    folder = options["output"] / project.name
    weights, resume = _weights(options["weights"], folder)
    device = "cpu" if options["num_gpus"] == 0 else options["device"]
    workers = options["num_workers"]
    return TrainConfig(
        project,
        folder,
        data=options["data"],
        weights=weights,
        resume=resume,
        overwrite=options["overwrite"],
        compound_coef=options["compound_coef"],
        backbone=None if options["backbone"] in (None, "None", "none") else options["backbone"],
        encoder=options["encoder"],
        activation=options["activation"],
        size=options["size"],
        batch_size=options["batch_size"],
        accumulate=options["accumulate"],
        workers=_default_workers() if workers is None else workers,
        epochs=options["num_epochs"],
        optim=options["optim"],
        lr=options["lr"],
        weight_decay=options["weight_decay"],
        schedule=options["schedule"],
        warmup_steps=options["warmup"],
        clip_norm=options["clip_norm"],
        ema=options["ema"],
        ema_decay=options["ema_decay"],
        amp=options["amp"],
        channels_last=options["channels_last"],
        compile=options["compile"],
        sync_bn=options["sync_bn"],
        device=device,
        augment=options["augment"],
        autoanchor=options["autoanchor"] or project.need_autoanchor,
        freeze_backbone=options["freeze_backbone"],
        freeze_det=options["freeze_det"],
        freeze_seg=options["freeze_seg"],
        val_interval=options["val_interval"],
        save_interval=options["save_interval"],
        log_interval=options["log_interval"],
        keep_best=options["keep_best"],
        cal_map=options["cal_map"] and not options["no_cal_map"],
        fitness=options["fitness"],
        conf=options["conf_thres"],
        iou=options["iou_thres"],
        es_patience=options["es_patience"],
        es_min_delta=options["es_min_delta"],
        on_nan=options["on_nan"],
        seed=options["seed"],
        upstream_init=options["upstream_init"],
        limit=_DEBUG_IMAGES if options["debug"] else None,
    )


def _weights(given: str | None, folder: Path) -> tuple[Path | None, bool]:
    """(checkpoint to start from, whether to go on with the run of the folder)."""
    from hnx.console import note
    from hybridnets.training.resume import find_last

    if given is None or given == "None":
        return None, False
    if given == "last":
        found = find_last(folder)
        if not found.resumable:
            note(f"{found.path} holds weights only: a new run starts from them")
        return (None, True) if found.resumable else (found.path, False)
    path = Path(given)
    if not path.exists():
        raise HnxError(
            f"There is no checkpoint {path}",
            why="it does not exist",
            fix="give a .pth or .safetensors file, or the word last",
            code=ExitCode.USAGE,
        )
    return path, False


def _default_workers() -> int:
    from runtimes.base import available_threads

    return min(8, available_threads())
