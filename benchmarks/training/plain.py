"""A training step as a straightforward eager loop with upstream's settings has it: what ours is measured against.

It does what upstream's train.py does, in its way: float32, channels-last, an activation with a memory-saving gradient
of its own, a padding before every convolution, a loop over the images in the detection loss, AdamW as torch has it by
default, the loss read after every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.training.inputs import MEAN, STD, wait

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hybridnets.network.model import HybridNets
    from hybridnets.training.data import Batch

__all__ = ["plain_loss", "plain_network", "plain_step"]


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


def plain_step(network: nn.Module, size: tuple[int, int], device: Any) -> Callable[[Batch], float]:
    """Upstream's step: forward, loss, backward, AdamW, and a look at the loss."""
    import torch

    from hybridnets.anchors import make_anchors

    anchors = torch.from_numpy(make_anchors(*size)[0]).to(device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step(batch: Batch) -> float:
        batch = batch.to(device)
        # upstream's workers deliver normalised floats: not a part of its step
        images = (batch.images.permute(0, 3, 1, 2).float() / 255.0 - mean) / std
        target = batch.target.long()
        wait(device)
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        regression, scores, logits = network(images)
        loss = plain_loss(regression, scores, logits, anchors, batch.boxes, target)
        if loss != 0 and torch.isfinite(loss):
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        loss.item()
        wait(device)
        return time.perf_counter() - start

    return step
