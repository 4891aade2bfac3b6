"""Before a student's first step: how far it is from its teacher, and what new statistics alone bring."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hybridnets.errors import HnxError
from hybridnets.files import read_json, write_json
from hybridnets.training.config import TrainConfig
from hybridnets.training.distributed import World
from hybridnets.training.events import Listener
from hybridnets.training.main_process import on_main
from hybridnets.training.parts import Parts
from hybridnets.training.report import finite
from hybridnets.training.resume import to_cpu
from hybridnets.training.validation import Validation

__all__ = ["BEGINNING", "SWAPPED", "adapt", "read_beginning"]

BEGINNING = "before.json"  # in the folder of a run
SWAPPED, RECALIBRATED = "activation swapped", "batch norms recalibrated"


def adapt(config: TrainConfig, world: World, parts: Parts, listener: Listener) -> None:
    """Measure the teacher's weights under the student's activation, set batch norms anew, and measure again.

    The student begins with the statistics that are closer to the teacher: those of too few frames may be far off. Both
    measurements go into `before.json` of the run's folder. All processes call this.
    """

    def measure(name: str) -> Validation:
        tell = listener.validating if world.is_main else _quiet
        found = parts.validator.run(parts.network.eval(), tell)
        if world.is_main:
            listener.note(f"{name}: {_told(found)}")
        return found

    found = {SWAPPED: measure(SWAPPED)}
    if config.precise_bn:
        before = to_cpu(parts.network.state_dict())
        parts.recalibrator.run(parts.network)
        found[RECALIBRATED] = measure(RECALIBRATED)
        if _distance(found[RECALIBRATED]) > _distance(found[SWAPPED]):
            parts.network.load_state_dict(before)
            if world.is_main:
                listener.note(
                    "the teacher's own statistics are closer to it, and stay: those of --precise-bn "
                    f"{config.precise_bn} frames are left out"
                )
    parts.network.train()
    if parts.average is not None:
        parts.average.network.load_state_dict(parts.network.state_dict())
    on_main(world, lambda: write_json(config.folder / BEGINNING, finite({k: _plain(v) for k, v in found.items()})))


def read_beginning(folder: Path) -> dict[str, dict[str, Any]]:
    """What `adapt` measured, by name; nothing where the file is not there any more, or damaged."""
    try:
        found = read_json(folder / BEGINNING)
    except HnxError:
        return {}
    return (
        {str(key): value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}
    )


def _distance(validation: Validation) -> float:
    """The loss, which is what training goes on to lower: agreement on a few frames is too coarse to decide."""
    loss = validation.losses["loss"]
    return loss if math.isfinite(loss) else math.inf


def _quiet(done: int, total: int) -> None:
    """Rank 0 tells."""


def _plain(validation: Validation) -> dict[str, Any]:
    scores = validation.scores
    return {
        "images": validation.images,
        "losses": dict(validation.losses),
        "metrics": None if scores is None else dict(scores.metrics),
        "segmentation": None if scores is None else dict(scores.segmentation),
    }


def _told(validation: Validation) -> str:
    if validation.scores is None:
        return f"loss {validation.losses['loss']:.4g}"
    map50 = validation.scores.metrics.get("mAP50")
    parts = [f"mAP50 {map50:.4f}"] if isinstance(map50, float) else []
    parts += [f"{name} IoU {value:.4f}" for name, value in validation.scores.segmentation.items()]
    return "agreement with the teacher: " + ", ".join(parts)
