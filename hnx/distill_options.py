"""The options of `hnx distill`, as data; the names are those of `hnx train` wherever they mean the same."""

from __future__ import annotations

from pathlib import Path

import click

from hnx.commands.export import Size
from hnx.train_options import AmpMode, option, truth

__all__ = ["GROUPS"]

_PATH = click.Path(path_type=Path)

# section of the help -> its options, in the order in which they matter
GROUPS: dict[str, tuple[click.Option, ...]] = {
    "Teacher and student": (
        option(
            *("-w", "--weights", "--load-weights", "weights"),
            metavar="FILE|NAME",
            help="The teacher: a checkpoint, or a name of hnx weights list.  [default: weights/hybridnets.pth, else "
            "weights that came with this installation]",
        ),
        option(
            *("--activation",),
            type=click.Choice(["hardswish", "relu", "swish"]),
            default="hardswish",
            help="Of the student; everything else is the teacher's.",
        ),
        option("-p", "--project", help="Project name or .yml file.  [default: the checkpoint's, else bdd100k]"),
        option(
            "--size", type=Size(), help="Input size, multiples of 128.  [default: the teacher's, else the project's]"
        ),
    ),
    "Frames": (
        option("--held-out", type=int, default=64, metavar="N", help="Frames to measure on, not learnt from."),
        option(
            *("--held-out-frames",),
            multiple=True,
            metavar="FRAMES",
            help="Measure on these instead; repeatable.",
        ),
        option("--every", type=int, default=1, metavar="N", help="Take every N-th frame of a video."),
        option(
            *("--data", "data"),
            type=_PATH,
            metavar="DIR",
            help="A labelled data set: at the end teacher and student are both evaluated on its validation split.",
        ),
        option(
            *("--max-drop",),
            type=float,
            metavar="POINTS",
            help="With --data: end with exit code 3 where the student loses more on mAP50 or a class's IoU.",
        ),
        truth("--augment", default=True, help="Turn, scale, shift, flip and recolour frames as the project says."),
    ),
    "Learning": (
        option("--num-epochs", type=int, default=10, help="Times each frame is seen."),
        option("-b", "--batch-size", type=int, default=8, help="Images a step and process."),
        option("--lr", type=float, default=5e-4, help="Learning rate after the warm-up; it ends at a hundredth."),
        option("--weight-decay", type=float, default=0.01, help="As torch has it."),
        option("--warmup", type=int, metavar="STEPS", help="[default: 3 epochs, at most 1000 steps or a tenth]"),
        option("--seg-weight", type=float, default=10.0, help="Of the segmentation's divergence in the sum."),
        option("--feature-weight", type=float, default=1.0, help="Of the maps behind the outputs in the sum; 0: none."),
        option("--clip-norm", type=float, default=1.0, help="Largest gradient norm; 0: none."),
        option("--ema-decay", type=float, default=0.998, help="Of the averaged weights, which are measured and kept."),
        option(
            *("--precise-bn",),
            type=int,
            default=256,
            metavar="IMAGES",
            help="Frames from which the batch norms' statistics are computed before the first step; 0: the teacher's.",
        ),
        option("--seed", type=int, default=42, help="Of everything random."),
    ),
    "Files and machine": (
        option(
            *("-o", "--output", "output"),
            type=_PATH,
            default=Path("checkpoints") / "distill",
            help="Folder of runs; this one goes to OUTPUT/TEACHER-ACTIVATION.",
        ),
        truth(
            "--resume",
            help="Go on with the run of that folder; what is not given is as it had it, but for --data and --max-drop.",
        ),
        truth("--overwrite", help="Start anew in a folder that holds a run."),
        option("--save-interval", type=int, default=500, help="Steps between writes of last.pth."),
        option("--val-interval", type=int, default=1, help="Epochs between measurements; 0: only at the end."),
        option("--log-interval", type=int, default=10, help="Steps a log row."),
        option("--device", help="cuda, cuda:1 or cpu.  [default: CUDA where there is one]"),
        option("-n", "--num-workers", type=int, help="Processes that read images.  [default: cores, at most 8]"),
        option(
            *("--amp",),
            type=AmpMode(),
            is_flag=False,
            flag_value="auto",
            default="off",
            help="Mixed precision of the student; the losses stay float32.",
        ),
    ),
}
