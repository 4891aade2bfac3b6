"""What can be wrong with a data set: one row for each kind, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hybridnets.errors import HnxError

__all__ = ["KINDS", "Finding", "Kind", "damage"]

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Kind:
    """A row of `KINDS`: an error keeps a sample from being used, or makes its truth wrong."""

    severity: Severity
    title: str
    fix: str


@dataclass(frozen=True)
class Finding:
    """One problem of one file. `what` says it in words, without the file's name."""

    kind: str
    file: str
    what: str

    @property
    def severity(self) -> Severity:
        """Of its kind."""
        return KINDS[self.kind].severity


def damage(kind: str, file: Path, error: HnxError) -> Finding:
    """A file that could not be read: damaged, unless reading it is forbidden."""
    forbidden = isinstance(error.__cause__, PermissionError)
    return Finding("file-unreadable" if forbidden else kind, str(file), error.why)


_MAKE_MASKS = "make the masks again: 8-bit PNG of one channel, 0 for background and 255 for the class"

KINDS: dict[str, Kind] = {
    "split-missing": Kind("warning", "split that does not exist", "`hnx data synth DIR` makes train and val"),
    "folder-missing": Kind(
        "error",
        "missing folder",
        "lay the data out as imgs, det_annot, da_seg_annot and ll_seg_annot, each with train and val, or make a set: "
        "hnx data synth DIR",
    ),
    "folder-empty": Kind("error", "empty folder", "put the files there, or make a set: hnx data synth DIR"),
    "folder-unreadable": Kind("error", "unreadable folder", "change its permissions: chmod -R u+rX DIR"),
    "image-missing": Kind("error", "missing image", "copy the image there, or remove its label and masks"),
    # nothing is lost: samples are listed by their labels. BDD100K itself has 137 such images in train
    "label-missing": Kind(
        "warning",
        "unlabelled image or mask, which nobody reads",
        'to use it write its label, {"frames": [{"objects": []}]} where nothing is to be found',
    ),
    "mask-missing": Kind("error", "missing mask", "make the mask, all 0 if the class is not on the image"),
    "mask-name": Kind("error", "mask named otherwise", "rename the masks to <name of the image>.png"),
    "image-damaged": Kind("error", "damaged image", "copy or download it again"),
    "label-damaged": Kind("error", "damaged label", "correct the file, or remove the sample"),
    "mask-damaged": Kind("error", "damaged mask", "copy or make it again"),
    "file-unreadable": Kind("error", "file that may not be read", "change its permissions: chmod u+r FILE"),
    "mask-size": Kind("error", "mask of another size", "make the mask again at the size of its image"),
    "mask-drivable-ids": Kind(
        "error",
        "raw BDD100K drivable ids as mask",
        "road is id 0 or 1 there and background id 2: write 255 where id < 2, else 0",
    ),
    "mask-lane-bits": Kind(
        "error",
        "raw BDD100K lane bits as mask",
        "background has bit 3 set there (value 255): write 255 where (value >> 3) & 1 is 0, else 0",
    ),
    "mask-everything": Kind(
        "error", "mask that selects the whole image", "every value above 0 is foreground: invert it, or make it again"
    ),
    "mask-vanishes": Kind("error", "16-bit mask of small values", _MAKE_MASKS),
    "lane-share": Kind("warning", "lane lines as large as a road", "check that the mask folders are not swapped"),
    "mask-values": Kind("warning", "mask of several values", "every value above 0 is foreground: check that it is so"),
    "mask-channels": Kind("warning", "mask of several channels", _MAKE_MASKS),
    "mask-depth": Kind("warning", "16-bit mask", _MAKE_MASKS),
    "masks-equal": Kind("warning", "equal masks of two classes", "give each class a mask of its own"),
    "mask-empty": Kind("warning", "class without a single pixel", "check the masks: all of them are 0"),
    "box-area": Kind("warning", "box without area", "remove the object; it is left out"),
    "box-outside": Kind("warning", "box outside the image", "remove the object; it is left out"),
    "box-partly-outside": Kind(
        "warning", "box that reaches out of the image", "check dataset.org_img_size: it is the size boxes refer to"
    ),
    "class-empty": Kind("warning", "class without a single box", "check obj_list and obj_combine of the project"),
    "label-frames": Kind("warning", "label of several frames", "only the first counts: write a file for each image"),
    "label-name": Kind("warning", "label of another image", "check that the labels were not mixed up"),
    "image-aspect": Kind(
        "warning",
        "image of another shape than the labels",
        "boxes refer to dataset.org_img_size: set it to the (height, width) the labels were drawn at",
    ),
    "image-sizes": Kind("warning", "images of differing sizes", "no harm, if all labels refer to org_img_size"),
    "split-overlap": Kind(
        "warning", "name in both train and test", "an image that was trained on proves nothing: keep it in one of them"
    ),
    "duplicate": Kind("warning", "name that is there twice", "remove all but one"),
    "stray": Kind("warning", "file that nobody reads", "move it away"),
}
