"""What a run learns from and is measured by: labels, or a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridnets.checkpoint import build_model, load_checkpoint
from hybridnets.dataset import SampleReader, Split
from hybridnets.network.model import HybridNets, Outputs
from hybridnets.training.config import TrainConfig
from hybridnets.training.data import Batch
from hybridnets.training.distill.frames import FrameReader, FrameSplit
from hybridnets.training.distill.labels import label_frames
from hybridnets.training.distill.loss import DistillLoss
from hybridnets.training.distributed import World, sum_over_processes
from hybridnets.training.losses import HybridLoss
from hybridnets.training.step import Criterion, Normaliser
from hybridnets.training.validation import Scorer

__all__ = ["Task", "distillation", "labelled", "make_criterion"]


@dataclass(frozen=True)
class Task:
    """Readers and losses of a run.

    Attributes:
        learnt, measured: readers of the samples for training and for validation.
        criterion: of training.
        alone: of validation, which measures each image for itself: nothing is summed over processes.
    """

    learnt: SampleReader
    measured: SampleReader
    criterion: Criterion
    alone: Criterion


def make_criterion(loss: HybridLoss) -> Criterion:
    """The losses of a batch by their names; `loss` is what training minimises, `seg` both segmentation terms."""

    def criterion(outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        parts = loss(outputs, batch.boxes, batch.target, batch.has_boxes)
        return {**parts.terms(), "seg": parts.seg_tversky + parts.seg_focal}

    return criterion


def labelled(config: TrainConfig, world: World, splits: tuple[Split, Split], scorer: Scorer | None) -> Task:
    """Learn from labels."""
    project = config.project
    loss, alone = (
        HybridLoss(
            config.input_size,
            project.seg_mode,
            project.anchors,
            det=not config.freeze_det,
            seg=not config.freeze_seg,
            seg_weight=config.seg_weight,
            gather=gather,
        ).to(world.device)
        for gather in (sum_over_processes if world.size > 1 else None, None)
    )
    learnt, measured = splits
    at_frame = scorer is not None and scorer.frame_target
    return Task(
        SampleReader(learnt, config.target),
        SampleReader(measured, config.target, frame_target=at_frame),
        make_criterion(loss),
        make_criterion(alone),
    )


def distillation(
    config: TrainConfig,
    world: World,
    splits: tuple[FrameSplit, FrameSplit],
    student: HybridNets,
    normaliser: Normaliser,
    note: Callable[[str], None],
) -> Task:
    """Learn from the teacher of `config.distill`, and be measured by its predictions on held-out frames.

    Raises:
        HnxError: the teacher cannot be read, or no held-out frame.
    """
    assert config.distill is not None
    memory = torch.channels_last if normaliser.channels_last else torch.contiguous_format
    teacher = build_model(load_checkpoint(config.distill.teacher)).to(world.device, memory_format=memory)  # type: ignore[call-overload]
    learnt, measured = splits
    labels = label_frames(teacher, measured, config.target, normaliser, world.device, note)
    readable = FrameSplit.of(config.project, measured.split, {name: measured.paths[name] for name in labels})
    weights = {"seg_weight": config.seg_weight, "feature_weight": config.distill.feature_weight}
    return Task(
        FrameReader(learnt, config.target),
        FrameReader(readable, config.target, labels),
        DistillLoss(teacher, student, normaliser, **weights),
        DistillLoss(teacher, None, normaliser, **weights),
    )
