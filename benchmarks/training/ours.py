"""A training step as `hnx train` does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.training.inputs import MEAN, STD, wait

if TYPE_CHECKING:
    from hybridnets.network.model import HybridNets
    from hybridnets.training.data import Batch

__all__ = ["our_step"]


def our_step(
    network: HybridNets, size: tuple[int, int], device: Any, amp: str, compiled: bool
) -> Callable[[Batch], float]:
    """The step of `hnx train`, with averaged weights, clipping and the transfer of the batch."""
    from hybridnets.training.distributed import World
    from hybridnets.training.ema import Ema
    from hybridnets.training.losses import HybridLoss
    from hybridnets.training.step import Normaliser, TrainStep, amp_dtype, make_optimizer
    from hybridnets.training.task import make_criterion

    average = Ema(network)
    runner = TrainStep(
        network,
        make_criterion(HybridLoss(size, "multiclass").to(device)),
        make_optimizer("adamw", list(network.parameters()), lr=1e-4, weight_decay=0.01, device=device),
        Normaliser(MEAN, STD).to(device),
        World(device=device),
        dtype=amp_dtype(amp, device),  # type: ignore[arg-type]  # argparse has checked it
        compiled=compiled,
    )
    done = 0

    def step(batch: Batch) -> float:
        nonlocal done
        wait(device)
        start = time.perf_counter()
        runner.run([batch], done)
        average.update(network)
        wait(device)
        done += 1
        return time.perf_counter() - start

    return step
