"""What a conversion will do: sources found and indexed, frames that all of them have, and why others are left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hybridnets.errors import HnxError, from_os_error
from hybridnets.sources import IMAGE_SUFFIXES
from tools.convert.coco import CocoIndex
from tools.convert.config import ConvertConfig
from tools.convert.drivable import guess_ids
from tools.convert.frame import BDD_SIZE, FrameTask, Recipe
from tools.convert.index import FolderIndex, Index, JsonIndex
from tools.convert.layout import Source, find_sources, splits_with_images
from tools.convert.report import SplitReport

__all__ = ["CONVERTER_VERSION", "Plan", "SplitPlan", "make_plan"]

# part of what decides whether files of an earlier run can stay: raise it when the same input gives other bytes
CONVERTER_VERSION = 1
_ID_ENDING = "_drivable_id"


@dataclass
class SplitPlan:
    """One split: its frames in order of names, and how to convert them.

    Attributes:
        recipe: for all frames.
        names: of the frames to convert, sorted.
        indices: of each role that has a source.
        report: sources and what is left out so far.
        key: hash of everything that decides the output.
    """

    recipe: Recipe
    names: list[str]
    indices: dict[str, Index]
    report: SplitReport
    key: str

    def tasks(self, done: set[str]) -> Iterator[FrameTask]:
        """The frames that are not done yet."""
        boxes, drivable, lanes = (self.indices.get(role) for role in ("boxes", "drivable", "lanes"))
        for name in self.names:
            if name not in done:
                refs = [
                    index.ref(name) if index is not None and name in index else None
                    for index in (boxes, drivable, lanes)
                ]
                image = self.indices["images"].ref(name)
                assert isinstance(image, Path)
                yield FrameTask(name, image, *refs)


@dataclass
class Plan:
    """All splits, and remarks for the user."""

    splits: list[SplitPlan] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_plan(config: ConvertConfig, on_read: Callable[[Path, int], None] | None = None) -> Plan:
    """Find and index all sources; nothing is written.

    Args:
        config: what to do.
        on_read: told the file and the number of bytes after every piece of a large JSON.

    Raises:
        HnxError: something is missing, broken or ambiguous.
    """
    plan = Plan()
    names = _class_names(config.class_names) if config.class_names is not None else ()
    for split in splits_with_images(config):
        plan.splits.append(_plan_split(config, split, names, on_read, plan.notes))
    return plan


def _plan_split(
    config: ConvertConfig,
    split: str,
    class_names: tuple[str, ...],
    on_read: Callable[[Path, int], None] | None,
    notes: list[str],
) -> SplitPlan:
    sources = find_sources(config, split)
    cache: dict[Source, Index] = {}
    indices = {role: _index(source, cache, on_read) for role, source in sources.items()}
    for role, holds in (("boxes", "box"), ("drivable", "area"), ("lanes", "lane")):
        allowed = config.empty_boxes if role == "boxes" else config.empty_masks
        if role in sources and not allowed:
            _check_holds(indices[role], sources[role], role, holds)
    sizes = {
        role: None if source.form in ("coco", "yolo") else indices[role].size or BDD_SIZE
        for role, source in sources.items()
        if role != "images"
    }
    mask_ids = None
    report = SplitReport(split, config.lane_widths[split], {})
    for role, source in sources.items():
        index = indices[role]
        report.sources[role] = {"path": str(source.path), "kind": index.description, "frames": len(index)}
    if "drivable" in sources and sources["drivable"].form == "masks":
        mask_ids, how = _mask_ids(config, indices["drivable"])
        report.sources["drivable"]["ids"] = mask_ids
        report.sources["drivable"]["kind"] += f", numbering of {mask_ids} ({how})"
    names = _join(config, indices, report)
    for role, index in indices.items():
        if index.duplicates or index.unsafe:
            count = len(index.duplicates) + len(index.unsafe)
            notes.append(f"{split}: {count} entries of the {role} have names that came before or cannot be file names")
    if "lanes" in sources and sources["lanes"].form == "masks":
        notes.append(f"{split}: lanes come from masks, so the two edges of a painted line stay two lines")
    recipe = Recipe(
        target=config.target.absolute(),
        split=split,
        width=config.lane_widths[split],
        alternative=config.drivable == "direct+alternative",
        lane_types=config.lane_types,
        lane_directions=config.lane_directions,
        lane_pairs=config.lane_pairs,
        ignored=config.ignored,
        names=config.names,
        images=config.images,
        mask_ids=mask_ids,
        sizes=sizes,
        class_names=class_names,
    )
    return SplitPlan(recipe, names, indices, report, _key(config, split, sources, indices, recipe))


def _index(source: Source, cache: dict[Source, Index], on_read: Callable[[Path, int], None] | None) -> Index:
    path = source.path
    if source in cache:  # v1 and v0 hold boxes, areas and lanes
        return cache[source]

    def told(count: int) -> None:
        if on_read is not None:
            on_read(path, count)

    found: Index
    if source.form == "frames":
        found = JsonIndex(path, told)
    elif source.form == "coco":
        found = CocoIndex(path, told)
    elif source.form == "images":
        found = FolderIndex(path, IMAGE_SUFFIXES, "images")
    elif source.form == "folder":
        found = FolderIndex(path, (".json",), "one JSON per image (v0)")
        found.look_inside()
    elif source.form == "yolo":
        found = FolderIndex(path, (".txt",), "YOLO texts")
    else:
        found = FolderIndex(path, (".png",), "masks", _ID_ENDING)
    cache[source] = found
    return found


def _check_holds(index: Index, source: Source, role: str, kind: str) -> None:
    """A det_20 file has no lanes: without this every mask would be empty."""
    if source.form in ("frames", "folder") and kind not in index.holds and len(index):
        held = ", ".join(sorted(index.holds - {"", "rle"})) or "nothing"
        raise HnxError(
            f"{source.path} holds no {role}",
            why=f"of its {len(index)} frames none that was looked at has such a label; they hold: {held}",
            fix={
                "boxes": "give the detection labels with --boxes bdd FILE",
                "drivable": "give the drivable area with --drivable-from, or allow empty masks with --empty-masks",
                "lanes": "give the lanes with --lanes-from, or allow empty masks with --empty-masks",
            }[role],
        )


def _mask_ids(config: ConvertConfig, index: Index) -> tuple[str, str]:
    if config.drivable_ids != "auto":
        return config.drivable_ids, "as you say"
    named = None
    if isinstance(index, FolderIndex) and index.with_ending:
        if index.with_ending < len(index):
            raise HnxError(
                f"{index.path} mixes masks of 2018 (*{_ID_ENDING}.png) with others",
                fix="unpack each download into its own folder",
            )
        named = "2018"
    paths = [path for name in index if isinstance(path := index.ref(name), Path)]
    return guess_ids(paths, named)


def _join(config: ConvertConfig, indices: dict[str, Index], report: SplitReport) -> list[str]:
    """Names that every source has; the others go to the report."""
    for index in indices.values():
        for name in index.duplicates:
            report.drop("duplicate", name)
        for name in index.unsafe:
            report.drop("unsafe_name", name)
    wanted = []
    images, boxes = indices["images"], indices["boxes"]
    for name in sorted(images):
        if name not in boxes and not config.empty_boxes:
            report.drop("no_boxes", name)
            continue
        lacking = [role for role in ("drivable", "lanes") if role in indices and name not in indices[role]]
        if lacking and not config.empty_masks:
            report.drop(f"no_{lacking[0]}", name)
            continue
        wanted.append(name)
    for name in boxes:
        if name not in images:
            report.drop("no_image", name)
    if not wanted:
        examples = "; ".join(f"{role}: {', '.join(sorted(index)[:2]) or 'nothing'}" for role, index in indices.items())
        raise HnxError(
            f"No image of the {report.split} split has all its labels",
            why=f"the names do not meet ({examples})",
            fix="check that images and labels belong together; --empty-boxes and --empty-masks need no entry",
        )
    return wanted


def _class_names(path: Path) -> tuple[str, ...]:
    """One name a line, or the `names` of a YAML file (list, or mapping from numbers)."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise from_os_error(f"Cannot read {path}", error) from error
    except UnicodeDecodeError as error:
        raise HnxError(f"Cannot read {path}", why="it is not UTF-8", fix="name the file of class names") from error
    if path.suffix.lower() in (".yaml", ".yml"):
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise HnxError(f"Cannot read {path}", why=f"it is not valid YAML: {error}") from error
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
            names = [names[i] for i in range(len(names))]
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise HnxError(f"{path} holds no class names", fix="one name a line, or a YAML file with `names`")
    return tuple(name.strip() for name in names)


def _key(
    config: ConvertConfig, split: str, sources: dict[str, Source], indices: dict[str, Index], recipe: Recipe
) -> str:
    """Hash over options and sources: files by size and time, folders by their number of files."""
    inputs: dict[str, Any] = {}
    for role, source in sources.items():
        try:
            state = source.path.stat()
        except OSError as error:
            raise from_os_error(f"Cannot read {source.path}", error) from error
        folder = source.path.is_dir()
        inputs[role] = [source.form, len(indices[role]) if folder else [state.st_size, state.st_mtime_ns]]
    options = {**config.options(), "lane_widths": None, "lane_width": config.lane_widths[split]}
    whole = [CONVERTER_VERSION, options, inputs, recipe.mask_ids, recipe.class_names]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, allow_nan=False).encode()).hexdigest()
