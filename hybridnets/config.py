"""What a HybridNets network is, in numbers. Free of torch: an edge device reads it too.

Sources of the tables: the EfficientNet paper (width, depth and resolution per variant) and the scaling
table of EfficientDet that HybridNets inherits (BiFPN width and depth, head depth per coefficient).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hybridnets.errors import ExitCode, HnxError, did_you_mean

__all__ = [
    "ANCHORS_PER_CELL",
    "SCALING",
    "SIZE_MULTIPLE",
    "STRIDES",
    "Activation",
    "EncoderScaling",
    "ModelConfig",
    "Scaling",
    "SegMode",
    "check_backbone",
    "check_normalisation",
    "check_size",
]

SegMode = Literal["binary", "multiclass", "multilabel"]
Activation = Literal["swish", "hardswish", "relu"]

STRIDES = (8, 16, 32, 64, 128)  # of the five BiFPN levels P3..P7
SIZE_MULTIPLE = 128  # the coarsest stride: other sizes break the additions of the BiFPN
ANCHORS_PER_CELL = 9

# a name of timm's registry, with or without a tag of its weights. Nothing else: timm takes `hf-hub:` and `local-dir:`
# for orders to fetch files, and the name may come from a checkpoint that anybody wrote
_BACKBONE = re.compile(r"[A-Za-z0-9_]{1,80}(\.[A-Za-z0-9_]{1,80})?")


@dataclass(frozen=True)
class EncoderScaling:
    """One EfficientNet variant. `resolution` fixes the padding of its strided convolutions."""

    width: float
    depth: float
    resolution: int


ENCODERS: tuple[EncoderScaling, ...] = (
    EncoderScaling(1.0, 1.0, 224),
    EncoderScaling(1.0, 1.1, 240),
    EncoderScaling(1.1, 1.2, 260),
    EncoderScaling(1.2, 1.4, 300),
    EncoderScaling(1.4, 1.8, 380),
    EncoderScaling(1.6, 2.2, 456),
    EncoderScaling(1.8, 2.6, 528),
)


@dataclass(frozen=True)
class Scaling:
    """One compound coefficient.

    `encoder` is the EfficientNet variant (7 shares that of 6); `weighted` says whether the BiFPN learns its
    fusion weights (6 and 7 add unweighted).
    """

    encoder: int
    bifpn_channels: int
    bifpn_cells: int
    head_layers: int
    weighted: bool = True


SCALING: tuple[Scaling, ...] = (
    Scaling(0, 64, 3, 3),
    Scaling(1, 88, 4, 3),
    Scaling(2, 112, 5, 3),
    Scaling(3, 160, 6, 4),
    Scaling(4, 224, 7, 4),
    Scaling(5, 288, 7, 4),
    Scaling(6, 384, 8, 5, weighted=False),
    Scaling(6, 384, 8, 5, weighted=False),
)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the shapes and the function of the network.

    Attributes:
        compound_coef: 0 to 7; 3 is the published network.
        num_classes: detection classes.
        seg_classes: foreground segmentation classes; `binary` has exactly one.
        seg_mode: `binary` (one logit), `multiclass` (argmax over background + classes) or `multilabel`
            (a sigmoid per class, channel 0 = background).
        activation: `swish` as upstream, or a cheaper one for retrained networks: it is the activation of the whole
            network, and `hardswish` and `relu` also make the squeeze-excite gate piecewise linear. A timm backbone
            keeps its own activations.
        backbone: name of a timm model, such as `repvgg_b0`; None is the EfficientNet of the coefficient.

    Raises:
        HnxError: a value is out of range (exit code 2).
    """

    compound_coef: int = 3
    num_classes: int = 1
    seg_classes: int = 2
    seg_mode: SegMode = "multiclass"
    activation: Activation = "swish"
    backbone: str | None = None

    def __post_init__(self) -> None:
        check_coefficient(self.compound_coef)
        for name, allowed in (("seg_mode", get_args(SegMode)), ("activation", get_args(Activation))):
            value = getattr(self, name)
            if value not in allowed:
                raise HnxError(
                    f"Unknown {name} {value!r}",
                    fix=did_you_mean(str(value), allowed),
                    code=ExitCode.USAGE,
                )
        check_backbone(self.backbone)
        for name in ("num_classes", "seg_classes"):
            if getattr(self, name) < 1:
                raise HnxError(
                    f"{name} is {getattr(self, name)}",
                    why="the network needs at least one class",
                    fix="list the classes in the project file",
                    code=ExitCode.USAGE,
                )
        if self.seg_mode == "binary" and self.seg_classes != 1:
            raise HnxError(
                f"Segmentation mode 'binary' with {self.seg_classes} classes",
                why="one logit separates one class",
                fix="use 'multiclass' or 'multilabel', or list one class",
                code=ExitCode.USAGE,
            )

    @property
    def scaling(self) -> Scaling:
        """The row of the scaling table."""
        return SCALING[self.compound_coef]

    @property
    def seg_channels(self) -> int:
        """Channels of the segmentation output: 1 for binary, else background + classes."""
        return 1 if self.seg_mode == "binary" else self.seg_classes + 1


