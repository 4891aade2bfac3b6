"""What `hnx quantize` and `hnx sensitivity` refuse before minutes of calibration, not after them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from hybridnets.bundle import Bundle
    from hybridnets.dataset import Split

__all__ = ["check_drop", "check_quantisable", "labelled_split", "warn_of_cpu"]


def check_quantisable(bundle: Bundle, targets: Sequence[str], exclude: Sequence[str]) -> None:
    """Plan the networks of all targets.

    Args:
        targets: keys of `calibration.engine.TARGETS`.
        exclude: see `calibration.placement.make_plan`.

    Raises:
        HnxError: the opset is too old, an expression is none or matches nothing, or nothing is left to quantise (exit
            code 2); the bundle has no float network.
    """
    from calibration.engine import TARGETS
    from calibration.placement import placement
    from calibration.qdq import quantisable_plan
    from calibration.variants import float_model

    model = float_model(bundle)
    for name in filter(None, map(TARGETS.get, targets)):  # fp16 quantises nothing
        quantisable_plan(model, placement(name), exclude=exclude)


def check_drop(targets: Sequence[str]) -> None:
    """Refuse a search where nothing is quantised.

    Raises:
        HnxError: FP16 is the only target (exit code 2).
    """
    if set(targets) == {"fp16"}:
        raise HnxError(
            "--max-drop has nothing to choose for fp16",
            why="FP16 networks have no blocks in INT8",
            fix="add openvino, onnxruntime or tensorrt to --for, or leave --max-drop out",
            code=ExitCode.USAGE,
        )


def warn_of_cpu(targets: Sequence[str], *, losses: bool) -> None:
    """Say where INT8's times and losses on this CPU are not those of others.

    Args:
        losses: they are measured here, those of networks for TensorRT, too.
    """
    from hnx.console import note
    from runtimes.cpu import has_int8_products

    concerned = set(targets) - ({"fp16"} if losses else {"fp16", "tensorrt"})
    if concerned and not has_int8_products():
        note(
            "this CPU has no instructions for sums of 8-bit products (VNNI): INT8 is often no faster than FP32 here, "
            "and on x86 it loses more than on CPUs that have them"
        )


def labelled_split(bundle: Bundle, project: str, data: Path | None, limit: int) -> Split:
    """The labelled images that losses are measured on.

    Args:
        project: name or file of the project that the labels follow.
        data: data set; None takes the default one.
        limit: how many of them are used.

    Raises:
        HnxError: the project or the data set cannot be read, or belongs to another network.
    """
    from benchmarks.accuracy.config import check_project
    from hnx.defaults import resolve_split
    from hybridnets.project import load_project

    labels = load_project(project)
    check_project(bundle, labels)
    return resolve_split(labels, data, None, limit=limit)
