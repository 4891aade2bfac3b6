"""Which network a state dict belongs to, and what does not fit when it is another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, get_args

from hybridnets.config import ANCHORS_PER_CELL, SCALING, Activation, ModelConfig, SegMode
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_fit", "infer_config"]

_SHOWN = 5  # tensors named in an error

# tensors that give the configuration away
_PYRAMID = "bifpn.0.p5_down_channel.0.conv.weight"
_CLASSES = "classifier.header.pointwise_conv.conv.bias"
_SEGMENTATION = "segmentation_head.0.weight"
_ENCODER = "encoder."
_EFFICIENTNET = "encoder._"  # all names of efficientnet_pytorch begin so, none of timm's do


def infer_config(
    state: Mapping[str, Tensor],
    *,
    activation: Activation = "swish",
    seg_mode: SegMode | None = None,
    backbone: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """The configuration of the network a state dict belongs to, from the shapes of its tensors.

    Args:
        state: state dict without prefixes.
        activation: not visible in the tensors.
        seg_mode: `multiclass` and `multilabel` have the same tensors; None means binary for one channel,
            multiclass for more.
        backbone: name of the timm model that is the encoder. Many of them have the same tensors, so it stands in the
            metadata or must be given; EfficientNet shows in the tensors.
        metadata: of the checkpoint. Where it names a value, that value is taken and checked against the
            tensors. Coefficients 6 and 7 have the same tensors; without metadata it is 6.

    Raises:
        HnxError: no HybridNets state dict, metadata, mode or backbone contradict the tensors, or the name of a timm
            backbone is nowhere.
    """
    metadata = metadata or {}
    missing = [key for key in (_PYRAMID, _CLASSES, _SEGMENTATION) if key not in state]
    if missing:
        raise HnxError(
            "This is not a HybridNets state dict",
            why=f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; it has "
            + (f"{len(state)} tensors, the first is {next(iter(state))}" if state else "no tensors"),
            fix="check that this is a HybridNets checkpoint and not one of another network",
        )
    for key, dimensions in ((_PYRAMID, 4), (_CLASSES, 1), (_SEGMENTATION, 4)):
        if state[key].ndim != dimensions:
            raise _contradiction(f"{key} has {state[key].ndim} dimensions instead of {dimensions}")
    coefficient = _coefficient(state[_PYRAMID].shape[0], metadata)
    num_classes, rest = divmod(state[_CLASSES].shape[0], ANCHORS_PER_CELL)
    if rest or num_classes == 0:
        raise _contradiction(
            f"{_CLASSES} has {state[_CLASSES].shape[0]} values, no multiple of the {ANCHORS_PER_CELL} anchors"
        )
    channels = state[_SEGMENTATION].shape[0]
    if channels == 0:
        raise _contradiction(f"{_SEGMENTATION} has no channels")
    mode = _one_of("seg_mode", metadata, get_args(SegMode), seg_mode)
    if mode is None:
        mode = "binary" if channels == 1 else "multiclass"
    if (mode == "binary") != (channels == 1):
        raise _contradiction(
            f"segmentation mode {mode!r} does not go with the {channels} channel(s) of {_SEGMENTATION}"
        )
    seg_classes = 1 if mode == "binary" else channels - 1
    for key, count in (("classes", num_classes), ("seg_classes", seg_classes)):
        names = metadata.get(key)
        if isinstance(names, list) and len(names) != count:
            raise _contradiction(f"the metadata lists {len(names)} {key}, the tensors are for {count}")
    return ModelConfig(
        compound_coef=coefficient,
        num_classes=num_classes,
        seg_classes=seg_classes,
        seg_mode=cast(SegMode, mode),
        activation=cast(Activation, _one_of("activation", metadata, get_args(Activation), activation)),
        backbone=_backbone(state, metadata, backbone),
    )


def check_fit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Hold the tensors of a checkpoint against those of a network.

    Args:
        expected: state dict of the network of `config`.
        state: of the checkpoint.
        config: for the message.

    Raises:
        HnxError: tensors are missing, unknown or of other shapes; names the first and the likely cause.
    """
    problems: list[str] = []
    differing: set[str] = set()
    for name, tensor in expected.items():
        found = state.get(name)
        if found is None:
            problems.append(f"{name}: expected {tuple(tensor.shape)}, missing")
        elif found.shape != tensor.shape:
            problems.append(f"{name}: expected {tuple(tensor.shape)}, found {tuple(found.shape)}")
            differing.add(name.rpartition(".")[0])
        elif found.dtype != tensor.dtype:
            problems.append(f"{name}: expected {tensor.dtype}, found {found.dtype}")
    problems += [
        f"{name}: not expected, found {tuple(tensor.shape)}" for name, tensor in state.items() if name not in expected
    ]
    if not problems:
        return
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise HnxError(
        f"The checkpoint does not fit a network of coefficient {config.compound_coef}"
        + (f" and backbone {config.backbone}" if config.backbone else "")
        + f" with {config.num_classes} detection class(es) and {config.seg_channels} segmentation channel(s)",
        why="; ".join(problems[:_SHOWN]) + more,
        fix=_likely_cause(differing, expected, state, config),
    )


