"""What one process or several compute; `[torchrun] processes.py DATA OUT` writes it for the tests to compare."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hybridnets.dataset import SampleReader, open_split
from hybridnets.network import create_model
from hybridnets.training.data import BatchPlan, TrainingSet, training_batches
from hybridnets.training.distributed import World, joined, sum_over_processes, synchronise_batch_norms
from hybridnets.training.losses import HybridLoss
from hybridnets.training.step import Normaliser, TrainStep, make_optimizer
from hybridnets.training.task import make_criterion
from hybridnets.training.trainer import train
from hybridnets.training.validation import Validator
from tests.hybridnets.training.tiny import NamedScorer, config, project

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WHOLE_BATCH = 4


def gradients(world: World, data: Path) -> dict[str, torch.Tensor]:
    """Gradients of the first step over four images, spread over the processes; dropout and drop-connect are off."""
    run = config(data, data)
    # float64: at 128x128 the batch norms of P7 see four numbers and blow the noise of float32 up to 1e-5
    network = create_model(run.model_config, 0).train().double()
    network.set_stochastic(False)
    network.encoder._conv_head.requires_grad_(False)
    network.encoder._bn1.requires_grad_(False)
    if world.size > 1:
        synchronise_batch_norms(network, world.device)
    split = open_split(run.project, data, "train")
    plan = BatchPlan(len(split), WHOLE_BATCH // world.size, rank=world.rank, processes=world.size, seed=1)
    batches = next(training_batches(TrainingSet(SampleReader(split, run.target), split.names), plan, workers=0))
    gather = sum_over_processes if world.size > 1 else None
    step = TrainStep(
        network,
        make_criterion(HybridLoss(run.input_size, "multiclass", gather=gather)),
        make_optimizer("sgd", list(network.parameters()), lr=1e-9, weight_decay=0.0, device=world.device),
        Normaliser(MEAN, STD).double(),
        world,
        clip_norm=0.0,
    )
    result, _ = step.run(batches, 0)
    assert not result.skipped
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    buffers = {f"buffer {name}": b.clone() for name, b in network.named_buffers() if b.is_floating_point()}
    return {**found, **buffers}


def validation(world: World, data: Path) -> dict[str, Any]:
    """Scores and losses of a fixed network on the validation split."""
    run = config(data, data)
    validator = Validator(
        SampleReader(open_split(run.project, data, "val"), run.target, frame_target=True),
        make_criterion(HybridLoss(run.input_size, "multiclass")),
        Normaliser(MEAN, STD),
        world,
        scorer=NamedScorer(),
        batch_size=2,
    )
    found = validator.run(create_model(run.model_config, 0).eval())
    assert found.scores is not None
    return {"scores": dict(found.scores.metrics), "losses": dict(found.losses), "images": found.images}


def break_a_sample(data: Path, out: Path) -> None:
    """Damage the first sample that process 1 of 2 reads, and write its name down."""
    run = config(data, data)
    split = open_split(run.project, data, "train")
    plan = BatchPlan(len(split), run.batch_size, rank=1, processes=2, seed=run.seed)
    name = split.names[next(iter(plan))[0].sample]
    split.files(name).image.write_bytes(b"no picture")
    (out / "broken.txt").write_text(name)


def main(data: Path, out: Path) -> None:
    """All of it, written by rank 0."""
    torch.set_num_threads(1)
    with joined("cpu") as world:
        content = {"gradients": gradients(world, data), "validation": validation(world, data), "size": world.size}
        if world.is_main:
            torch.save(content, out / "found.pt")
        if world.size > 1:
            if world.is_main:
                break_a_sample(shutil.copytree(data, out / "broken"), out)
            dist.barrier()
            run = config(out / "broken", out / "run", project=project(), epochs=1, sync_bn=True, augment=False)
            train(run, make_scorer=lambda _: NamedScorer())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
