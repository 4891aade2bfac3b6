"""From the bytes of a batch to the network's input, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Normaliser"]


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
