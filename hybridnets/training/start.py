"""The network a run starts from: new weights, or those of a checkpoint as far as they fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from hybridnets.checkpoint import Checkpoint, infer_config, load_checkpoint
from hybridnets.errors import HnxError
from hybridnets.network import create_model
from hybridnets.network.model import HybridNets
from hybridnets.training.config import PRETRAINED, TrainConfig
from hybridnets.training.initialise import initialise, read_encoder, read_timm

__all__ = ["load_weights", "starting_network"]

# the tensors whose shapes follow from the class lists: they may start anew, everything else must fit
_OUTPUTS = ("classifier.header.pointwise_conv.conv.", "segmentation_head.0.")


def starting_network(config: TrainConfig, note: Callable[[str], None]) -> HybridNets:
    """A network in training mode on the CPU.

    Raises:
        HnxError: the checkpoint cannot be read or is of another network.
    """
    network = create_model(config.model_config, config.seed)
    if config.resume:
        return network  # all of it comes from last.pth
    if config.weights is not None:
        load_weights(network, config.weights, note)
        return network
    encoder = config.encoder
    if encoder is None or encoder == PRETRAINED:
        initialise(network, config.seed, encoder=encoder, upstream=config.upstream_init)
    else:
        state = read_encoder(encoder) if config.backbone is None else read_timm(encoder)
        initialise(network, config.seed, encoder=state, upstream=config.upstream_init)
    return network


def load_weights(network: HybridNets, path: Path, note: Callable[[str], None]) -> None:
    """Take over a checkpoint's tensors; the last layers of a head keep new weights where the classes are others.

    Raises:
        HnxError: the file cannot be read, or other tensors do not fit.
    """
    checkpoint = load_checkpoint(path)
    found = checkpoint.state
    state = network.state_dict()
    wrong = [name for name, value in state.items() if name not in found or found[name].shape != value.shape]
    anew = sorted({name.partition(".")[0] for name in wrong if name.startswith(_OUTPUTS) and name in found})
    bad = [name for name in wrong if not (name.startswith(_OUTPUTS) and name in found)]
    if bad:
        raise HnxError(
            f"The checkpoint {path} does not fit a network of coefficient {network.config.compound_coef}",
            why=f"{len(bad)} of {len(state)} tensors are missing or of another shape, the first is {bad[0]}",
            fix=_fitting(checkpoint, network),
        )
    with torch.no_grad():
        for name, value in state.items():
            if name not in wrong:
                value.copy_(found[name])
    if anew:
        note(
            f"{path.name} was trained for other classes: the last layer of {' and '.join(anew)} starts anew, "
            "everything else is taken over"
        )


def _fitting(checkpoint: Checkpoint, network: HybridNets) -> str:
    """What to type for a checkpoint of another network."""
    try:
        found = infer_config(checkpoint.state, metadata=checkpoint.metadata)
    except HnxError:
        return "give the checkpoint of such a network, with -bb where it has another encoder than EfficientNet"
    if found.compound_coef != network.config.compound_coef:
        return f"give the coefficient it was trained with: -c {found.compound_coef}"
    if found.backbone != network.config.backbone:
        return f"give the encoder it was trained with: -bb {found.backbone or 'None'}"
    return "the file is incomplete: take the original checkpoint"
