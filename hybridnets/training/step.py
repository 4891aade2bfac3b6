"""One optimizer step: forward, losses, backward, clipping, update; and what happens when a number is not finite."""

from __future__ import annotations

import contextlib
import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hybridnets.network.model import HybridNets, Outputs
from hybridnets.training.data import Batch
from hybridnets.training.distributed import World
from hybridnets.training.normaliser import Normaliser
from hybridnets.training.optimizer import gradient_norm, make_optimizer, takes_found_inf
from hybridnets.training.precision import Float32Sigmoid, amp_dtype

__all__ = [
    "Criterion",
    "Float32Sigmoid",
    "Normaliser",
    "StepResult",
    "TrainStep",
    "amp_dtype",
    "gradient_norm",
    "make_optimizer",
    "seed_step",
]

# (network outputs in float32, batch on the device) -> named loss terms; `loss` is the one to minimise
Criterion = Callable[[Outputs, Batch], Mapping[str, Tensor]]


def seed_step(seed: int, step: int, micro: int, rank: int) -> None:
    """Set torch's generators from where the run stands, for dropout and drop-connect.

    So no generator's state has to be saved, and a resumed run draws what an uninterrupted one would.
    """
    digest = hashlib.blake2b(f"{seed} {step} {micro} {rank}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclass
class StepResult:
    """What one step did. `terms` are means over the step's batches, on the device until somebody reads them.

    Attributes:
        terms: named loss terms of this process, detached.
        norm: norm of the whole gradient before clipping; None where the step was left out.
        skipped: a loss or gradient was not finite, in whichever process, so nothing was learnt.
        suspects: names of the samples of this process's batches that were not finite.
        late: None, or the names of the step before, whose gradient turns out not to have been finite: on CUDA nobody
            waits for that answer, and the step changed running statistics but no weight.
    """

    terms: dict[str, Tensor]
    norm: Tensor | None = None
    skipped: bool = False
    suspects: tuple[str, ...] = ()
    late: tuple[str, ...] | None = None

    def read(self) -> dict[str, float]:
        """The terms as numbers; waits for the device."""
        names = list(self.terms)
        values = torch.stack([self.terms[name].detach().float() for name in names]).tolist()
        return dict(zip(names, values, strict=True))


class _Flag:
    """Whether a loss is finite here, and anywhere, asked while the device goes on working.

    Args:
        late: 1.0 on the device where the gradient of the step before was not finite; None for no such question.

    The answer is copied to the host behind the forward pass and read after the backward pass has been launched, so
    the device's queue never runs empty because of the question.
    """

    def __init__(self, loss: Tensor, world: World, stop: bool, late: Tensor | None = None) -> None:
        self._event: torch.cuda.Event | None = None
        own = (~torch.isfinite(loss.detach())).float()
        past = torch.zeros_like(own) if late is None else late.to(own.dtype)
        flags = torch.stack([own, own, torch.full_like(own, float(stop)), past])
        if world.size > 1:
            # all processes leave a batch out, or stop, together: a sum is above 0 if any says so
            torch.distributed.all_reduce(flags[1:])
        self._flags = flags
        if loss.device.type == "cuda":
            self._flags = torch.empty(4, dtype=torch.float32, pin_memory=True)
            self._flags.copy_(flags, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def read(self) -> tuple[bool, bool, bool, bool]:
        """(not finite here, not finite in some process, some process was asked to stop, step before not finite)."""
        if self._event is not None:
            self._event.synchronize()
        own, anywhere, stop, late = self._flags.tolist()
        return own > 0.0, anywhere > 0.0, stop > 0.0, late > 0.0


class TrainStep:
    """Runs steps on one network.

    Args:
        network: in training mode, on the device, frozen where asked for.
        criterion: the losses.
        optimizer: over the network's parameters.
        normaliser: makes the input.
        world: this process among all.
        dtype: of the autocast forward pass, None for float32.
        clip_norm: largest gradient norm, 0 for no limit.
        seed: of dropout and drop-connect.
        compiled: compile the network with torch.compile.
    """

    def __init__(
        self,
        network: HybridNets,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        normaliser: Normaliser,
        world: World,
        *,
        dtype: torch.dtype | None = None,
        clip_norm: float = 10.0,
        seed: int = 0,
        compiled: bool = False,
    ) -> None:
        self.network, self.criterion, self.optimizer, self.normaliser = network, criterion, optimizer, normaliser
        self.world, self.dtype, self.clip_norm, self.seed = world, dtype, clip_norm, seed
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=dtype == torch.float16)
        # the device need not be asked whether a gradient is finite where the optimizer's kernels can see for themselves
        self.defers = world.device.type == "cuda" and takes_found_inf(optimizer)
        self._pending: tuple[Tensor, tuple[str, ...]] | None = None
        self._parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        self._buffers = [b for b in network.buffers() if b.is_floating_point()]
        self._backup = [b.clone() for b in self._buffers]
        forward: nn.Module = network
        if compiled:
            network.compile()
        if world.size > 1:
            with warnings.catch_warnings():
                # the option has another name from torch 2.13 on, and works under both
                warnings.simplefilter("ignore", FutureWarning)
                # buffers stay where they are: DDP would copy rank 0's statistics over the others' in every step
                forward = DistributedDataParallel(
                    network,
                    device_ids=[world.device] if world.device.type == "cuda" else None,
                    broadcast_buffers=False,
                    gradient_as_bucket_view=True,
                )
        self._forward = forward

    def run(self, batches: Sequence[Batch], step: int, *, stop: bool = False) -> tuple[StepResult, bool]:
        """One optimizer step over the mean gradient of the batches.

        A step whose loss or gradient is not finite anywhere, in any process, changes nothing: neither weights nor
        running statistics. (On CUDA an infinite gradient of a finite loss leaves the weights alone and is told by the
        next step, see `StepResult.late`.)

        Args:
            step: number of the step, which the random numbers follow from.
            stop: this process was asked to stop.

        Returns:
            The result, and whether any process was asked to stop.
        """
        self._keep_buffers()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        suspects: list[str] = []
        skipped = asked = False
        past, self._pending = self._pending, None
        late: tuple[str, ...] | None = None
        for micro, batch in enumerate(batches):
            last = micro + 1 == len(batches)
            seed_step(self.seed, step, micro, self.world.rank)
            with self._without_exchange(not last):
                terms = self._losses(batch.to(self.world.device))
                loss = terms["loss"]
                flag = _Flag(loss, self.world, stop, None if past is None else past[0])
                if loss.requires_grad:
                    self.scaler.scale(loss / len(batches)).backward()  # type: ignore[no-untyped-call]
                own, anywhere, stopping, infinite = flag.read()
            if past is not None and infinite:
                late = past[1]
            past = None
            skipped, asked = skipped or anywhere, asked or stopping
            if own:
                suspects += batch.names
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / len(batches)
        result = StepResult(sums, skipped=skipped, suspects=tuple(suspects), late=late)
        if skipped:
            self._undo()
            return result, asked
        return self._update(result, batches), asked

    def _losses(self, batch: Batch) -> Mapping[str, Tensor]:
        device = self.world.device.type
        images = self.normaliser(batch.images)
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype is not None):
            outputs: Outputs = self._forward(images)
        # probabilities near 1 and sums over all pixels need more than the 8 or 11 bits of half precision
        return self.criterion(Outputs(*(x.float() for x in outputs)), batch)

    def _update(self, result: StepResult, batches: Sequence[Batch]) -> StepResult:
        self.scaler.unscale_(self.optimizer)
        grads = [p.grad for p in self._parameters if p.grad is not None]
        norm = gradient_norm(grads)
        result.norm = norm
        if self.clip_norm and grads:
            # the factor of torch.nn.utils.clip_grad_norm_, without asking the device for the norm
            factor = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(grads, factor)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # leaves out infinite gradients, which lower its scale: no fault
            self.scaler.update()
            return result
        if not self.defers:
            if not math.isfinite(float(norm)):
                self._undo()
                result.skipped, result.norm = True, None
                result.suspects = tuple(name for batch in batches for name in batch.names)
                return result
            self.optimizer.step()
            return result
        found: Any = self.optimizer
        found.found_inf = (~torch.isfinite(norm)).float()
        self._pending = found.found_inf, tuple(name for batch in batches for name in batch.names)
        try:
            self.optimizer.step()
        finally:
            del found.found_inf
        return result

    def _keep_buffers(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._backup, self._buffers)

    @torch.no_grad()
    def _undo(self) -> None:
        torch._foreach_copy_(self._buffers, self._backup)
        self.optimizer.zero_grad(set_to_none=True)

    def _without_exchange(self, wanted: bool) -> AbstractContextManager[Any]:
        """DDP exchanges gradients once a step, in its last batch."""
        if wanted and isinstance(self._forward, DistributedDataParallel):
            return self._forward.no_sync()
        return contextlib.nullcontext()
