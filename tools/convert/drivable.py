"""The drivable area: from outlines, run lengths or masks of both numberings to one mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.dataset.layout import check_regular
from hybridnets.errors import HnxError, from_os_error
from tools.convert.categories import kind_of, label_attributes
from tools.convert.geometry import GeometryError, fill, flatten, parse_poly2d
from tools.convert.rle import decode_rle

__all__ = ["MASK_IDS", "draw_areas", "guess_ids", "mask_area", "read_grey"]


@dataclass(frozen=True)
class MaskIds:
    """Numbers of a drivable mask."""

    direct: int
    alternative: int
    background: int


MASK_IDS = {"2018": MaskIds(1, 2, 0), "2020": MaskIds(0, 1, 2)}


def draw_areas(
    labels: Sequence[dict[str, Any]], size: tuple[int, int], *, alternative: bool, counts: Counter[str]
) -> NDArray[np.bool_]:
    """Road of the drivable labels (outlines or RLE) of a frame: bool (height, width).

    Where both overlap direct wins, as in the official masks. A damaged outline is counted and left out.

    Raises:
        GeometryError: damaged run lengths, because one RLE is the whole area of its kind.
    """
    outlines: dict[str, list[NDArray[np.float64]]] = {"direct": [], "alternative": []}
    masks = {name: np.zeros(size, np.bool_) for name in outlines}
    for label in labels:
        kind, name = kind_of(label.get("category"), label_attributes(label))
        if kind != "area":
            continue
        if name not in outlines:
            counts["areas_unknown"] += 1
            continue
        if label.get("rle") is not None:
            masks[name] |= decode_rle(label["rle"], size)
            counts["areas"] += 1
            continue
        try:
            found = parse_poly2d(label.get("poly2d") or label.get("seg2d"))
        except GeometryError:
            counts["areas_broken"] += 1
            continue
        counts["areas" if found else "areas_without_points"] += 1
        outlines[name] += [flatten(outline, closed=True) for outline in found]
    direct = masks["direct"] | fill(size, outlines["direct"])
    if not alternative:
        return direct
    return direct | masks["alternative"] | fill(size, outlines["alternative"])


def read_grey(path: Path) -> NDArray[np.uint8]:
    """A mask as uint8 (height, width), values as stored.

    Raises:
        HnxError: missing, damaged, cut off, or not one channel of 8 bits (a colour map).
    """
    check_regular(path, f"Cannot read mask {path}")
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise from_os_error(f"Cannot read mask {path}", error) from error
    # OpenCV fills the rest of a PNG that is cut off with zeros, which are a class here; every whole PNG ends in IEND
    whole = len(data) and (path.suffix.lower() != ".png" or b"IEND" in bytes(data[-64:]))
    try:
        mask = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if whole else None
    except cv2.error:
        mask = None
    if mask is None:
        raise HnxError(f"Cannot read mask {path}", why="it is damaged or cut off", fix="unpack the download again")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise HnxError(
            f"Cannot use mask {path}",
            why="it has colours or 16 bits: it is a colour map, not a mask of class numbers",
            fix="use the folder `masks` of the download, not `colormaps`",
        )
    return np.asarray(mask, np.uint8)


def mask_area(mask: NDArray[np.uint8], ids: MaskIds, *, alternative: bool) -> NDArray[np.bool_]:
    """Road of an official mask: bool (height, width).

    Raises:
        GeometryError: other numbers than 0, 1 and 2.
    """
    if (mask > 2).any():
        raise GeometryError("the drivable mask holds other values than 0, 1 and 2")
    road: NDArray[np.bool_] = mask == ids.direct
    return road | (mask == ids.alternative) if alternative else road


def guess_ids(paths: Sequence[Path], named: str | None, samples: int = 50) -> tuple[str, str]:
    """The numbering of a folder of masks: "2018" or "2020", and how it was recognised.

    The upper eighth of a road picture is never road: there stands the background, 0 in 2018 and 2 in 2020.

    Args:
        paths: of the masks.
        named: what the names say, None where they say nothing.
        samples: masks that are looked at, spread over all.

    Raises:
        HnxError: they contradict each other or the names, or are no such masks.
    """
    votes: Counter[str] = Counter()
    step = max(1, len(paths) // samples)
    for path in paths[::step][:samples]:
        try:
            mask = read_grey(path)
        except HnxError as error:
            if "colour" in error.why:
                raise
            continue  # a damaged one is left out and listed when its turn comes
        if (mask > 2).any():
            raise HnxError(
                f"{path} is no drivable mask of BDD100K",
                why=f"it holds the value {int(mask.max())}; official masks hold 0, 1 and 2",
                fix="use labels/drivable/masks of the download 'Drivable Area'",
            )
        top = mask[: max(1, mask.shape[0] // 8)]
        for ids in ("2018", "2020"):
            votes[ids] += float((top == MASK_IDS[ids].background).mean()) > 0.9
        votes["seen"] += 1
    # one mask that disagrees may be odd; nine in ten must say the same
    sure = [ids for ids in ("2018", "2020") if votes[ids] >= 0.9 * votes["seen"] > 0]
    if len(sure) == 1 and named in (None, sure[0]):
        how = "by file names and background values" if named else "by background values"
        return sure[0], f"{how} of {votes['seen']} masks"
    said = f"their names say {named}, " if named else ""
    raise HnxError(
        f"The numbering of the drivable masks in {paths[0].parent} is not clear",
        why=f"{said}of {votes['seen']} masks {votes['2018']} have the background of 2018 (0) and "
        f"{votes['2020']} that of 2020 (2) in their upper eighth",
        fix="say it: --drivable-ids 2018 (0 background, 1 direct, 2 alternative) or --drivable-ids 2020 "
        "(0 direct, 1 alternative, 2 background)",
    )
