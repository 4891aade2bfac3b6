"""How fast a training step is, against a straightforward eager loop with upstream's settings.

    python -m benchmarks.training -c 3 --size 640x384 -b 4 --rounds 8

Both train the same network from the same weights on the same batches, in turns, so that a busy machine hits both
alike. The plain loop does what upstream's train.py does, in its way: float32, channels-last, an activation with a
memory-saving gradient of its own, a padding before every convolution, a loop over the images in the detection loss,
AdamW as torch has it by default, the loss read after every step. Ours has gradient clipping and the averaged weights on
top.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridnets.config import ModelConfig
from hybridnets.errors import HnxError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from torch import Tensor, nn

    from hybridnets.network.model import HybridNets
    from hybridnets.training.data import Batch

__all__ = ["Comparison", "Job", "compare", "loader_speed", "main", "plain_loss", "plain_network"]


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


def plain_network(network: HybridNets) -> HybridNets:
    """A copy that computes the same function in upstream's way: explicit paddings, a swish with its own gradient."""
    import copy

    import torch
    from torch import nn
    from torch.nn import functional as F

    class SwishFunction(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            gate = torch.sigmoid(x)
            return grads[0] * (gate * (1.0 + x * (1.0 - gate)))

    class Swish(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = SwishFunction.apply(x)  # type: ignore[no-untyped-call]
            return result

    class PaddedConv(nn.Module):
        def __init__(self, conv: nn.Conv2d) -> None:
            super().__init__()
            self.conv = conv
            before = conv.padding[0]
            self.pads: tuple[int, ...] = getattr(conv, "pads", None) or (int(before),) * 4

        def forward(self, x: Tensor) -> Tensor:
            conv = self.conv
            return F.conv2d(F.pad(x, self.pads), conv.weight, conv.bias, conv.stride, 0, 1, conv.groups)

    plain = copy.deepcopy(network)
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.SiLU):
                setattr(parent, name, Swish())
            elif isinstance(child, nn.Conv2d) and not isinstance(parent, PaddedConv):
                setattr(parent, name, PaddedConv(child))
    return plain


def plain_loss(
    regression: Tensor, scores: Tensor, logits: Tensor, anchors: Tensor, boxes: Tensor, target: Tensor
) -> Tensor:
    """The losses of a multiclass network, image by image and step by step as their formulas stand.

    Args:
        anchors: (A, 4) y1, x1, y2, x2.
        boxes: (N, M, 5), padded with rows of -1.
        target: int64 (N, H, W).
    """
    import torch
    from torch.nn import functional as F

    height, width = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    cy, cx = anchors[:, 0] + height / 2, anchors[:, 1] + width / 2
    cls_losses, reg_losses = [], []
    for index in range(len(scores)):
        p = torch.clamp(scores[index], 1e-4, 1.0 - 1e-4)
        box = boxes[index]
        box = box[box[:, 4] != -1]
        if len(box) == 0:
            cls_losses.append((0.75 * p**2 * -torch.log(1.0 - p)).sum())
            reg_losses.append(torch.zeros((), device=p.device))
            continue
        w = torch.clamp(
            torch.min(anchors[:, None, 3], box[None, :, 2]) - torch.max(anchors[:, None, 1], box[None, :, 0]), min=0
        )
        h = torch.clamp(
            torch.min(anchors[:, None, 2], box[None, :, 3]) - torch.max(anchors[:, None, 0], box[None, :, 1]), min=0
        )
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        union = torch.clamp((height * width)[:, None] + area[None] - w * h, min=1e-8)
        overlap, best = torch.max(w * h / union, dim=1)
        large = area[best] > 100
        positive = ((overlap >= 0.5) & large) | ((overlap >= 0.15) & ~large)
        assigned = box[best]
        wanted = torch.zeros_like(p)
        wanted[positive, assigned[positive, 4].long()] = 1.0
        alpha = torch.where(wanted == 1.0, torch.full_like(p, 0.25), torch.full_like(p, 0.75))
        weight = alpha * torch.where(wanted == 1.0, 1.0 - p, p) ** 2
        entropy = -(wanted * torch.log(p) + (1.0 - wanted) * torch.log(1.0 - p))
        count = positive.sum()
        cls_losses.append((weight * entropy).sum() / torch.clamp(count.float(), min=1.0))
        if count == 0:
            reg_losses.append(torch.zeros((), device=p.device))
            continue
        assigned = assigned[positive]
        gw, gh = assigned[:, 2] - assigned[:, 0], assigned[:, 3] - assigned[:, 1]
        gx, gy = assigned[:, 0] + 0.5 * gw, assigned[:, 1] + 0.5 * gh
        aw, ah = width[positive], height[positive]
        goal = torch.stack(
            [
                (gy - cy[positive]) / ah,
                (gx - cx[positive]) / aw,
                torch.log(torch.clamp(gh, min=1) / ah),
                torch.log(torch.clamp(gw, min=1) / aw),
            ]
        ).t()
        distance = torch.abs(goal - regression[index][positive])
        smooth = torch.where(distance <= 1.0 / 9.0, 4.5 * distance**2, distance - 0.5 / 9.0)
        reg_losses.append(50.0 * smooth.mean())
    detection = torch.stack(cls_losses).mean() + torch.stack(reg_losses).mean()
    truth = F.one_hot(target, logits.shape[1]).permute(0, 3, 1, 2).float()
    p = logits.softmax(dim=1)
    true_positive = (p * truth).sum((0, 2, 3))
    false_positive, false_negative = (p * (1 - truth)).sum((0, 2, 3)), ((1 - p) * truth).sum((0, 2, 3))
    tversky = true_positive / torch.clamp(true_positive + 0.7 * false_positive + 0.3 * false_negative, min=1e-7)
    missing = (1.0 - tversky) * (truth.sum((0, 2, 3)) > 0)
    focal = torch.zeros((), device=logits.device)
    for channel in range(logits.shape[1]):
        x, t = logits[:, channel], truth[:, channel]
        entropy = F.binary_cross_entropy_with_logits(x, t, reduction="none")
        focal = focal + ((1 - torch.exp(-entropy)) ** 2 * entropy * (0.25 * t + 0.75 * (1 - t))).mean()
    return detection + missing.mean() ** (4.0 / 3.0) + focal


def _plain_step(network: nn.Module, size: tuple[int, int], device: Any) -> Callable[[Batch], float]:
    """Upstream's step: forward, loss, backward, AdamW, and a look at the loss."""
    import torch

    from hybridnets.anchors import make_anchors

    anchors = torch.from_numpy(make_anchors(*size)[0]).to(device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (_MEAN, _STD))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step(batch: Batch) -> float:
        batch = batch.to(device)
        # upstream's workers deliver normalised floats: not a part of its step
        images = (batch.images.permute(0, 3, 1, 2).float() / 255.0 - mean) / std
        target = batch.target.long()
        _wait(device)
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        regression, scores, logits = network(images)
        loss = plain_loss(regression, scores, logits, anchors, batch.boxes, target)
        if loss != 0 and torch.isfinite(loss):
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        loss.item()
        _wait(device)
        return time.perf_counter() - start

    return step


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _our_step(
    network: HybridNets, size: tuple[int, int], device: Any, amp: str, compiled: bool
) -> Callable[[Batch], float]:
    """The step of `hnx train`, with averaged weights, clipping and the transfer of the batch."""
    from hybridnets.training.distributed import World
    from hybridnets.training.ema import Ema
    from hybridnets.training.losses import HybridLoss
    from hybridnets.training.parts import make_criterion
    from hybridnets.training.step import Normaliser, TrainStep, amp_dtype, make_optimizer

    average = Ema(network)
    runner = TrainStep(
        network,
        make_criterion(HybridLoss(size, "multiclass").to(device)),
        make_optimizer("adamw", list(network.parameters()), lr=1e-4, weight_decay=0.01, device=device),
        Normaliser(_MEAN, _STD).to(device),
        World(device=device),
        dtype=amp_dtype(amp, device),  # type: ignore[arg-type]  # argparse has checked it
        compiled=compiled,
    )
    done = 0

    def step(batch: Batch) -> float:
        nonlocal done
        _wait(device)
        start = time.perf_counter()
        runner.run([batch], done)
        average.update(network)
        _wait(device)
        done += 1
        return time.perf_counter() - start

    return step


def _batch(size: tuple[int, int], count: int, seed: int) -> Batch:
    """Noise with ten boxes an image and three classes of pixels."""
    import numpy as np
    import torch

    from hybridnets.training.data import Batch

    random = np.random.default_rng(seed)
    width, height = size
    corner = random.uniform(0, 0.8, (count, 10, 2)) * (width, height)
    side = random.uniform(0.02, 0.2, (count, 10, 2)) * (width, height)
    boxes = np.concatenate([corner, corner + side, np.zeros((count, 10, 1))], axis=2).astype(np.float32)
    return Batch(
        torch.from_numpy(random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)),
        torch.from_numpy(boxes),
        torch.from_numpy(random.integers(0, 3, (count, height, width), dtype=np.uint8)),
        tuple(str(index) for index in range(count)),
    )


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
        step = _our_step(network, job.size, device, job.amp, job.compiled)
    else:
        plain = plain_network(network)
        plain = plain.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        step = _plain_step(plain, job.size, device)
    while (index := pipe.recv()) is not None:
        pipe.send(step(_batch(job.size, job.batch_size, index)))


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


