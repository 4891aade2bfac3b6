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

from hybridnets.errors import HnxError
from hybridnets.network.model import HybridNets, Outputs
from hybridnets.training.config import Amp, Optim
from hybridnets.training.data import Batch
from hybridnets.training.distributed import World

__all__ = [
    "Criterion",
    "Float32Sigmoid",
    "Normaliser",
    "StepResult",
    "TrainStep",
    "amp_dtype",
    "make_optimizer",
    "seed_step",
]

# (network outputs in float32, batch on the device) -> named loss terms; `loss` is the one to minimise
Criterion = Callable[[Outputs, Batch], Mapping[str, Tensor]]


class Normaliser(nn.Module):
    """uint8 (N, H, W, 3) RGB to float32 (N, 3, H, W): (v / 255 - mean) / std, on whatever device the batch is.

    A batch travels as bytes, a quarter of its floats. Seen as NCHW its memory is channels-last already.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, channels_last: bool = True) -> None:
        super().__init__()
        self.channels_last = channels_last
        deviation = 255.0 * torch.tensor(std, dtype=torch.float64)
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", (1.0 / deviation).float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The network's input."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        x = images.permute(0, 3, 1, 2).to(self.scale.dtype, memory_format=layout)
        return torch.addcmul(self.shift, x, self.scale)


class Float32Sigmoid(nn.Module):
    """The sigmoid of the scores in float32: in bf16 everything above 0.996 would round to 1 and lose its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape and type -> float32 in [0, 1]."""
        return x.float().sigmoid()


def amp_dtype(amp: Amp, device: torch.device) -> torch.dtype | None:
    """The type of the autocast forward pass; None for float32.

    Raises:
        HnxError: fp16 without CUDA.
    """
    if amp == "off":
        return None
    if amp == "bf16":
        return torch.bfloat16
    if amp == "fp16":
        if device.type != "cuda":
            raise HnxError(
                "Mixed precision fp16 needs a CUDA device", why=f"this run computes on {device}", fix="use --amp bf16"
            )
        return torch.float16
    if device.type == "cuda":
        # tensor cores compute bf16 from compute capability 8 on; before, it is emulated and slower than float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    return torch.bfloat16 if _cpu_has_bf16() else None


def _cpu_has_bf16() -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def make_optimizer(
    kind: Optim, parameters: Sequence[nn.Parameter], *, lr: float, weight_decay: float, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum 0.9, as upstream has them; all parameters in one group, in its order.

    Fused: one kernel for all tensors. On two AVX-512 cores a step of c3 takes 14 ms instead of the 92 of the plain
    loop over 890 tensors.
    """

    def build(**options: Any) -> torch.optim.Optimizer:
        if kind == "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, **options)
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay, **options)

    with contextlib.suppress(RuntimeError, TypeError, ValueError):  # torch before 2.4 fuses on CUDA only
        return build(fused=True)
    return build(foreach=device.type == "cuda")


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
    """

    terms: dict[str, Tensor]
    norm: Tensor | None = None
    skipped: bool = False
    suspects: tuple[str, ...] = ()

    def read(self) -> dict[str, float]:
        """The terms as numbers; waits for the device."""
        names = list(self.terms)
        values = torch.stack([self.terms[name].detach().float() for name in names]).tolist()
        return dict(zip(names, values, strict=True))


class _Flag:
    """Whether a loss is finite here, and anywhere, asked while the device goes on working.

    The answer is copied to the host behind the forward pass and read after the backward pass has been launched, so
    the device's queue never runs empty because of the question.
    """

    def __init__(self, loss: Tensor, world: World, stop: bool) -> None:
        self._event: torch.cuda.Event | None = None
        own = (~torch.isfinite(loss.detach())).float()
        flags = torch.stack([own, own, torch.full_like(own, float(stop))])
        if world.size > 1:
            # all processes leave a batch out, or stop, together: a sum is above 0 if any says so
            torch.distributed.all_reduce(flags[1:])
        self._flags = flags
        if loss.device.type == "cuda":
            self._flags = torch.empty(3, dtype=torch.float32, pin_memory=True)
            self._flags.copy_(flags, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def read(self) -> tuple[bool, bool, bool]:
        """(not finite here, not finite in some process, some process was asked to stop)."""
        if self._event is not None:
            self._event.synchronize()
        own, anywhere, stop = self._flags.tolist()
        return own > 0.0, anywhere > 0.0, stop > 0.0


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
        running statistics.

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
        for micro, batch in enumerate(batches):
            last = micro + 1 == len(batches)
            seed_step(self.seed, step, micro, self.world.rank)
            with self._without_exchange(not last):
                terms = self._losses(batch.to(self.world.device))
                loss = terms["loss"]
                flag = _Flag(loss, self.world, stop)
                if loss.requires_grad:
                    self.scaler.scale(loss / len(batches)).backward()  # type: ignore[no-untyped-call]
                own, anywhere, stopping = flag.read()
            skipped, asked = skipped or anywhere, asked or stopping
            if own:
                suspects += batch.names
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / len(batches)
        result = StepResult(sums, skipped=skipped, suspects=tuple(suspects))
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
        if self.world.device.type != "cuda" or not _takes_found_inf(self.optimizer):
            if not math.isfinite(float(norm)):
                self._undo()
                result.skipped, result.norm = True, None
                result.suspects = tuple(name for batch in batches for name in batch.names)
                return result
            self.optimizer.step()
            return result
        # the fused kernels look at this flag on the device and leave all weights as they are
        found: Any = self.optimizer
        found.found_inf = (~torch.isfinite(norm)).float()
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


def gradient_norm(grads: Sequence[Tensor]) -> Tensor:
    """L2 norm over all gradients, a tensor on their device."""
    if not grads:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(grads))))


def _takes_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
