"""What both sides of a comparison are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridnets.training.data import Batch

__all__ = ["MEAN", "STD", "random_batch", "wait"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def wait(device: Any) -> None:
    """Until a device has done all its work."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_batch(size: tuple[int, int], count: int, seed: int) -> Batch:
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