def loader_speed(data: Path, size: tuple[int, int], batch_size: int, *, workers: int, batches: int) -> float:
    """Augmented images/s that the worker processes deliver when nobody else needs the cores."""
    import dataclasses

    from hybridnets.dataset import SampleReader, open_split
    from hybridnets.project import Project
    from hybridnets.training.augment import Augmenter, AugmentSettings
    from hybridnets.training.data import BatchPlan, TrainingSet, training_batches

    project = dataclasses.replace(Project(), image_size=size)
    split = open_split(project, data, project.dataset.train_set)
    augment = Augmenter(AugmentSettings.from_dataset(project.dataset))
    dataset = TrainingSet(SampleReader(split, (size[1], size[0])), split.names, augment)
    epochs = -(-(batches + 2) * batch_size // len(split)) + 1
    stream = training_batches(dataset, BatchPlan(len(split), batch_size, epochs=epochs), workers=workers)
    for _ in range(2):  # the processes start
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * batch_size / (time.perf_counter() - start)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; JSON with --json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--coef", type=int, default=3)
    parser.add_argument("--size", default="640x384")
    parser.add_argument("-b", "--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--amp", choices=["off", "auto", "bf16", "fp16"], default="off")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, help="a data set: also measure reading and augmenting it")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    width, height = (int(side) for side in options.size.split("x"))
    job = Job(options.coef, (width, height), options.batch, options.amp, options.compile, options.device)
    found = compare(
        job,
        options.rounds,
        lambda index, seconds: print(
            f"round {index} of {options.rounds}: ours {seconds['ours']:.3f} s, plain {seconds['plain']:.3f} s",
            file=sys.stderr,
        ),
    )
    values = found.to_json()
    for name in ("ours", "plain"):
        seconds = statistics.median(values[name])
        print(f"{name:6} {seconds * 1e3:8.0f} ms a step  {found.images / seconds:7.2f} images/s")
    print(f"ratio  {found.ratio:8.3f} (median of {options.rounds} rounds)")
    if options.data is not None:
        speed = loader_speed(options.data, (width, height), options.batch, workers=options.workers, batches=10)
        values["loader_images_per_s"] = speed
        needed = found.images / statistics.median(found.ours)
        print(f"loader {speed:8.1f} images/s with {options.workers} processes, {speed / needed:.1f} times the step's")
    if options.json is not None:
        from hybridnets.files import write_json

        write_json(options.json, values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
