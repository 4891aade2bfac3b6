"""Tasks in which no loss can be seen: those without a label, and those in which float32 itself finds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.accuracy.protocols import Heads
from benchmarks.accuracy.quick import task_names
from hybridnets.errors import ExitCode, HnxError

__all__ = ["unmeasurable", "warnings_of"]

# points of float32 below which nothing is left to lose: untrained networks have some hundredths, bad ones ten
_LEAST = 1.0


def unmeasurable(metrics: Mapping[str, Any], heads: Heads) -> dict[str, str]:
    """Task -> why a loss in it cannot be seen; measurable tasks are left out.

    Args:
        metrics: of float32, as in reports (`Metrics.to_json`).
    """
    parts = [(bool(metrics["labels"]), metrics["mAP50"])] if heads.classes else []
    parts += [_area(metrics, name) for name in heads.seg_classes]
    found = {}
    for task, (labelled, share) in zip(task_names(heads), parts, strict=True):
        points = 100 * (share or 0.0)
        if not labelled:
            found[task] = "no label of it in these images"
        elif points < _LEAST:
            found[task] = f"FP32 itself scores {points:.1f}"
    return found


def _area(metrics: Mapping[str, Any], name: str) -> tuple[bool, float | None]:
    """Whether any pixel is labelled, and the IoU of all pixels together: the figure of a task counts images without the
    class, and the background of areas, which stay when a network finds nothing."""
    iou = metrics["pooled"]["IoU"][name]
    # an image without the class has accuracy 1; one with it has less when no pixel of it is found
    return bool(iou) or metrics["seg"][name]["Acc"] < 1.0, iou


def warnings_of(found: Mapping[str, str], heads: Heads, *, untrained: bool) -> list[str]:
    """A sentence for each task of `unmeasurable`.

    Raises:
        HnxError: no task is left, and the network is not the untrained one, of which nobody expects more (exit code 4).
    """
    if found and len(found) == len(task_names(heads)) and not untrained:
        raise HnxError(
            "No task can be measured, so no loss could be seen",
            why="; ".join(f"{task}: {why}" for task, why in found.items()),
            fix="name images with labels of what the network finds: --data DIR",
            code=ExitCode.NOTHING_RAN,
        )
    return [f"no loss of {task} can be seen, and no budget guards it: {why}" for task, why in found.items()]
