"""Parts of a network that training leaves alone."""

from __future__ import annotations

from torch import nn

from hybridnets.network import HybridNets

__all__ = ["PARTS", "freeze", "keep_statistics"]

# part -> modules of the network
PARTS: dict[str, tuple[str, ...]] = {
    "backbone": ("encoder", "bifpn"),
    "det": ("regressor", "classifier"),
    "seg": ("bifpndecoder", "segmentation_head"),
}


def freeze(network: HybridNets, *, backbone: bool = False, det: bool = False, seg: bool = False) -> None:
    """Freeze the named parts and no others.

    A frozen part computes what it computes in eval mode, whatever `network.train()` says afterwards: no gradients,
    batch norms that use their running statistics and leave them, no dropout, no drop-connect. (Upstream only switches
    the gradients off, so its frozen parts go on drifting.)
    """
    chosen = {"backbone": backbone, "det": det, "seg": seg}
    network.frozen = frozenset(name for part, names in PARTS.items() if chosen[part] for name in names)
    for names in PARTS.values():
        for name in names:
            network.get_submodule(name).requires_grad_(name not in network.frozen)
    network.train(network.training)


def keep_statistics(network: HybridNets) -> None:
    """Batch norms use the statistics they have, and leave them; nothing is dropped. Weights go on learning.

    What is trained is then the function that is deployed: a student is compared with its teacher value by value, and
    the noise of a small batch's statistics would be most of the difference.
    """
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    network.frozen = frozenset({*network.frozen, *norms})
    network.set_stochastic(False)
    network.train(network.training)
