"""Models of the package timm as encoders: four maps at strides 4, 8, 16 and 32.

timm and torchvision are optional, and imported when a network with such a backbone is built. State-dict names are
those of timm's feature extractors, with `encoder.` before them as in upstream's checkpoints. Activations, batch norms
and paddings are timm's: its pretrained weights were trained with them.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from hybridnets.errors import ExitCode, HnxError, first_line

__all__ = [
    "SUGGESTED",
    "TRIAL",
    "TimmEncoder",
    "channels_first",
    "fitting_backbones",
    "fuse",
    "make_timm_encoder",
    "suggestions",
]

STRIDES = (4, 8, 16, 32)  # of P2..P5

# Every one was built, exported at opset 13 and proved with timm 1.0.31.
SUGGESTED = (
    "repvgg_a0",
    "repvgg_b0",
    "mobileone_s1",
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_medium",
    "efficientnet_b0",
    "efficientnet_b3",
    "regnety_008",
    "hgnetv2_b0",
    "fastvit_t8",
    "convnext_tiny",
)

TRIAL = (128, 256)  # rows and columns of the input a new encoder is tried with: not square, and the smallest


class TimmEncoder(NamedTuple):
    """A timm model that gives what the rest of the network takes.

    Attributes:
        module: (N, 3, H, W) -> list of four maps.
        channels: of P2..P5.
        channels_last: its maps are (N, h, w, C) instead of (N, C, h, w).
    """

    module: nn.Module
    channels: tuple[int, int, int, int]
    channels_last: bool


def fitting_backbones(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Those of `SUGGESTED` with exactly these tensors; [] where timm cannot be imported."""
    fitting = []
    for name in SUGGESTED:
        try:
            state = make_timm_encoder(name).module.state_dict()
        except HnxError:  # for a hint only
            continue
        if {key: tuple(value.shape) for key, value in state.items()} == shapes:
            fitting.append(name)
    return fitting


def suggestions() -> str:
    """Backbones that work, for messages."""
    return ", ".join(SUGGESTED)


def make_timm_encoder(name: str, seed: int = 0, *, pretrained: bool = False) -> TimmEncoder:
    """Build the feature extractor of a timm model on the CPU, in training mode.

    Args:
        name: of timm's registry.
        seed: of the weights timm gives a new model; torch's global generator stays as it is.
        pretrained: let timm download its weights.

    Raises:
        HnxError: timm is not there (exit code 4), it has no such model, the model has no four maps at strides 4 to 32
            (exit code 2), or the weights cannot be had.
    """
    timm = _import_timm()
    if not timm.is_model(name):
        raise _unknown(name, timm.list_models())
    with _building(seed):
        # asked twice: which of its maps a model numbers how is only known once it exists
        info = _create(timm, name).feature_info
        reductions = [int(value) for value in info.reduction()]
        numbers = [int(value) for value in info.out_indices]
        missing = [stride for stride in STRIDES if stride not in reductions]
        if missing:
            listing = ", ".join(map(str, reductions)) or "none"
            raise _unsuitable(name, f"its maps have the strides {listing}; 4, 8, 16 and 32 are needed")
        # of several maps with one stride the last sees most
        chosen = [
            max(number for number, found in zip(numbers, reductions, strict=True) if found == stride)
            for stride in STRIDES
        ]
    with _building(seed):
        module = _create(timm, name, pretrained=pretrained, out_indices=chosen)
        channels = tuple(int(value) for value in module.feature_info.channels())
        last = _tried(name, module, channels)
    return TimmEncoder(module, cast(tuple[int, int, int, int], channels), last)


def channels_first(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps (N, h, w, C) -> (N, C, h, w)."""
    return [x.permute(0, 3, 1, 2).contiguous() for x in maps]


def fuse(encoder: nn.Module) -> nn.Module:
    """The same function for deployment: the parallel branches of RepVGG, MobileOne and such become one convolution.

    Returns:
        A copy in eval mode; the encoder itself where timm has nothing to fuse.
    """
    if not any(hasattr(m, word) for m in encoder.modules() for word in ("fuse", "reparameterize", "switch_to_deploy")):
        return encoder
    reparametrise = getattr(importlib.import_module("timm.utils"), "reparameterize_model", None)
    if reparametrise is None:  # not yet in timm 0.9.0
        return encoder
    with torch.no_grad():
        return cast(nn.Module, reparametrise(encoder)).eval()


# --- timm ------------------------------------------------------------------------------------------------


def _import_timm() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("timm")
    except ImportError as error:
        raise HnxError(
            "A timm backbone needs packages that are not installed here",
            why=str(error),
            fix='pip install -e ".[timm]"',
            code=ExitCode.NOTHING_RAN,
        ) from error
    except Exception as error:  # "operator torchvision::nms does not exist", broken shared libraries
        raise HnxError(
            "timm cannot be imported",
            why=f"{first_line(error)}: usually the installed torchvision was built for another torch",
            fix="install both from one place: pip install --force-reinstall torch torchvision",
            code=ExitCode.NOTHING_RAN,
        ) from error


@contextlib.contextmanager
def _building(seed: int) -> Iterator[None]:
    """Build on the CPU, whatever device is in force: timm's buffers are in no checkpoint that could fill them later."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        yield


def _create(timm: Any, name: str, *, pretrained: bool = False, **options: Any) -> Any:
    try:
        return timm.create_model(name, pretrained=pretrained, features_only=True, **options)
    except Exception as error:  # timm passes on whatever its models, and the hub it downloads from, may raise
        if pretrained:
            raise HnxError(
                f"Cannot get timm's weights of {name}",
                why=first_line(error),
                fix="check the connection, or name the model.safetensors of that model: --encoder FILE",
            ) from error
        raise _unsuitable(name, f"timm says: {first_line(error)}") from error


@torch.inference_mode()
def _tried(name: str, module: nn.Module, channels: tuple[int, ...]) -> bool:
    """Whether the maps are channels-last. What timm's tables say is not always what a model does.

    Raises:
        HnxError: they are no four maps at the four strides.
    """
    rows, columns = TRIAL
    training = module.training
    try:
        maps = module.eval()(torch.zeros(1, 3, rows, columns))
    except Exception as error:
        raise _unsuitable(name, f"it cannot take an input of {columns}x{rows}: {first_line(error)}") from error
    finally:
        module.train(training)
    shapes = [tuple(x.shape) for x in maps]
    for last in (False, True):
        expected = [
            (1, rows // stride, columns // stride, width) if last else (1, width, rows // stride, columns // stride)
            for stride, width in zip(STRIDES, channels, strict=False)
        ]
        if shapes == expected and len(shapes) == len(STRIDES):
            return last
    listing = ", ".join("x".join(map(str, shape)) for shape in shapes)
    raise _unsuitable(name, f"an input of {columns}x{rows} gives {listing}, not four maps at strides 4, 8, 16, 32")


def _unknown(name: str, known: Sequence[str]) -> HnxError:
    close = difflib.get_close_matches(name.partition(".")[0], known, n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return HnxError(
        f"timm has no model {name!r}",
        why=f"its registry holds {len(known)} others",
        fix=f"{hint}Tried: {suggestions()}",
        code=ExitCode.USAGE,
    )


def _unsuitable(name: str, why: str) -> HnxError:
    return HnxError(
        f"{name} cannot be the backbone of HybridNets",
        why=why,
        fix=f"take one that can: {suggestions()}",
        code=ExitCode.USAGE,
    )
