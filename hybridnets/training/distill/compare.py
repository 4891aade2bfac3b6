"""Teacher and student on labelled images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hybridnets.checkpoint import build_model, load_checkpoint
from hybridnets.dataset import Split
from hybridnets.training.config import TrainConfig
from hybridnets.training.distributed import World, own_device
from hybridnets.training.normaliser import Normaliser
from hybridnets.training.task import labelled
from hybridnets.training.validation import Scorer, Validation, Validator

__all__ = ["measure"]


def measure(
    config: TrainConfig,
    checkpoint: Path,
    split: Split,
    scorer: Scorer,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> Validation:
    """A checkpoint's figures on a labelled split, in float32, as `hnx train` validates.

    Args:
        config: of the distillation; gives input size, project and device.

    Raises:
        HnxError: the checkpoint or every image cannot be read.
    """
    project = config.project
    # by itself, also where several processes trained: the others have ended
    world = World(device=own_device(config.device))
    network = build_model(load_checkpoint(checkpoint)).to(world.device)
    task = labelled(replace(config, distill=None), world, (split, split), scorer)
    validator = Validator(
        task.measured,
        task.alone,
        Normaliser(project.mean, project.std).to(world.device),
        world,
        scorer=scorer,
        batch_size=min(config.batch_size, 8),
        workers=config.workers,
    )
    return validator.run(network, on_image)