def check_coefficient(compound_coef: int) -> None:
    """Refuse a coefficient that no network has.

    Raises:
        HnxError: not 0 to 7 (exit code 2).
    """
    if not 0 <= compound_coef < len(SCALING):
        raise HnxError(
            f"There is no HybridNets with compound coefficient {compound_coef}",
            why=f"the scaling table goes from 0 to {len(SCALING) - 1}",
            fix="use -c 3, the published network",
            code=ExitCode.USAGE,
        )


def check_backbone(name: str | None) -> None:
    """Refuse what cannot be the name of a timm model; whether there is such a model only timm knows.

    Raises:
        HnxError: says how names look (exit code 2).
    """
    if name is not None and not _BACKBONE.fullmatch(name):
        raise HnxError(
            f"{name!r} is not the name of a backbone",
            why="timm's names consist of letters, digits and underscores, with one dot before a tag",
            fix="for example repvgg_b0 or resnet18.a1_in1k; leave it out for the published EfficientNet",
            code=ExitCode.USAGE,
        )


def check_normalisation(mean: Sequence[Any], std: Sequence[Any]) -> None:
    """Refuse anything but three numbers each with which float32 arithmetic on pixels stays finite.

    Raises:
        HnxError: says which values are wrong (exit code 2).
    """
    numbers = [*mean, *std]
    real = all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers)
    if len(mean) == len(std) == 3 and real and all(-1e6 < v < 1e6 for v in numbers) and min(std) > 1e-6:
        return
    raise HnxError(
        "mean and std cannot normalise a picture",
        why="they need three numbers each, below a million, std above a millionth",
        fix="correct them; the published network has mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225",
        code=ExitCode.USAGE,
    )


def check_size(width: int, height: int) -> None:
    """Refuse a network input whose sides are not positive multiples of 128.

    Raises:
        HnxError: names the two nearest legal values of each side (exit code 2).
    """
    problems = []
    for name, value in (("width", width), ("height", height)):
        if value <= 0 or value % SIZE_MULTIPLE:
            below = max(SIZE_MULTIPLE, value // SIZE_MULTIPLE * SIZE_MULTIPLE)
            problems.append(f"{name} {value}: use {below} or {below + SIZE_MULTIPLE}")
        elif value > 16384:
            problems.append(f"{name} {value}: at most 16384")
    if problems:
        raise HnxError(
            f"HybridNets cannot take an input of {width}x{height}",
            why=f"both sides must be multiples of {SIZE_MULTIPLE}, the stride of its coarsest feature map",
            fix="; ".join(problems),
            code=ExitCode.USAGE,
        )
