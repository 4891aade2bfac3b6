"""What is counted, what is left out and why, and the manifest that keeps it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["COUNTS", "REASONS", "SplitReport"]

# why a frame is not in the output
REASONS: Mapping[str, str] = {
    "no_image": "in the boxes, but there is no such image",
    "no_boxes": "no entry in the boxes",
    "no_drivable": "no entry in the drivable area",
    "no_lanes": "no entry in the lanes",
    "image_broken": "image damaged or cut off",
    "labels_broken": "labels damaged",
    "mask_broken": "mask or RLE damaged",
    "size_differs": "image and labels have different sizes",
    "duplicate": "named again; the first entry was used",
    "unsafe_name": "a name that cannot be a file name",
}
# what the frames that were written hold, and what of them was not used
COUNTS: Mapping[str, str] = {
    "boxes": "boxes written",
    "boxes_clipped": "of these clipped to the picture",
    "boxes_marked_ignored": "of these marked as ignored",
    "boxes_ignored": "boxes dropped: categories that count for nothing",
    "boxes_empty": "boxes dropped: no area",
    "boxes_outside": "boxes dropped: outside the picture",
    "boxes_no_number": "boxes dropped: coordinates or class that are none",
    "boxes_without_corners": "labels dropped: a box category without a box",
    "labels_no_category": "labels dropped: no category",
    "areas": "drivable outlines or RLEs drawn",
    "areas_unknown": "areas not used: neither direct nor alternative",
    "areas_broken": "areas dropped: outline or RLE damaged",
    "areas_without_points": "areas dropped: no outline",
    "lanes": "lane lines drawn",
    "lanes_from_pairs": "of these joined from two edges",
    "lanes_not_chosen": "lane lines not chosen (type or direction)",
    "lanes_unknown_type": "lanes dropped: unknown type",
    "lanes_broken": "lanes dropped: outline damaged",
    "lanes_without_points": "lanes dropped: no outline",
    "road_empty": "frames without any road",
    "lane_empty": "frames without any lane line",
    "image_hardlink": "images hard-linked",
    "image_link": "images linked",
    "image_copy": "images copied",
    "image_encode": "images encoded as JPEG",
}


@dataclass
class SplitReport:
    """One split.

    Attributes:
        split: its name.
        lane_width: px.
        sources: for each role, what was used, in words.
        dropped: reason -> names, or name -> detail where there is one.
        counts: key of COUNTS -> number.
        frames: written in all, in this run and before.
        kept: of these by an earlier run.
    """

    split: str
    lane_width: int
    sources: dict[str, dict[str, Any]]
    dropped: dict[str, dict[str, str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    kept: int = 0

    def drop(self, reason: str, name: str, detail: str = "") -> None:
        """Note a frame that is left out."""
        self.dropped.setdefault(reason, {})[name] = detail

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        dropped = {
            reason: {"why": REASONS[reason], "count": len(names), "names": dict(sorted(names.items()))}
            for reason, names in sorted(self.dropped.items())
        }
        return {
            "frames": self.frames,
            "lane_width": self.lane_width,
            "sources": self.sources,
            "counts": {key: self.counts[key] for key in COUNTS if self.counts[key]},
            "dropped": dropped,
        }
