"""The options of `hnx train`, as data. Every `--a-b` is understood as `--a_b` too, which is how upstream spells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hnx.commands.export import Size
from hnx.grouped import Truth

__all__ = ["GROUPS", "UPSTREAMS", "AmpMode", "EncoderFile", "one_of", "option", "truth"]

_AMP = {"true": "auto", "1": "auto", "yes": "auto", "on": "auto", "false": "off", "0": "off", "no": "off"}
_PATH = click.Path(path_type=Path)


class AmpMode(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on, not before
    """off, bf16, fp16, auto; True and False as upstream has them."""

    name = "[off|auto|bf16|fp16]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`True` to `auto`."""
        word = str(value).lower()
        word = _AMP.get(word, word)
        if word not in ("off", "auto", "bf16", "fp16"):
            self.fail(f"{value!r} is not one of off, auto, bf16, fp16", param, ctx)
        return word


class EncoderFile(click.ParamType):  # type: ignore[type-arg]
    """A file, or the word pretrained; a file of that name is ./pretrained."""

    name = "FILE|pretrained"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """A path, but for the word."""
        return "pretrained" if value == "pretrained" else Path(str(value))


def option(*names: str, help: str, **more: Any) -> click.Option:
    """An option that shows its default."""
    spelt = [other for name in names for other in dict.fromkeys((name, _underscored(name)))]
    return click.Option(spelt, help=help, show_default=True, **more)


def _underscored(name: str) -> str:
    return f"--{name[2:].replace('-', '_')}" if name.startswith("--") else name


def truth(*names: str, help: str, default: bool = False, **more: Any) -> click.Option:
    """An option that takes True or False; the option alone means True."""
    return option(*names, help=help, type=Truth(), is_flag=False, flag_value="True", default=default, **more)


def one_of(*words: str) -> dict[str, Any]:
    """A choice; the first word is the default."""
    return {"type": click.Choice(words), "default": words[0]}


