"""Anchor boxes: the rule, the array, and other consumers' dresses of it. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hybridnets.config import ANCHORS_PER_CELL, STRIDES, check_size
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AnchorRule", "anchor_count", "make_anchors", "to_cxcywh"]


@dataclass(frozen=True)
class AnchorRule:
    """How anchors follow from the input size.

    Attributes:
        scales: three size factors.
        ratios: three (width factor, height factor) pairs.
        anchor_scale: side of the base anchor in strides.
    """

    scales: tuple[float, ...] = (1.0, 2**0.70, 2**1.32)
    ratios: tuple[tuple[float, float], ...] = ((0.62, 1.58), (1.0, 1.0), (1.58, 0.62))
    anchor_scale: float = 1.25

    def __post_init__(self) -> None:
        if len(self.scales) * len(self.ratios) != ANCHORS_PER_CELL:
            raise HnxError(
                f"{len(self.scales)} anchor scales and {len(self.ratios)} ratios",
                why=f"the network's heads have {ANCHORS_PER_CELL} anchors a cell: scales x ratios must be that",
                fix="give three scales and three ratios",
                code=ExitCode.USAGE,
            )
        numbers = [*self.scales, self.anchor_scale, *(v for pair in self.ratios for v in pair)]
        if not all(0 < v < 1e6 for v in numbers):  # more would leave the range of float32
            raise HnxError(
                "An anchor scale or ratio is not a positive number below a million",
                fix="correct the project file",
                code=ExitCode.USAGE,
            )

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {
            "scales": list(self.scales),
            "ratios": [list(r) for r in self.ratios],
            "anchor_scale": self.anchor_scale,
            "strides": list(STRIDES),
            "order": "level,y,x,scale,ratio",
        }


def anchor_count(width: int, height: int) -> int:
    """Rows of the anchor array; 46035 at 640x384.

    >>> anchor_count(640, 384)
    46035
    """
    check_size(width, height)
    return ANCHORS_PER_CELL * sum((height // s) * (width // s) for s in STRIDES)


def make_anchors(width: int, height: int, rule: AnchorRule | None = None) -> NDArray[np.float32]:
    """Anchors of one input size.

    Returns:
        float32 (1, A, 4): y1, x1, y2, x2 in input pixels, not clipped. Rows are ordered by level (stride 8
        first), y, x, scale, ratio. Computed in float64 and rounded once.
    """
    import numpy as np

    check_size(width, height)
    rule = rule or AnchorRule()
    levels = []
    for stride in STRIDES:
        centre_y = (np.arange(height // stride) + 0.5) * stride
        centre_x = (np.arange(width // stride) + 0.5) * stride
        half = np.array(
            [
                (
                    rule.anchor_scale * stride * scale * ratio[1] / 2.0,
                    rule.anchor_scale * stride * scale * ratio[0] / 2.0,
                )
                for scale in rule.scales
                for ratio in rule.ratios
            ]
        )  # (9, 2): half height, half width
        cy, cx = np.meshgrid(centre_y, centre_x, indexing="ij")
        centre = np.stack([cy, cx], axis=-1)[:, :, None, :]  # (h, w, 1, 2)
        levels.append(np.concatenate([centre - half, centre + half], axis=-1).reshape(-1, 4))
    return np.concatenate(levels)[None].astype(np.float32)


def to_cxcywh(anchors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(1, A, 4) y1, x1, y2, x2 to (1, A, 4) cx, cy, w, h, float32, as OpenCV-DNN consumers read them."""
    import numpy as np

    y1, x1, y2, x2 = np.moveaxis(anchors.astype(np.float64), -1, 0)
    return np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=-1).astype(np.float32)
