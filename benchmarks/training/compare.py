"""Our step and the plain one in turns, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.training.inputs import random_batch
from benchmarks.training.ours import our_step
from benchmarks.training.plain import plain_network, plain_step
from hybridnets.config import ModelConfig
from hybridnets.errors import HnxError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Comparison", "Job", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Seconds of each step, in the order in which they were taken; a round has one step of each.

    Attributes:
        ours, plain: seconds a step.
        images: of a step.
    """

    ours: tuple[float, ...]
    plain: tuple[float, ...]
    images: int

    @property
    def ratio(self) -> float:
        """Median over the rounds of ours / plain: a round's two steps share the machine's mood."""
        return statistics.median(a / b for a, b in zip(self.ours, self.plain, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True)
class Job:
    """What both sides train.

    Attributes:
        coefficient: of the network.
        size: (width, height) of its input.
        batch_size: images a step.
        amp, compiled: of our side; the plain one is float32 and eager.
        device: where both compute.
    """

    coefficient: int
    size: tuple[int, int]
    batch_size: int
    amp: str = "off"
    compiled: bool = False
    device: str = "cpu"


def _serve(job: Job, name: str, pipe: Connection) -> None:
    """A side in a process of its own: a round's number comes in, seconds go out, until there is no more."""
    import torch

    from hybridnets.network import create_model
    from hybridnets.training.memory import keep_freed_memory

    device = torch.device(job.device)
    network = create_model(ModelConfig(compound_coef=job.coefficient), 0).train()
    if name == "ours":
        if device.type == "cpu":
            keep_freed_memory()  # as hnx train does
        network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        step = our_step(network, job.size, device, job.amp, job.compiled)
    else:
        plain = plain_network(network)
        plain = plain.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        step = plain_step(plain, job.size, device)
    while (index := pipe.recv()) is not None:
        pipe.send(step(random_batch(job.size, job.batch_size, index)))


def compare(
    job: Job, rounds: int, on_round: Callable[[int, dict[str, float]], None] = lambda index, seconds: None
) -> Comparison:
    """Steps of both in turns, each in a process of its own; one round beforehand warms both up."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Any] = {}
    children = []
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    try:
        for name in times:
            pipes[name], other = context.Pipe()
            children.append(context.Process(target=_serve, args=(job, name, other), daemon=True))
            children[-1].start()
            other.close()
        for index in range(rounds + 1):
            seconds: dict[str, float] = {}
            # who goes first changes from round to round
            for name in sorted(times, reverse=index % 2 == 1):
                pipes[name].send(index)
                seconds[name] = pipes[name].recv()
            for name, value in seconds.items() if index else ():
                times[name].append(value)
            on_round(index, seconds)
        for pipe in pipes.values():
            pipe.send(None)
    except EOFError as error:
        raise HnxError(
            "A process of the comparison died", why="the system may have ended it", fix="try a smaller batch (-b)"
        ) from error
    finally:
        for child in children:
            child.join(timeout=10)
            child.kill()
    return Comparison(tuple(times["ours"]), tuple(times["plain"]), job.batch_size)