# section of the help -> its options, in the order in which they matter
GROUPS: dict[str, tuple[click.Option, ...]] = {
    "Data and network": (
        option("-p", "--project", default="bdd100k", help="Project name or .yml file."),
        option(
            *("--data", "--data-path", "data"),
            type=_PATH,
            metavar="DIR",
            help="Folder of a data set, as `hnx data synth DIR` writes it.  [default: the folders of the project]",
        ),
        option("-c", "--compound-coef", type=int, default=3, help="Coefficient 0-7; where it is left out, that of -w."),
        option("-bb", "--backbone", help="Encoder of the timm package in place of the coefficient's EfficientNet."),
        option(
            *("-w", "--weights", "--load-weights", "weights"),
            metavar="FILE|NAME|last",
            help="Start from a checkpoint or weights by name, or `last`: go on with the run of the output folder.",
        ),
        option(
            *("--encoder",),
            type=EncoderFile(),
            metavar="FILE|pretrained",
            help="Pretrained EfficientNet of the package efficientnet_pytorch; with -bb a file of timm's, or "
            "`pretrained`: let timm download it.",
        ),
        option("--size", type=Size(), help="Input size, multiples of 128.  [default: the project's]"),
        option(
            *("--activation",),
            **one_of("swish", "hardswish", "relu"),
            help="hardswish and relu run and quantise better on edge devices. Where it is left out, that of -w.",
        ),
        truth("--freeze-backbone", help="Leave encoder and BiFPN as they are, batch norms too."),
        truth("--freeze-det", help="Leave the detection heads as they are."),
        truth("--freeze-seg", help="Leave the segmentation head as it is."),
    ),
    "Learning": (
        option("--num-epochs", type=int, default=500, help="Epochs in all."),
        option("-b", "--batch-size", type=int, default=12, help="Images a step and process."),
        option("--accumulate", type=int, default=1, help="Batches a step."),
        option("--lr", type=float, default=1e-4, help="Learning rate after the warm-up."),
        option("--optim", **one_of("adamw", "sgd"), help="Optimizer."),
        option("--weight-decay", type=float, default=0.01, help="As torch has it."),
        option(
            *("--schedule",),
            **one_of("cosine", "plateau", "constant"),
            help="Of the learning rate; plateau is upstream's.",
        ),
        option("--warmup", type=int, metavar="STEPS", help="[default: 3 epochs, at most 1000 steps or a tenth]"),
        option("--seg-weight", type=float, default=1.0, help="Of the segmentation losses in the sum."),
        option("--clip-norm", type=float, default=10.0, help="Largest gradient norm; 0: none."),
        truth("--ema", default=True, help="Average the weights; validation and the best network take the average."),
        option("--ema-decay", type=float, default=0.9998, help="Of the average."),
        option(
            "--precise-bn",
            type=int,
            default=256,
            metavar="IMAGES",
            help="Compute batch norms' statistics from so many training images before each validation; 0: keep running "
            "ones.",
        ),
        truth(
            *("--augment",),
            default=True,
            help="Turn, scale, shift, flip and recolour training images as the project says.",
        ),
        truth("--autoanchor", help="Fit the anchors to the boxes first.  [also: need_autoanchor of the project]"),
        truth("--upstream-init", help="Draw all convolutions anew, as upstream does to its encoder."),
        option("--seed", type=int, default=42, help="Of everything random."),
        option(
            *("--on-nan",),
            **one_of("skip", "stop"),
            help="When a loss is not finite: name the images and leave them out, or end.",
        ),
    ),
    "Validation and files": (
        option(
            *("-o", "--output", "--saved-path", "output"),
            type=_PATH,
            default=Path("checkpoints"),
            help="Folder of runs; this one goes to OUTPUT/PROJECT.",
        ),
        truth("--overwrite", help="Start anew in a folder that holds a run, which is removed."),
        option(
            *("--save-interval",),
            type=int,
            default=500,
            help="Steps between writes of last.pth; every epoch writes it, too.",
        ),
        option("--val-interval", type=int, default=1, help="Epochs between validations; 0: only at the end."),
        truth("--cal-map", default=True, help="Choose the best network by its fitness, not by its loss."),
        click.Option(["--no-cal-map", "--no_cal_map"], is_flag=True, help="The same as --cal-map False."),
        option(
            *("--fitness",),
            **one_of("all", "det"),
            help="all: mean of 0.1 mAP50 + 0.9 mAP50-95 and each class's IoU; det: the first alone, as upstream.",
        ),
        option("--conf-thres", type=float, default=0.001, help="Score of validation boxes."),
        option("--iou-thres", type=float, default=0.6, help="IoU of their NMS."),
        option("--keep-best", type=int, default=1, help="Best networks to keep."),
        option(
            "--es-patience", type=int, default=0, help="Stop after so many epochs without a better network; 0: never."
        ),
        option("--es-min-delta", type=float, default=0.0, help="What counts as better."),
        option("--log-interval", type=int, default=10, help="Steps a log row."),
    ),
    "Machine": (
        option("--device", help="cuda, cuda:1 or cpu.  [default: CUDA where there is one]"),
        option("-n", "--num-workers", type=int, help="Processes that read images.  [default: cores, at most 8]"),
        option(
            *("--amp",),
            type=AmpMode(),
            is_flag=False,
            flag_value="auto",
            default="off",
            help="Mixed precision; the losses stay float32.",
        ),
        truth("--compile", help="Compile the network with torch.compile: minutes first, then faster steps."),
        truth("--channels-last", default=True, help="Memory layout of the network."),
        truth("--sync-bn", help="Batch norms over all processes of torchrun."),
        option("--num-gpus", type=int, help="0: cpu. For several, start with torchrun."),
    ),
}

# understood for upstream's sake, and not shown
UPSTREAMS: tuple[click.Option, ...] = (
    option("--log-path", type=_PATH, hidden=True, help=""),
    truth("--debug", hidden=True, help=""),
    truth("-v", "--verbose", default=True, hidden=True, help=""),
    truth("--plots", default=True, hidden=True, help=""),
)
