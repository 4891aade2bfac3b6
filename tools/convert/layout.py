"""Where the official downloads lie once they are unpacked, and what to download when something is missing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.sources import IMAGE_SUFFIXES
from tools.convert.config import SPLITS, ConvertConfig

__all__ = ["PACKAGES", "PORTAL", "ROLES", "Package", "Source", "find_sources", "splits_with_images"]

PORTAL = "https://dl.cv.ethz.ch/bdd100k/data/"


@dataclass(frozen=True)
class Package:
    """An official download: its title on the page, its file, its size and md5."""

    title: str
    archive: str
    size: str
    md5: str

    def __str__(self) -> str:
        return f"'{self.title}' ({self.archive}, {self.size}, md5 {self.md5})"


PACKAGES: Mapping[str, Package] = {
    "images": Package("100K Images", "bdd100k_images_100k.zip", "5.3 GB", "5a0359c86a0b8713adab1eee9a3041cb"),
    "det_20": Package(
        "Detection 2020 Labels", "bdd100k_det_20_labels_trainval.zip", "53 MB", "b86a3e1b7edbcad421b7dad2b3987c94"
    ),
    "labels": Package("Labels", "bdd100k_labels_release.zip", "107 MB", "e21be3e7d6a07ee439faf61e769667e4"),
    "drivable": Package(
        "Drivable Area", "bdd100k_drivable_labels_trainval.zip", "514 MB", "0abc320461200b1d7916f82fdcd64a96"
    ),
    "lane": Package("Lane Marking", "bdd100k_lane_labels_trainval.zip", "434 MB", "dfe74f9ed6800765a0047414d620a186"),
}
ROLES = ("images", "boxes", "drivable", "lanes")
_DOWNLOADS: Mapping[str, tuple[str, ...]] = {
    "images": ("images",),
    "boxes": ("det_20", "labels"),
    "drivable": ("drivable", "labels"),
    "lanes": ("lane", "labels"),
}

# (form, pattern) in order of preference. Forms: images, masks and folder (JSONs of v0) are folders, frames is one JSON.
_LABELS = (
    ("labels", "frames", "labels/bdd100k_labels_images_{split}.json"),
    ("labels", "frames", "bdd100k_labels_images_{split}.json"),
    ("labels", "folder", "labels/100k/{split}"),
    ("labels", "folder", "100k/{split}"),
    ("labels", "folder", "labels/{split}"),
)


def _official(name: str, form: str, pattern: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((name, form, prefix + pattern) for prefix in ("labels/", ""))


_MASKS = {
    # the official masks are what polygons are drawn to in the end, so they come first
    "drivable": (
        *_official("masks", "masks", "drivable/masks/{split}"),
        ("masks", "masks", "drivable_maps/labels/{split}"),
        ("masks", "masks", "labels/{split}"),
    ),
    "lanes": _official("masks", "masks", "lane/masks/{split}"),
}
_WHERE: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "images": tuple(
        ("images", "images", p) for p in ("images/100k/{split}", "100k/{split}", "images/{split}", "{split}")
    ),
    "boxes": (
        *_official("det_20", "frames", "det_20/det_{split}.json"),
        ("det_20", "frames", "det_{split}.json"),
        *_LABELS,
    ),
    "drivable": (
        *_MASKS["drivable"],
        *_official("rles", "frames", "drivable/rles/drivable_{split}.json"),
        *_official("polygons", "frames", "drivable/polygons/drivable_{split}.json"),
        *_LABELS,
    ),
    # polygons first: only they let edges be joined to centre lines, and lines be 2 px wide (masks are 3 px thick)
    "lanes": (*_official("polygons", "frames", "lane/polygons/lane_{split}.json"), *_LABELS, *_MASKS["lanes"]),
}
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "images": IMAGE_SUFFIXES,
    "masks": (".png",),
    "folder": (".json",),
    "yolo": (".txt",),
}


@dataclass(frozen=True)
class Source:
    """Something found.

    Attributes:
        form: images, masks, folder (of v0 JSONs), frames (one JSON), coco or yolo.
        path: file or folder.
    """

    form: str
    path: Path


def splits_with_images(config: ConvertConfig) -> tuple[str, ...]:
    """The splits to convert: those asked for, else those with images.

    Raises:
        HnxError: there is none; says what was looked for and what to download.
    """
    if config.splits:
        return tuple(split for split in SPLITS if split in config.splits)
    found = tuple(split for split in SPLITS if _find(config, "images", split) is not None)
    if not found:
        raise HnxError(
            f"There are no images below {config.root}",
            why=_looked("images", config, "train"),
            fix=f"{_download('images')}; name another folder with --image-dir, and for images in one folder --split",
        )
    return found


def find_sources(config: ConvertConfig, split: str) -> dict[str, Source]:
    """Images, boxes, drivable area and lanes of a split, by role. Masks may be absent when empty ones are allowed.

    Raises:
        HnxError: something is missing; names all of it, where it was looked for and what to download.
    """
    found: dict[str, Source] = {}
    missing = []
    for role in ROLES:
        source = _find(config, role, split)
        if source is not None:
            found[role] = source
        elif role not in ("drivable", "lanes") or not config.empty_masks:
            missing.append(role)
    if missing:
        fix = "; ".join(_download(role) for role in missing)
        masks = ", or allow empty masks with --empty-masks" if set(missing) <= {"drivable", "lanes"} else ""
        raise HnxError(
            f"The {split} split lacks {' and '.join(missing)}",
            why="; ".join(_looked(role, config, split) for role in missing),
            fix=f"{fix}{masks}, or convert what is there with --split",
        )
    return found


def _find(config: ConvertConfig, role: str, split: str) -> Source | None:
    asked = {
        "images": config.image_dir,
        "boxes": config.boxes,
        "drivable": config.drivable_from,
        "lanes": config.lanes_from,
    }[role]
    wanted = asked if asked in ("masks", "rles", "polygons", "labels") and role != "images" else None
    if asked not in (None, "auto") and wanted is None:
        return _named(config, role, str(asked), split)
    bases = _bases(config)
    for name, form, pattern in _WHERE[role]:
        if wanted not in (None, name):
            continue
        for base in bases:
            path = base / pattern.format(split=split)
            if _is_form(path, form, id_masks=pattern == "labels/{split}" and form == "masks"):
                return Source(form, path)
    if role == "images" and len(config.splits) == 1:  # people with frames of their own have no folders train and val
        for path in (config.root / "images", config.root):
            if _is_form(path, "images"):
                return Source("images", path)
    return None


def _bases(config: ConvertConfig) -> list[Path]:
    """root, root/bdd100k, and the same below each folder of root: many unpack every archive into its own folder."""
    target = config.target.resolve()
    try:
        inner = sorted(path for path in config.root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise from_os_error(f"Cannot read folder {config.root}", error) from error
    inner = [path for path in inner if path.resolve() != target]
    return [path for base in (config.root, *inner) for path in (base, base / "bdd100k")]


def _is_form(path: Path, form: str, *, id_masks: bool = False) -> bool:
    if form in ("frames", "coco"):
        return path.is_file()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name.lower()
                if name.endswith(_SUFFIXES[form]) and (not id_masks or name.endswith("_drivable_id.png")):
                    return True
    except OSError:
        pass
    return False


def _named(config: ConvertConfig, role: str, text: str, split: str) -> Source:
    """A source that the user named, in whatever form it has."""
    path = Path(text.replace("{split}", split))
    option = {"images": "--image-dir", "boxes": "--boxes", "drivable": "--drivable-from", "lanes": "--lanes-from"}[role]
    if path.is_file():
        if "{split}" not in text and len(splits_named(config)) > 1:
            raise HnxError(
                f"{option} {text} is one file for the splits train and val",
                fix=f"choose one with --split, or write {{split}} where the name has train or val: {option} "
                f"{path.with_name('labels_{split}' + path.suffix)}",
                code=ExitCode.USAGE,
            )
        if role == "images":
            raise HnxError(f"{option} {text} is a file", fix="name the folder of the images", code=ExitCode.USAGE)
        return Source("coco" if role == "boxes" and config.boxes_kind == "coco" else "frames", path)
    forms = {"images": ("images",), "boxes": ("yolo",) if config.boxes_kind == "yolo" else ("folder",)}
    for folder in (path / split, path):
        for form in forms.get(role, ("masks", "folder")):
            if _is_form(folder, form):
                return Source(form, folder)
    why = f"the folder holds no file of the kind {option} takes" if path.is_dir() else "it does not exist"
    raise HnxError(f"{option} {text} cannot be used for the {split} split", why=why, fix="check the path")


def splits_named(config: ConvertConfig) -> tuple[str, ...]:
    """The splits this run is about, as far as the options say."""
    return config.splits or SPLITS


def _looked(role: str, config: ConvertConfig, split: str) -> str:
    patterns = list(dict.fromkeys(pattern.format(split=split) for _, _, pattern in _WHERE[role]))
    return f"no {role} at {', '.join(patterns)} in {config.root}, its bdd100k, or its subfolders"


def _download(role: str) -> str:
    packages = " or ".join(str(PACKAGES[name]) for name in _DOWNLOADS[role])
    return (
        f"for {role} download {packages} from {PORTAL} (account at https://bdd-data.berkeley.edu) and unpack it there"
    )
