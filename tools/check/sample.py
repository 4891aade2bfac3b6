"""One sample: every file that exists is read as an evaluation would read it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.dataset.labels import MAX_BYTES, LabelBox, boxes_in_input, class_ids, fault_of, has_boxes, parse_label
from hybridnets.dataset.layout import SplitFolders, check_regular, find_image
from hybridnets.errors import HnxError
from hybridnets.files import read_json
from hybridnets.preprocess import Letterbox
from hybridnets.project import Project
from hybridnets.sources import read_image
from tools.check.findings import Finding, damage
from tools.check.masks import MaskFacts, inspect_mask

__all__ = ["SIZE_EDGES", "Facts", "Inspector"]

# sides of boxes (square root of the area) in input pixels; 8 is the finest stride of the network
SIZE_EDGES = (0.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, float("inf"))


@dataclass
class Facts:
    """What was found about one sample; small, for it travels between processes.

    Attributes:
        size: (height, width) of the image, None when it cannot be read.
        boxes: usable boxes of each class.
        ignored: boxes of categories that the project does not keep.
        sides: boxes by size, see `SIZE_EDGES`.
        shares: share of foreground of each mask, None when it cannot be used.
        has_boxes: whether the label says what boxes there are.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)
    size: tuple[int, int] | None = None
    boxes: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    sides: tuple[int, ...] = (0,) * (len(SIZE_EDGES) - 1)
    shares: tuple[float | None, ...] = ()
    has_boxes: bool = True


@dataclass(frozen=True)
class Inspector:
    """Reads samples of one split by name; missing files are left to `listing`."""

    folders: SplitFolders
    project: Project

    def __call__(self, name: str) -> Facts:
        """What there is to know about a sample; never raises on account of its files."""
        facts = Facts(name)
        image = find_image(self.folders.images, name)
        if _there(image):
            try:
                check_regular(image)
                facts.size = read_image(image).shape[:2]
                facts.findings += self._shape(image, facts.size)
            except HnxError as error:
                facts.findings.append(damage("image-damaged", image, error))
        self._masks(facts)
        label = self.folders.labels / f"{name}.json"
        if _there(label):
            self._label(label, facts)
        return facts

    def _shape(self, image: Path, size: tuple[int, int]) -> list[Finding]:
        height, width = self.project.dataset.org_img_size
        # 1 %: cameras round their heights, as in 1366x768
        if abs(size[1] / size[0] * height / width - 1) < 0.01:
            return []
        what = f"{size[1]}x{size[0]} pixels, the boxes refer to {width}x{height}"
        return [Finding("image-aspect", str(image), what)]

    def _masks(self, facts: Facts) -> None:
        found: list[MaskFacts | None] = []
        for folder, name in zip(self.folders.masks, self.project.seg_list, strict=True):
            path = folder / f"{facts.name}.png"
            found.append(inspect_mask(path, name, facts.size) if _there(path) else None)
        for mask in found:
            facts.findings += mask.findings if mask is not None else ()
        facts.shares = tuple(None if mask is None else mask.share for mask in found)
        for second, other in enumerate(found):
            for first, mask in enumerate(found[:second]):
                if mask is not None and other is not None and _equal(mask.mask, other.mask):
                    path = self.folders.masks[second] / f"{facts.name}.png"
                    what = f"the same as the mask of {self.project.seg_list[first]}"
                    facts.findings.append(Finding("masks-equal", str(path), what))

    def _label(self, path: Path, facts: Facts) -> None:
        try:
            check_regular(path)
            data = read_json(path, limit=MAX_BYTES)
        except HnxError as error:
            facts.findings.append(damage("label-damaged", path, error))
            return
        boxes, problems = parse_label(data, self.project.traffic_light_color)
        facts.findings += [Finding("label-damaged", str(path), problem) for problem in problems]
        facts.findings += _header(path, data)
        size = self.project.dataset.org_img_size
        facts.has_boxes = has_boxes(data)
        wanted = class_ids(self.project)
        kept = []
        for label in boxes:
            if label.category not in wanted:
                facts.ignored[label.category] += 1
                continue
            if kind := _box_kind(label, size):
                corners = ", ".join(f"{value:g}" for value in label.box)
                what = f"object {label.index} ({label.category}): {corners} in {size[1]}x{size[0]}"
                facts.findings.append(Finding(kind, str(path), what))
            if not fault_of(label.box, size):
                kept.append(label)
        for label in kept:
            facts.boxes[self.project.classes[wanted[label.category]]] += 1
        width, height = self.project.image_size
        placed = boxes_in_input(kept, self.project, Letterbox.fit(facts.size or size, (height, width)))
        sides = np.sqrt((placed[:, 2] - placed[:, 0]) * (placed[:, 3] - placed[:, 1]))
        facts.sides = tuple(np.histogram(sides, SIZE_EDGES)[0].tolist())


def _there(path: Path) -> bool:
    """An ordinary file, or a link to anything, or one we may not look at: reading it says what is wrong."""
    try:
        return path.is_file() or path.is_symlink()
    except OSError:
        return True


def _equal(first: NDArray[np.uint8] | None, second: NDArray[np.uint8] | None) -> bool:
    """Also when one says 1 where the other says 255; two empty masks are no mistake."""
    if first is None or second is None or first.shape != second.shape:
        return False
    return bool(first.any()) and bool(((first > 0) == (second > 0)).all())


def _box_kind(label: LabelBox, size: tuple[int, int]) -> str:
    """The kind of finding, "" for none. A pixel beyond the border is what annotation tools do."""
    if fault := fault_of(label.box, size):
        return "box-area" if fault == "no area" else "box-outside"
    x1, y1, x2, y2 = label.box
    out = max(-x1, -y1, x2 - size[1], y2 - size[0])
    return "box-partly-outside" if out > 1 else ""


def _header(path: Path, data: Any) -> list[Finding]:
    """Of files whose form is right."""
    findings: list[Finding] = []
    if not isinstance(data, dict):
        return findings
    frames, name = data.get("frames"), data.get("name")
    if isinstance(frames, list) and len(frames) > 1:
        findings.append(Finding("label-frames", str(path), f"it holds {len(frames)} frames"))
    # names come with and without their ending
    if isinstance(name, str) and name and path.stem not in (name, Path(name).stem, Path(name).name):
        findings.append(Finding("label-name", str(path), f"it says that it belongs to {name!r}"))
    return findings
