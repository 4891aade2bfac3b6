"""`hnx quantize`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from hnx.finite import FiniteRange

if TYPE_CHECKING:
    from calibration.engine import Calibrated, Made, Quantised

__all__ = ["command"]

_OF_MAX_DROP = ("data", "project", "limit", "report")
_OF_INT8 = ("method", "percentile", "exclude", "bias_correction", "per_tensor")


@click.command(
    short_help="Add INT8 and FP16 networks to a bundle, calibrated on frames.",
    epilog="Examples:  hnx quantize --calib datasets --for openvino   |   hnx quantize exports/hybridnets_c3_384x640 "
    "--calib drive.mp4 --frames 500 --method mse --exclude 'encoder/stage1'   |   hnx quantize --for tensorrt,fp16",
)
@click.argument("bundle", required=False)
@click.option(
    "--calib",
    metavar="PATH",
    help="Folder of pictures, data set or video to choose frames from.  [default: datasets/ if it is there, else "
    "generated scenes]",
)
@click.option("--frames", type=int, default=300, show_default=True, help="How many, spread over brightness and time.")
@click.option("--split", metavar="NAME", help="Of a data set.  [default: train]")
@click.option(
    "--for",
    "targets",
    default="openvino,onnxruntime,tensorrt",
    show_default=True,
    metavar="LIST",
    help="Of openvino, onnxruntime, tensorrt (INT8), fp16 (for strongly typed TensorRT and ONNX Runtime on CUDA).",
)
@click.option(
    "--method",
    type=click.Choice(["max", "percentile", "entropy", "mse"]),
    default="percentile",
    show_default=True,
    help="What of each activation's range is kept.",
)
@click.option("--percentile", type=float, default=99.99, show_default=True, help="With --method percentile.")
@click.option(
    "--exclude", multiple=True, metavar="REGEX", help="Nodes and blocks that stay in floating point; repeatable."
)
@click.option("--bias-correction", is_flag=True, help="Take the mean error of rounded weights out of the biases.")
@click.option(
    "--per-tensor",
    is_flag=True,
    help="One scale for each activation of OpenVINO's network, too.  [default: one for each of its channels]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of frames.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where ranges are kept; a file of another network or other frames is refused.  [default: the user's cache]",
)
@click.option("--fresh", is_flag=True, help="Measure again.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all available]")
@click.option(
    "--max-drop",
    type=FiniteRange(min=0.0),
    metavar="POINTS",
    help="Leave the most harmful blocks in float until no task loses more on labelled images; exit code 3 when "
    "nothing fits.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Data set for --max-drop.  [default: datasets/ if it is there, else generated scenes]",
)
@click.option("-p", "--project", default="bdd100k", show_default=True, help="Of that data set: a name or a .yml file.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Images for --max-drop.")
@click.option(
    "--max-latency-ratio",
    type=FiniteRange(min=0.0, min_open=True),
    metavar="RATIO",
    help="Exit code 3 when INT8 takes more than this share of FP32's time here.",
)
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="Everything --max-drop tried, as JSON.")
def command(
    bundle: str | None,
    calib: str | None,
    frames: int,
    split: str | None,
    targets: str,
    method: str,
    percentile: float,
    exclude: tuple[str, ...],
    bias_correction: bool,
    per_tensor: bool,
    seed: int,
    cache: Path | None,
    fresh: bool,
    threads: int | None,
    max_drop: float | None,
    data: Path | None,
    project: str,
    limit: int,
    max_latency_ratio: float | None,
    report: Path | None,
) -> None:
    """Quantise a bundle's network: measure the ranges of its activations on frames, and add a network for each target.

    Each runtime gets the placement of quantisation that it can fuse. The float network stays; `hnx bench` and
    `hnx eval` show what INT8 brings and costs on this machine.
    """
    from dataclasses import replace

    from benchmarks.report import check_output
    from calibration.engine import QuantiseConfig, calibrate, quantise
    from calibration.ranges import RangeConfig
    from calibration.variants import check_manifest
    from hnx.budget import Budget, search
    from hnx.console import progress, status
    from hnx.defaults import calibration_source, resolve_bundle
    from hnx.early import check_drop, check_quantisable, labelled_split, warn_of_cpu
    from hnx.trials import HERE
    from hnx.verdict import check_ratio, time_precisions, verdict
    from hybridnets.errors import HnxError
    from runtimes.base import available_threads

    threads = threads or available_threads()
    config = QuantiseConfig(
        source=calib or "",
        frames=frames,
        targets=tuple(dict.fromkeys(part.strip() for part in targets.split(",") if part.strip())),
        ranges=RangeConfig(method, percentile, threads),  # type: ignore[arg-type]  # click.Choice has checked it
        exclude=exclude,
        split=split,
        seed=seed,
        cache=cache,
        fresh=fresh,
        bias_correction=bias_correction,
        per_tensor=per_tensor,
    )
    _check_companions(method, max_drop, config.targets)
    check_ratio(config.targets, max_latency_ratio)
    if max_drop is not None:
        check_drop(config.targets)
    if report is not None:
        check_output(report)
    opened = resolve_bundle(bundle)
    check_manifest(opened)
    check_quantisable(opened, config.targets, exclude)
    warn_of_cpu(config.targets, losses=max_drop is not None)
    budget = None
    if max_drop is not None:
        images = labelled_split(opened, project, data, limit)
        budget = Budget(max_drop, images, limit, threads, report, max_latency_ratio)
    if calib is None:
        source, part = calibration_source(opened, frames)
        config = replace(config, source=source, split=split or part)
    with status("quantising") as step, progress() as bar:
        task = bar.add_task("calibrating", total=None, extra="inferences")
        found = calibrate(opened, config, step, lambda done, total: bar.update(task, completed=done, total=total))
    _remarks(found)
    if budget is None:
        with status("making networks") as step:
            result = quantise(opened, config, found, step)
        _report(result)
        verdict(time_precisions(result.bundle, config.targets, threads), max_latency_ratio)
        return
    # all searches come first: where one target keeps no budget, or is too slow, nothing is written
    fits = {target: search(opened, config, target, found, budget) for target in config.targets if target != "fp16"}
    times = {target: fit.times for target, fit in fits.items() if fit.times is not None}
    if max_latency_ratio is not None and (untimed := (fits.keys() & HERE) - times.keys()):
        raise HnxError(
            f"No latency was measured for {', '.join(sorted(untimed))}",
            why="the reason stands above; nothing was written",
            fix="close other programs, or leave --max-latency-ratio out",
        )
    if times:
        verdict(times, max_latency_ratio)
    for target in config.targets:
        kept = fits[target].trial.kept if target in fits else ()
        with status("making networks") as step:
            result = quantise(opened, replace(config, targets=(target,)), found, step, keep=kept)
        opened = result.bundle
        _report(result)


def _check_companions(method: str, max_drop: float | None, targets: Sequence[str]) -> None:
    """Refuse options that would be dropped without a word, and name those that change nothing.

    Raises:
        HnxError: an option was typed without the one it belongs to (exit code 2).
    """
    from hnx.console import note
    from hybridnets.errors import ExitCode, HnxError

    if max_drop is None and (typed := _typed(_OF_MAX_DROP)):
        raise HnxError(
            f"{', '.join(typed)} without --max-drop",
            why="nothing is measured on labelled images then; ranges are measured on --calib",
            fix="add --max-drop POINTS, for example --max-drop 0.5, or leave it out",
            code=ExitCode.USAGE,
        )
    if method != "percentile" and _typed(("percentile",)):
        raise HnxError(
            f"--percentile with --method {method}",
            why="only --method percentile keeps a share of each range",
            fix="leave one of them out",
            code=ExitCode.USAGE,
        )
    if set(targets) == {"fp16"} and (typed := _typed(_OF_INT8)):
        note(f"{', '.join(typed)} changes nothing here: FP16 networks have no INT8")


def _typed(names: Collection[str]) -> list[str]:
    """Of some options, those that were given, as they are written."""
    context = click.get_current_context()
    return [
        option.opts[-1]
        for option in context.command.params
        if option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]


def _remarks(found: Calibrated) -> None:
    from hnx.console import note

    for left_out in found.frames.left_out[:5]:
        note(f"left out: {left_out.what}: {left_out.why}")
    if len(found.frames.left_out) > 5:
        note(f"and {len(found.frames.left_out) - 5} more that cannot be read")
    for text in found.frames.notes:
        note(text)
    strata = ", ".join(f"{count} {name}" for name, count in found.frames.strata().items())
    how = "read from" if found.reused else "kept in"
    note(f"ranges of {len(found.frames)} frames ({strata}) {how} {found.place}")


def _report(result: Quantised) -> None:
    from hnx.console import note, plain_table, stdout, success
    from hybridnets.blocks import sort_blocks

    for made in result.made:
        for text in made.notes:
            note(f"{made.variant.label}: {text}")
    planned = [made for made in result.made if made.plan is not None]
    if planned:
        table = plain_table("block", *(made.variant.label for made in planned))
        names = sort_blocks(name for made in planned if made.plan is not None for name in made.plan.blocks)
        for name in names:
            table.add_row(name, *(_share(made, name) for made in planned))
        stdout().print(table)
        print("quantised of all convolutions and products")
    for made in result.made:
        worst = ", ".join(f"{name} {value.rel_l2:.1e}" for name, value in made.outputs.items())
        success(f"{made.variant.precision} for {', '.join(made.variant.runtimes)}: relative L2 to FP32 {worst}")
    print(f"Next: {_next(result)}")


def _next(result: Quantised) -> str:
    """The command that uses what was made."""
    labels = {made.variant.label for made in result.made}
    path = result.bundle.path
    rows = ",".join(f"{name}:int8,{name}:fp32" for name in ("openvino", "onnxruntime") if name in labels)
    if rows:
        return f"hnx eval {path} --runtime {rows}"
    int8 = any(made.variant.precision == "int8" for made in result.made)
    return f"hnx build-trt {path} {'--int8' if int8 else '--fp16'}"


def _share(made: Made, block: str) -> str:
    assert made.plan is not None
    done, total = made.plan.blocks.get(block, (0, 0))
    return f"{done}/{total}" if total else "-"
