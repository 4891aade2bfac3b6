"""Mixed precision: in which type the forward pass computes, and what stays float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridnets.errors import HnxError
from hybridnets.training.config import Amp

__all__ = ["Float32Sigmoid", "amp_dtype"]


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
