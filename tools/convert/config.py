"""What the converter is asked to do, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hybridnets.errors import ExitCode, HnxError, did_you_mean
from tools.convert.categories import LANE_TYPES

__all__ = ["DEFAULT_WIDTHS", "SPLITS", "ConvertConfig"]

SPLITS = ("train", "val")
# the widths of the published masks at 1280x720: wide lines to learn from, thin ones to be measured on
DEFAULT_WIDTHS: Mapping[str, int] = {"train": 8, "val": 2}

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "drivable": ("direct+alternative", "direct"),
    "drivable_ids": ("auto", "2018", "2020"),
    "images": ("hardlink", "copy", "link"),
    "ignored": ("drop", "mark"),
    "names": ("2018", "keep"),
    "boxes_kind": ("bdd", "coco", "yolo"),
}


@dataclass(frozen=True)
class ConvertConfig:
    """One conversion.

    Attributes:
        root: folder that holds the downloads.
        target: folder to make, in upstream's layout.
        splits: to convert; () is every split of SPLITS that has images.
        image_dir: folder of images; may hold `{split}`.
        boxes_kind: "bdd" (any generation), "coco" or "yolo".
        boxes: file or folder of boxes; None finds it below root. May hold `{split}`.
        class_names: file of class names of YOLO labels.
        drivable_from: "auto", "masks", "rles", "polygons", "labels", or a path; may hold `{split}`.
        lanes_from: "auto", "polygons", "labels", "masks", or a path; may hold `{split}`.
        drivable: what counts as road.
        drivable_ids: numbering of drivable masks.
        lane_types: lane types to draw.
        lane_directions: of "parallel" and "vertical".
        lane_widths: px for each split.
        lane_pairs: join the two edges of a painted line.
        ignored: what becomes of boxes that count for nothing.
        names: box names of 2018, as upstream's project files have them, or as they are.
        empty_boxes: images without an entry in the boxes are images without boxes.
        empty_masks: images without an entry in the drivable area or the lanes have none.
        images: how images come into the target.
        workers: processes; 0 works in this one.
        overwrite: replace what an earlier conversion with other options left.

    Raises:
        HnxError: a value that cannot be.
    """

    root: Path
    target: Path
    splits: tuple[str, ...] = ()
    image_dir: str | None = None
    boxes_kind: str = "bdd"
    boxes: str | None = None
    class_names: Path | None = None
    drivable_from: str = "auto"
    lanes_from: str = "auto"
    drivable: str = "direct+alternative"
    drivable_ids: str = "auto"
    lane_types: tuple[str, ...] = tuple(name for name in LANE_TYPES if name != "crosswalk")
    lane_directions: tuple[str, ...] = ("parallel", "vertical")
    lane_widths: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_WIDTHS))
    lane_pairs: bool = True
    ignored: str = "drop"
    names: str = "2018"
    empty_boxes: bool = False
    empty_masks: bool = False
    images: str = "hardlink"
    workers: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise _usage(f"Unknown {name.replace('_', ' ')} {getattr(self, name)!r}", fix=f"known are {known}")
        for name in (*self.splits, *self.lane_widths):
            if name not in SPLITS:
                raise _usage(f"Unknown split {name!r}", fix=did_you_mean(name, SPLITS))
        for name in self.lane_types:
            if name not in LANE_TYPES:
                raise _usage(f"Unknown lane type {name!r}", fix=did_you_mean(name, LANE_TYPES))
        if not self.lane_types or not self.lane_directions:
            raise _usage("No lane line is chosen", fix="name at least one type and one direction")
        if set(self.lane_directions) - {"parallel", "vertical"}:
            raise _usage(f"Unknown lane direction in {self.lane_directions}", fix="known are parallel and vertical")
        missing = [split for split in SPLITS if split not in self.lane_widths]
        if missing or not all(1 <= width <= 64 for width in self.lane_widths.values()):
            raise _usage(
                "A lane width must be 1 to 64 px, for train and for val", fix="give --lane-width train=8,val=2"
            )
        if self.boxes_kind != "bdd" and self.boxes is None:
            raise _usage(
                f"Boxes of kind {self.boxes_kind} need a path", fix="give --boxes coco FILE or --boxes yolo DIR"
            )
        if self.boxes_kind == "yolo" and self.class_names is None:
            raise _usage(
                "YOLO labels hold numbers, not names", fix="give --names FILE: one class a line, or a data.yaml"
            )
        if not 0 <= self.workers <= 256:
            raise _usage("--workers must be 0 to 256")
        self._check_folders()

    def _check_folders(self) -> None:
        try:
            root, target = self.root.resolve(), self.target.resolve()
        except (OSError, RuntimeError) as error:
            raise _usage(f"Cannot use {self.target}", why=str(error)) from error
        if not self.root.is_dir():
            why = "it is a file" if self.root.exists() else "it does not exist"
            raise HnxError(
                f"There is no folder {self.root}", why=why, fix="name the folder the downloads are unpacked in"
            )
        if self.target.exists() and not self.target.is_dir():
            raise HnxError(f"Cannot write to {self.target}", why="it is a file", fix="name another folder")
        if root == target:
            raise _usage("The target is the folder of the downloads itself", fix="name another folder")

    def options(self) -> dict[str, Any]:
        """What decides the bytes of the output, as JSON; where things lie and how fast is left out."""
        skipped = {"root", "target", "image_dir", "boxes", "class_names", "workers", "overwrite", "splits", "images"}
        values = {name: value for name, value in asdict(self).items() if name not in skipped}
        return {**values, "lane_types": sorted(self.lane_types), "lane_directions": sorted(self.lane_directions)}


def _usage(what: str, *, why: str = "", fix: str = "") -> HnxError:
    return HnxError(what, why=why, fix=fix, code=ExitCode.USAGE)
