"""What one process of a run does for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hybridnets.errors import HnxError
from hybridnets.training.distributed import World

__all__ = ["on_main"]

T = TypeVar("T")


def on_main(world: World, action: Callable[[], T]) -> T | None:
    """Do something in rank 0 only; its error reaches all processes, so that none waits for ever.

    Returns:
        What the action returned, in rank 0; None elsewhere.

    Raises:
        HnxError: the action's, in every process.
    """
    value: T | None = None
    error: HnxError | None = None
    if world.is_main:
        try:
            value = action()
        except HnxError as caught:
            error = caught
    error = world.broadcast(error)
    if error is not None:
        raise error
    return value
