"""One mask: can it be read, has it its image's size, and does it mean what it should."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.dataset.layout import check_regular
from hybridnets.dataset.masks import MAX_BYTES, read_mask
from hybridnets.errors import HnxError
from tools.check.findings import Finding, damage

__all__ = ["MaskFacts", "inspect_mask"]

_LANE_LIMIT = 0.3  # share of an image; lane lines 8 px wide cover 1 to 4 %
_SHOWN = 6  # values in a sentence


@dataclass(frozen=True)
class MaskFacts:
    """A mask as it is read, or None, and what was found. `share`: of its pixels that are foreground."""

    mask: NDArray[np.uint8] | None
    share: float | None
    findings: tuple[Finding, ...]


def inspect_mask(path: Path, name: str, size: tuple[int, int] | None) -> MaskFacts:
    """Look at the mask of class `name`; (height, width) `size` of its image, None when that is not known."""
    file = str(path)
    try:
        check_regular(path)
        raw = _raw(path)
        # the usual form is decoded once only
        mask = raw if raw is not None and raw.ndim == 2 and raw.dtype == np.uint8 else read_mask(path)
    except HnxError as error:
        return MaskFacts(None, None, (damage("mask-damaged", path, error),))
    if size is not None and mask.shape != size:
        what = f"{mask.shape[1]}x{mask.shape[0]} pixels, its image has {size[1]}x{size[0]}"
        return MaskFacts(None, None, (Finding("mask-size", file, what),))
    histogram = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
    share = 1 - float(histogram[0]) / mask.size
    findings = _form(file, raw, mask)
    kind = _trap(mask, histogram, share)
    if kind is not None:
        findings.append(Finding(kind, file, f"{share:.0%} of the image would be {name}{_TRAPS[kind]}"))
    elif name == "lane" and share > _LANE_LIMIT:
        findings.append(Finding("lane-share", file, f"{share:.0%} of the image is {name}"))
    values = np.flatnonzero(histogram[1:]) + 1
    if len(values) > 1 and kind is None:
        shown = ", ".join(map(str, values[:_SHOWN])) + (f" and {len(values) - _SHOWN} more" * (len(values) > _SHOWN))
        findings.append(Finding("mask-values", file, f"values {shown} besides 0 (all of them count as {name})"))
    return MaskFacts(mask, share, tuple(findings))


_TRAPS = {
    "mask-drivable-ids": ": value 2 fills the sky, as background does in BDD100K's drivable masks, where 0 is road",
    "mask-lane-bits": ": value 255 fills the sky beside small values, as background does in BDD100K's lane masks",
    "mask-everything": ", the upper quarter too",
}


def _raw(path: Path) -> NDArray[Any] | None:
    """With all channels and bits; None for what `read_mask` will refuse, or what only it can decode."""
    try:
        return (
            None if path.stat().st_size > MAX_BYTES else cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        )
    except (OSError, cv2.error):
        return None


def _form(file: str, raw: NDArray[Any] | None, mask: NDArray[np.uint8]) -> list[Finding]:
    """Bits and channels."""
    findings: list[Finding] = []
    if raw is None:
        return findings
    if raw.ndim == 3:
        colours = raw[..., :3]
        grey = bool((colours[..., :1] == colours).all())
        detail = "all equal" if grey else "of differing content: every colour but black counts"
        findings.append(Finding("mask-channels", file, f"{raw.shape[2]} channels {detail}"))
    if raw.dtype != np.uint8:
        if raw.any() and not mask.any():
            what = f"values up to {raw.max()} of {raw.dtype}: read as 8 bits nothing of them is left"
            findings.append(Finding("mask-vanishes", file, what))
        else:
            findings.append(Finding("mask-depth", file, f"values are {raw.dtype}, read as 8 bits"))
    return findings


def _trap(mask: NDArray[np.uint8], histogram: NDArray[np.float32], share: float) -> str | None:
    """The classic mistakes of converters: a background that is not 0. The sky tells: it is never road nor lane."""
    if share < 0.5:
        return None
    top = mask[: max(1, len(mask) // 4)]
    sky = float(np.median(top)) if np.mean(top == np.median(top)) > 0.9 else None
    values = set(np.flatnonzero(histogram).tolist())
    if sky == 2 and values <= {0, 1, 2}:
        return "mask-drivable-ids"
    # type in bits 0 to 2, bit 3 for background, style and direction in bits 4 and 5
    lines = values - {0, 255}
    if sky == 255 and lines and all(value < 64 and not value & 8 for value in lines):
        return "mask-lane-bits"
    covered = np.count_nonzero(top) / top.size
    return "mask-everything" if share > 0.9 or covered > 0.95 else None
