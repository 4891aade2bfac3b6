"""What a check found, as numbers and as JSON."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tools.check.findings import KINDS, Finding
from tools.check.sample import SIZE_EDGES, Facts

__all__ = ["SCHEMA_VERSION", "CheckReport", "SplitReport"]

SCHEMA_VERSION = 1


@dataclass
class SplitReport:
    """One split.

    Attributes:
        samples: names that have a label, or, where there is none at all, names found in any of its folders.
        unlabelled: other names in its folders, which nobody reads.
        broken: samples of which a file is missing, damaged or wrong.
        without_boxes: samples without a usable box; boxes_unlabelled: samples whose boxes nobody labelled.
        boxes: usable boxes of each class; `ignored`: boxes of each other category.
        sides: boxes by size in input pixels, see `SIZE_EDGES`.
        shares: for each segmentation class the mean share of foreground over `masks` usable masks; None without any.
        masks, masks_empty: usable masks of each class, and those without foreground.
        image_sizes: images of each (width, height).
    """

    split: str
    classes: tuple[str, ...]
    seg_classes: tuple[str, ...]
    findings: list[Finding] = field(default_factory=list)
    samples: int = 0
    unlabelled: int = 0
    broken: int = 0
    without_boxes: int = 0
    boxes_unlabelled: int = 0
    boxes: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    sides: list[int] = field(default_factory=lambda: [0] * (len(SIZE_EDGES) - 1))
    share_sums: list[float] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)
    masks_empty: list[int] = field(default_factory=list)
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        count = len(self.seg_classes)
        self.share_sums, self.masks, self.masks_empty = [0.0] * count, [0] * count, [0] * count

    def add(self, facts: Facts) -> None:
        """Take one sample in."""
        self.findings += facts.findings
        self.boxes += facts.boxes
        self.ignored += facts.ignored
        self.without_boxes += facts.has_boxes and not facts.boxes
        self.boxes_unlabelled += not facts.has_boxes
        self.sides = [a + b for a, b in zip(self.sides, facts.sides, strict=True)]
        if facts.size is not None:
            self.image_sizes[facts.size[1], facts.size[0]] += 1
        for index, share in enumerate(facts.shares):
            if share is not None:
                self.share_sums[index] += share
                self.masks[index] += 1
                self.masks_empty[index] += share == 0

    @property
    def shares(self) -> list[float | None]:
        """See the class."""
        return [total / count if count else None for total, count in zip(self.share_sums, self.masks, strict=True)]

    def size_bins(self) -> dict[str, int]:
        """Boxes by side in words: "8-16", the last one ">= 256"."""
        edges = list(itertools.pairwise(SIZE_EDGES))
        names = [f">= {low:g}" if math.isinf(high) else f"{low:g}-{high:g}" for low, high in edges]
        return dict(zip(names, self.sides, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Without the findings."""
        return {
            "samples": self.samples,
            "unlabelled": self.unlabelled,
            "broken": self.broken,
            "without_boxes": self.without_boxes,
            "boxes_unlabelled": self.boxes_unlabelled,
            "boxes": {name: self.boxes[name] for name in self.classes},
            "ignored_categories": dict(self.ignored.most_common()),
            "box_sides_in_input_pixels": self.size_bins(),
            "segmentation": {
                name: {"masks": self.masks[i], "empty": self.masks_empty[i], "mean_share": self.shares[i]}
                for i, name in enumerate(self.seg_classes)
            },
            "image_sizes": {f"{w}x{h}": count for (w, h), count in self.image_sizes.most_common()},
        }


@dataclass
class CheckReport:
    """All splits that were checked."""

    data: str
    project: str
    splits: list[SplitReport] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        """Of all splits, errors first, then in the order of `KINDS` and of the files."""
        order = {kind: index for index, kind in enumerate(KINDS)}
        every = [finding for split in self.splits for finding in split.findings]
        return sorted(every, key=lambda f: (f.severity != "error", order[f.kind], f.file))

    @property
    def errors(self) -> int:
        """Number of findings that make a sample unusable or its truth wrong."""
        return sum(finding.severity == "error" for split in self.splits for finding in split.findings)

    def to_json(self) -> dict[str, Any]:
        """Everything, every finding with its file."""
        findings = self.findings
        counts = Counter(finding.kind for finding in findings)
        return {
            "schema_version": SCHEMA_VERSION,
            "data": _text(self.data),
            "project": self.project,
            "ok": self.errors == 0,
            "splits": {split.split: _text(split.to_json()) for split in self.splits},
            "kinds": {
                kind: {"severity": row.severity, "count": counts[kind], "title": row.title, "fix": row.fix}
                for kind, row in KINDS.items()
                if counts[kind]
            },
            "findings": [
                {"severity": f.severity, "kind": f.kind, "file": _text(f.file), "what": _text(f.what)} for f in findings
            ],
        }


def _text(value: Any) -> Any:
    """File names and categories may hold half characters, which no UTF-8 file can."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_text(key): _text(item) for key, item in value.items()}
    return value
