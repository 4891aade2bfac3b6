"""What a training run is asked to do, checked before anything is loaded. Free of torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hybridnets.config import Activation, ModelConfig, check_size
from hybridnets.errors import ExitCode, HnxError, did_you_mean
from hybridnets.project import Project
from hybridnets.training.distill.config import DistillConfig

__all__ = ["PRETRAINED", "Amp", "Fitness", "OnNan", "Optim", "ScheduleName", "Start", "TrainConfig"]

Amp = Literal["off", "auto", "bf16", "fp16"]
Fitness = Literal["all", "det"]
OnNan = Literal["skip", "stop"]
Optim = Literal["adamw", "sgd"]
ScheduleName = Literal["cosine", "plateau", "constant"]
Start = Literal["new", "weights", "last"]

PRETRAINED: Literal["pretrained"] = "pretrained"  # in place of a file

_CHOICES: dict[str, Any] = {
    "amp": Amp,
    "fitness": Fitness,
    "on_nan": OnNan,
    "optim": Optim,
    "schedule": ScheduleName,
    "activation": Activation,
}
# name -> (smallest, largest) allowed value
_RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (1, 4096),
    "accumulate": (1, 4096),
    "workers": (0, 256),
    "epochs": (1, 1_000_000),
    "lr": (0.0, 100.0),
    "weight_decay": (0.0, 10.0),
    "warmup_steps": (0, 10_000_000),
    "clip_norm": (0.0, 1e9),
    "seg_weight": (1e-6, 1e6),
    "ema_decay": (0.0, 0.999999),
    "precise_bn": (0, 1_000_000),
    "val_interval": (0, 1_000_000),
    "save_interval": (1, 1_000_000_000),
    "log_interval": (1, 1_000_000),
    "keep_best": (1, 1000),
    "es_patience": (0, 1_000_000),
    "es_min_delta": (0.0, 1e9),
    "conf": (0.0, 1.0),
    "iou": (0.0, 1.0),
    "limit": (1, 1_000_000_000),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        project: classes, normalisation, anchors and augmentation.
        data: None for the project's own folders, or DIR as `hybridnets.dataset.open_split` takes it.
        folder: where checkpoints, logs and the report go.
        weights: a checkpoint to start from; None starts from new weights.
        encoder: file with weights for the encoder of a new network: of an EfficientNet as the package
            efficientnet_pytorch names it, with a backbone of a timm model; or `PRETRAINED`, what timm downloads.
        resume: go on where `last.pth` of `folder` ends.
        size: (width, height) of the network's input; None takes the project's.
        batch_size: images a step and process.
        accumulate: batches whose gradients are averaged before one optimizer step.
        lr, weight_decay: as torch's optimizers take them; upstream has 1e-4 and torch's 0.01 for AdamW.
        schedule: cosine from `lr` to a hundredth of it after a linear warm-up, upstream's plateau, or constant.
        warmup_steps: None for three epochs, at most 1000 steps and a tenth of the run.
        seg_weight: of both segmentation losses in the sum. Upstream has 1: the smooth L1 with its factor of 50 then
            holds nine tenths of the loss of a network that starts from nothing.
        clip_norm: largest norm of the whole gradient; 0 switches clipping off.
        ema: keep an exponential moving average of the weights, which validation measures and `best` holds.
        precise_bn: training images from which the statistics of batch norms are computed before every validation, for
            the network that is measured and kept (`hybridnets.training.recalibrate`); 0 keeps the running ones.
        amp: autocast of the forward pass; the loss is always float32. auto: bf16 where the device computes in it,
            fp16 on older CUDA devices, else off.
        val_interval: epochs between validations; 0 for none but the last.
        save_interval: steps between writes of `last.pth`; it is also written at the end of every epoch.
        cal_map: choose the best network by its fitness; without, by the lowest validation loss, as upstream.
        fitness: all: mean over the tasks of 0.1 mAP50 + 0.9 mAP50-95 and the IoU of each segmentation class.
            det: the first term alone, as upstream has it, which may lose the best lane network.
        es_patience: stop after so many epochs without a better fitness; 0 never.
        on_nan: leave out a batch whose loss is not finite, or stop.
        seed: of weights, order, augmentation, dropout and drop-connect. Every random number follows from it and the
            step or sample, so a resumed run draws what an uninterrupted one would.
        limit: only the first so many images of each split.
        upstream_init: draw all convolutions anew, as upstream's train.py does to its pretrained encoder by mistake.
        distill: learn from a teacher instead of labels; `weights` are then the teacher's, and `precise_bn` images set
            the batch norms' statistics once, before the first step.

    Raises:
        HnxError: a value is out of range or two contradict each other (exit code 2).
    """

    project: Project
    folder: Path
    data: Path | None = None
    weights: Path | None = None
    encoder: Path | Literal["pretrained"] | None = None
    resume: bool = False
    overwrite: bool = False
    compound_coef: int = 3
    backbone: str | None = None
    activation: Activation = "swish"
    size: tuple[int, int] | None = None
    batch_size: int = 12
    accumulate: int = 1
    workers: int = 2
    epochs: int = 500
    optim: Optim = "adamw"
    lr: float = 1e-4
    weight_decay: float = 0.01
    schedule: ScheduleName = "cosine"
    warmup_steps: int | None = None
    seg_weight: float = 1.0
    clip_norm: float = 10.0
    ema: bool = True
    ema_decay: float = 0.9998
    precise_bn: int = 256
    amp: Amp = "off"
    channels_last: bool = True
    compile: bool = False
    sync_bn: bool = False
    device: str | None = None
    augment: bool = True
    autoanchor: bool = False
    freeze_backbone: bool = False
    freeze_det: bool = False
    freeze_seg: bool = False
    val_interval: int = 1
    save_interval: int = 500
    log_interval: int = 10
    keep_best: int = 1
    cal_map: bool = True
    fitness: Fitness = "all"
    conf: float = 0.001
    iou: float = 0.6
    es_patience: int = 0
    es_min_delta: float = 0.0
    on_nan: OnNan = "skip"
    seed: int = 42
    upstream_init: bool = False
    limit: int | None = None
    distill: DistillConfig | None = None

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(kind):
                raise HnxError(
                    f"Unknown {name} {value!r}", fix=did_you_mean(str(value), get_args(kind)), code=ExitCode.USAGE
                )
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise HnxError(
                    f"{name} is {value}", why=f"it lies between {low:g} and {high:g}", fix="", code=ExitCode.USAGE
                )
        if self.lr == 0:
            raise HnxError("A learning rate of 0", why="nothing would be learnt", code=ExitCode.USAGE)
        if self.freeze_backbone and self.freeze_det and self.freeze_seg:
            raise HnxError("All parts are frozen", why="nothing is left to train", code=ExitCode.USAGE)
        if self.freeze_det and self.freeze_seg:
            raise HnxError(
                "Both tasks are frozen",
                why="a frozen task has no loss, so nothing would be left to train with",
                fix="freeze one of --freeze-det and --freeze-seg",
                code=ExitCode.USAGE,
            )
        if self.resume and self.weights is not None:
            raise HnxError("Weights to start from and a run to resume", fix="give one of them", code=ExitCode.USAGE)
        if self.resume and self.overwrite:
            raise HnxError(
                "A run to go on with and to overwrite",
                why="--overwrite removes the run of the folder, and nothing would be left to go on with",
                fix=f"leave one of `{self.resume_option}` and --overwrite out",
                code=ExitCode.USAGE,
            )
        if self.weights is not None and self.encoder is not None:
            raise HnxError(
                "Weights of a whole network and of an encoder",
                why="the first hold an encoder, too",
                fix="give one of them",
                code=ExitCode.USAGE,
            )
        if self.encoder == PRETRAINED and self.backbone is None:
            raise HnxError(
                "Pretrained weights are downloaded for timm backbones only",
                why="the encoder of a compound coefficient takes a file of efficientnet_pytorch",
                fix="name a backbone (-bb resnet18) or a file (--encoder FILE)",
                code=ExitCode.USAGE,
            )
        check_size(*self.input_size)
        self.model_config  # noqa: B018  # refuses what the network cannot be

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the network's input."""
        return self.size or self.project.image_size

    @property
    def resume_option(self) -> str:
        """What to type to go on with such a run, for messages."""
        return "-w last" if self.distill is None else "--resume"

    @property
    def target(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        width, height = self.input_size
        return height, width

    @property
    def model_config(self) -> ModelConfig:
        """The network of this run."""
        return ModelConfig(
            compound_coef=self.compound_coef,
            num_classes=len(self.project.classes),
            seg_classes=len(self.project.seg_list),
            seg_mode=self.project.seg_mode,
            activation=self.activation,
            backbone=self.backbone,
        )

    def to_json(self) -> dict[str, Any]:
        """All values as JSON, for the report and the checkpoint."""
        return {
            name: _plain(value)
            for name in (entry.name for entry in dataclasses.fields(self))
            for value in (getattr(self, name),)
        }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
