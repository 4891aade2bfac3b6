"""What a run is made of: network, losses, optimizer, average, data and validator, built from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybridnets.checkpoint import save_safetensors
from hybridnets.dataset import Split
from hybridnets.errors import HnxError
from hybridnets.network.model import HybridNets
from hybridnets.project import Project
from hybridnets.training import resume
from hybridnets.training.augment import Augmenter, AugmentSettings
from hybridnets.training.config import TrainConfig
from hybridnets.training.data import Augment, TrainingSet, plain_item
from hybridnets.training.distill.frames import FrameSplit
from hybridnets.training.distributed import World, synchronise_batch_norms
from hybridnets.training.ema import Ema
from hybridnets.training.freeze import freeze, keep_statistics
from hybridnets.training.recalibrate import Recalibrator
from hybridnets.training.schedule import Schedule
from hybridnets.training.start import starting_network
from hybridnets.training.step import Float32Sigmoid, Normaliser, TrainStep, amp_dtype, make_optimizer
from hybridnets.training.task import distillation, labelled
from hybridnets.training.validation import Scorer, Validator

__all__ = ["Parts", "build_parts", "warmup_steps"]

_WARMUP_EPOCHS, _MAX_WARMUP, _WARMUP_SHARE = 3, 1000, 10
# parts of the encoder that are in every checkpoint and take no part in the forward pass
_UNUSED = ("_conv_head", "_bn1")


@dataclass
class Parts:
    """The pieces of one process; `state` and `load_state` carry all of them from process to process."""

    project: Project
    size: tuple[int, int]
    network: HybridNets
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    average: Ema | None
    step: TrainStep
    dataset: TrainingSet
    validator: Validator
    recalibrator: Recalibrator

    def networks(self) -> Iterator[HybridNets]:
        """The trained and the averaged network."""
        yield self.network
        if self.average is not None:
            yield self.average.network

    def measured(self) -> HybridNets:
        """The network that is validated and deployed, in eval mode: the average where there is one."""
        if self.average is not None:
            return self.average.network
        return self.network.eval()

    def update_average(self) -> None:
        """After a step."""
        if self.average is not None:
            self.average.update(self.network)

    def measured_state(self) -> dict[str, Tensor]:
        """State dict of the measured network on the CPU."""
        network = self.network if self.average is None else self.average.network
        return dict(resume.to_cpu(network.state_dict()))

    def state(self) -> dict[str, Any]:
        """Everything of a checkpoint that lies in the pieces. `model` is the network to use, as everywhere."""
        return {
            "model": self.measured_state(),
            "train_model": resume.to_cpu(self.network.state_dict()),
            "ema_updates": 0 if self.average is None else self.average.updates,
            "optimizer": resume.to_cpu(self.optimizer.state_dict()),
            "scaler": resume.to_cpu(self.step.scaler.state_dict()),
            "schedule": dict(self.schedule.state_dict()),
        }

    def load_state(self, content: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            HnxError: it belongs to another network or optimizer.
        """
        try:
            self.network.load_state_dict(content["train_model"])
            self.optimizer.load_state_dict(_with_own_options(self.optimizer, content["optimizer"]))
            self.schedule.load_state_dict(content["schedule"])
            if self.average is not None:
                self.average.load_state_dict({"updates": content["ema_updates"], "model": content["model"]})
            if content["scaler"] and self.step.scaler.is_enabled():
                self.step.scaler.load_state_dict(content["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise HnxError(
                "The run to resume does not fit the options",
                # torch says in its first line which network, and what is wrong in the next one
                why=" ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__,
                fix="give the coefficient, classes and optimizer it was started with, or start anew with -w FILE",
            ) from error

    def write_safetensors(self, path: Path) -> None:
        """The measured network with what is needed to use it."""
        project = self.project
        metadata = {
            "classes": list(project.classes),
            "seg_classes": list(project.seg_list),
            "anchors": {"scales": list(project.anchors.scales), "ratios": [list(r) for r in project.anchors.ratios]},
            "mean": list(project.mean),
            "std": list(project.std),
            "size": list(self.size),
        }
        network = self.network if self.average is None else self.average.network
        save_safetensors(path, network, metadata)


def _with_own_options(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """A stored state with the weight decay, the kernels and all other options of this optimizer.

    torch takes those of the state over: what somebody chose anew would have no effect, and kernels of one device would
    run on another.

    Raises:
        ValueError: it is of another kind, which torch takes over and fails on in the next step.
    """
    groups = []
    for own, stored in zip(optimizer.param_groups, state["param_groups"], strict=True):
        missing = sorted({"betas", "momentum"}.intersection(own).difference(stored))
        if missing:
            raise ValueError(f"its optimizer is another one than {type(optimizer).__name__}: it has no {missing[0]}")
        groups.append({**stored, **own, "params": stored["params"]})
    return {**state, "param_groups": groups}


def warmup_steps(config: TrainConfig, steps: int, steps_per_epoch: int) -> int:
    """Steps of the warm-up: as asked for, else three epochs, at most 1000 steps and a tenth of the run."""
    if config.warmup_steps is not None:
        return min(config.warmup_steps, steps)
    if config.schedule == "plateau":
        return 0  # as upstream
    return min(_WARMUP_EPOCHS * steps_per_epoch, _MAX_WARMUP, steps // _WARMUP_SHARE)


def build_parts(
    config: TrainConfig,
    world: World,
    splits: tuple[Split, Split],
    steps: tuple[int, int],
    scorer: Scorer | None,
    note: Callable[[str], None],
) -> Parts:
    """Build everything.

    Args:
        splits: for training and for validation.
        steps: of the whole run, and of an epoch.

    Raises:
        HnxError: a checkpoint, device or option does not fit.
    """
    project, device = config.project, world.device
    dtype = amp_dtype(config.amp, device)
    network = starting_network(config, note)
    if config.sync_bn and world.size > 1:
        synchronise_batch_norms(network, device)
    if dtype is not None:
        network.classifier.final = Float32Sigmoid()
    # torch 2.14.1 corrupts the heap in the backward pass of repvgg_b0 with channels last on a CPU: a timm backbone is
    # not trained that way there
    channels_last = config.channels_last and (config.backbone is None or device.type != "cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(device=device, memory_format=layout).train()  # type: ignore[call-overload]
    freeze(network, backbone=config.freeze_backbone, det=config.freeze_det, seg=config.freeze_seg)
    if config.distill is not None:
        keep_statistics(network)
    for name in _UNUSED:
        # DDP waits for the gradient of every parameter that asks for one
        if hasattr(network.encoder, name):
            getattr(network.encoder, name).requires_grad_(False)
    average = Ema(network, config.ema_decay) if config.ema else None
    optimizer = make_optimizer(
        config.optim, list(network.parameters()), lr=config.lr, weight_decay=config.weight_decay, device=device
    )
    normaliser = Normaliser(project.mean, project.std, channels_last=channels_last).to(device)
    # behind the average, which must not copy what listens to the network
    learnt, measured = splits
    if isinstance(learnt, FrameSplit) and isinstance(measured, FrameSplit):
        task = distillation(config, world, (learnt, measured), network, normaliser, note)
    else:
        task = labelled(config, world, splits, scorer)
    step = TrainStep(
        network,
        task.criterion,
        optimizer,
        normaliser,
        world,
        dtype=dtype,
        clip_norm=config.clip_norm,
        seed=config.seed,
        compiled=config.compile,
    )
    augment: Augment = plain_item
    if config.augment:
        augment = Augmenter(AugmentSettings.from_dataset(project.dataset))
    names = learnt.names
    dataset = TrainingSet(task.learnt, names, augment, config.seed)
    recalibrator = Recalibrator(task.learnt, names, normaliser, device, images=config.precise_bn, seed=config.seed)
    validator = Validator(
        task.measured,
        task.alone,
        normaliser,
        world,
        scorer=scorer,
        batch_size=min(config.batch_size, 8),
        workers=config.workers,
        dtype=dtype,
    )
    total, per_epoch = steps
    schedule = Schedule(config.schedule, config.lr, total, warmup=warmup_steps(config, total, per_epoch))
    size = config.input_size
    return Parts(project, size, network, optimizer, schedule, average, step, dataset, validator, recalibrator)