def _contradiction(why: str) -> HnxError:
    return HnxError(
        "The checkpoint contradicts itself or the options",
        why=why,
        fix="check the segmentation mode and the class lists of the project file, or take the original file",
    )


def _coefficient(channels: int, metadata: Mapping[str, Any]) -> int:
    candidates = [c for c, scaling in enumerate(SCALING) if scaling.bifpn_channels == channels]
    if not candidates:
        known = ", ".join(str(scaling.bifpn_channels) for scaling in SCALING[:-1])
        raise _contradiction(f"its BiFPN has {channels} channels; known networks have {known}")
    named = metadata.get("compound_coef")
    if named is None:
        return candidates[0]
    if isinstance(named, bool) or named not in candidates:
        raise _contradiction(
            f"the metadata says coefficient {named!r}, but a BiFPN of {channels} channels is coefficient "
            + " or ".join(map(str, candidates))
        )
    return int(named)


def _one_of(key: str, metadata: Mapping[str, Any], allowed: tuple[str, ...], default: str | None) -> str | None:
    value = metadata.get(key)
    if value is None:
        return default
    if not isinstance(value, str) or value not in allowed:
        raise _contradiction(f"the metadata says {key} {value!r}; known: {', '.join(allowed)}")
    return value


def _backbone(state: Mapping[str, Tensor], metadata: Mapping[str, Any], given: str | None) -> str | None:
    named = metadata.get("backbone")
    if named is not None and not isinstance(named, str):
        raise _contradiction(f"the metadata names {named!r} as its backbone, which is no text")
    if named is not None and given not in (None, named):
        raise _contradiction(f"its backbone is {named}, and {given} was asked for")
    name = given or named
    encoder = [key for key in state if key.startswith(_ENCODER)]
    if not encoder or any(key.startswith(_EFFICIENTNET) for key in encoder):
        if name is not None:
            raise HnxError(
                f"The checkpoint has no backbone {name}",
                why="its encoder is an EfficientNet" if encoder else "it has no tensors of an encoder",
                fix="leave -bb out" if encoder else "take the original checkpoint",
            )
        return None
    if name is None:
        from hybridnets.network.timm_encoder import fitting_backbones, suggestions

        fitting = fitting_backbones({key[len(_ENCODER) :]: tuple(state[key].shape) for key in encoder})
        raise HnxError(
            "The checkpoint does not say which backbone it has",
            why=f"its encoder is a timm model (its first tensor is {encoder[0]}), and several models with the same "
            "tensors compute different things"
            + (f"; of the usual ones its tensors fit {', '.join(fitting)}" if fitting else ""),
            fix=f"name the one it was trained with: -bb {fitting[0] if fitting else 'repvgg_b0'}"
            + ("" if fitting else f", or another of timm's, such as {suggestions()}"),
            code=ExitCode.USAGE,
        )
    return name


def _likely_cause(
    differing: set[str], expected: Mapping[str, Tensor], state: Mapping[str, Tensor], config: ModelConfig
) -> str:
    names, found = ({key for key in keys if key.startswith(_ENCODER)} for keys in (expected, state))
    other = names != found or any(name.startswith(_ENCODER) for name in differing)
    try:
        actual = infer_config(state, backbone=config.backbone)
    except HnxError:
        return "the file is incomplete or of another network: take the original checkpoint"
    classes, segmentation = _CLASSES.rpartition(".")[0], _SEGMENTATION.rpartition(".")[0]
    hints = []
    if config.backbone is not None and other and actual.compound_coef == config.compound_coef:
        hints.append("another timm backbone: give the name it was trained with, -bb NAME")
    elif differing - {classes, segmentation}:
        hints.append(f"another compound coefficient: try -c {actual.compound_coef}")
    if classes in differing and actual.num_classes != config.num_classes:
        hints.append(f"the project file must list {actual.num_classes} detection class(es)")
    if segmentation in differing and actual.seg_channels != config.seg_channels:
        channels = actual.seg_channels
        hints.append(
            "the segmentation mode must be binary"
            if channels == 1
            else f"the project file must list {channels - 1} segmentation classes, mode multiclass or multilabel"
        )
    return "; ".join(hints) or "the file is incomplete or of another network: take the original checkpoint"
