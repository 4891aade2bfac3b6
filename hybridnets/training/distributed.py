"""Many processes, one run: who is who, sums that can be differentiated, batch norms over all processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hybridnets.errors import ExitCode, HnxError, first_line

__all__ = ["World", "average_buffers", "joined", "own_device", "sum_over_processes", "synchronise_batch_norms"]

T = TypeVar("T")
_CPU = torch.device("cpu")
_TIMEOUT = timedelta(minutes=30)  # a validation of 10 000 images on one slow process must fit


@dataclass(frozen=True)
class World:
    """This process among all of a run.

    Attributes:
        rank: of this process, from 0; rank 0 writes files and talks.
        size: processes in all.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks; picklable ones."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        if self.size == 1:
            return value
        holder: list[Any] = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def largest(self, values: Sequence[float]) -> list[float]:
        """Elementwise maximum over all processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return [float(v) for v in tensor.tolist()]


@contextmanager
def joined(device: str | None = None) -> Iterator[World]:
    """The world that `torchrun` set up in the environment, or this process alone.

    Within another one it is the same world, which the outer one ends: a group cannot be made twice in a process.

    Args:
        device: such as cuda, cuda:1 or cpu; None takes CUDA where there is one. Under torchrun each process takes
            the CUDA device of its local rank.

    Raises:
        HnxError: there is no such device, or the other processes cannot be reached.
    """
    size, rank = _count("WORLD_SIZE", 1), _count("RANK", 0)
    place = _device(device, _count("LOCAL_RANK", 0), several=size > 1)
    if size == 1:
        yield World(device=place)
        return
    if dist.is_initialized():
        yield World(rank, size, place)
        return
    try:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise HnxError(
            f"Process {rank} of {size} cannot reach the others",
            why=first_line(error),
            fix="start all of them with torchrun, and open the port of --rdzv-endpoint between the machines",
            code=ExitCode.NOTHING_RAN,
        ) from error
    try:
        yield World(rank, size, place)
    finally:
        dist.destroy_process_group()


def own_device(name: str | None) -> torch.device:
    """The device of this process alone; under torchrun the CUDA device of its local rank.

    Raises:
        HnxError: there is no such device.
    """
    return _device(name, _count("LOCAL_RANK", 0), several=_count("WORLD_SIZE", 1) > 1)


def _count(name: str, default: int) -> int:
    """A number that torchrun has set."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise HnxError(
            f"{name} is {text!r}",
            why="torchrun puts a number there",
            fix=f"unset {name}, or start with torchrun",
            code=ExitCode.USAGE,
        )
    return int(text)


def _device(name: str | None, local_rank: int, *, several: bool) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
        if place.type == "cuda" and (several or place.index is None):
            place = torch.device("cuda", local_rank if several else 0)
        # first of all: it fails with a reason where torch was built without the device, and set_device with none
        torch.zeros(1, device=place).item()  # which meta has none of
        if place.type == "cuda":
            torch.cuda.set_device(place)
    except (RuntimeError, AssertionError, ValueError, ImportError) as error:
        raise HnxError(
            f"Cannot compute on {name}",
            why=first_line(error),
            fix="leave --device out, or name cpu; under torchrun start as many processes as there are GPUs",
            code=ExitCode.NOTHING_RAN,
        ) from error
    return place


class _Sum(torch.autograd.Function):
    """Sum over all processes whose gradient is the sum of all gradients.

    With that rule, and DDP's average of the parameters' gradients, the gradient of f(sum over processes) is the one
    that a single process with all images would get: every process has size * f' * its own part, and the average
    divides by size.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad


def sum_over_processes(x: Tensor) -> Tensor:
    """Sum of a tensor over all processes of the run, differentiable; the tensor itself where there is one."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    result: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return result


class _SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, on any device; torch's own needs a GPU.

    Two sums instead of one keep the variance exact: E[(x - mean)^2] where the mean is known.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = (0, 2, 3)
        count = sum_over_processes(x.new_full((1,), x.numel() / x.shape[1]))
        mean = sum_over_processes(x.sum(axes)) / count
        centred = x - mean[:, None, None]
        variance = sum_over_processes(centred.square().sum(axes)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                momentum = 0.0 if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.detach(), momentum)
                self.running_var.lerp_(variance.detach() * (count / (count - 1).clamp_min(1)), momentum)
                self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def synchronise_batch_norms(model: nn.Module, device: torch.device) -> None:
    """Make every batch norm of a network normalise over the images of all processes; names and values stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = _SyncedBatchNorm


@torch.no_grad()
def average_buffers(world: World, models: Iterable[nn.Module]) -> None:
    """Running statistics of batch norms become the mean over all processes; without --sync-bn they differ."""
    if world.size == 1:
        return
    buffers = [b for model in models for b in model.buffers() if b.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([b.flatten() for b in buffers])
    dist.all_reduce(flat)
    flat /= world.size
    offset = 0
    for buffer in buffers:
        buffer.copy_(flat[offset : offset + buffer.numel()].view_as(buffer))
        offset += buffer.numel()
