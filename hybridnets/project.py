"""Project files: upstream's `projects/*.yml`, read safely and checked key by key."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hybridnets.anchors import AnchorRule
from hybridnets.arithmetic import parse_arithmetic
from hybridnets.config import SegMode, check_normalisation
from hybridnets.errors import ExitCode, HnxError, did_you_mean, from_os_error

__all__ = ["DEFAULT_PROJECT", "DatasetConfig", "Project", "load_project", "shipped_projects"]

DEFAULT_PROJECT = "bdd100k"
_FOLDER = Path(__file__).with_name("projects")
_MAX_BYTES = 1 << 20  # a project file has about 1 kB

# Keys that upstream's revisions wrote and that decide nothing here: accepted in silence.
_IGNORED = frozenset(
    {
        "project_name",
        "num_gpus",
        "dataset.color_rgb",
        "dataset.data_format",
        "dataset.dataset",
        "dataset.select_data",
    }
)


@dataclass(frozen=True)
class DatasetConfig:
    """Where the data lie and how training changes them; sizes as upstream writes them.

    `org_img_size` is (height, width): box labels are relative to it whatever the image's real size.
    """

    dataroot: str = "datasets/imgs"
    labelroot: str = "datasets/det_annot"
    segroot: tuple[str, ...] = ("datasets/da_seg_annot", "datasets/ll_seg_annot")
    train_set: str = "train"
    test_set: str = "val"
    org_img_size: tuple[int, int] = (720, 1280)
    fliplr: float = 0.5
    flipud: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    rot_factor: float = 10.0
    scale_factor: float = 0.25
    shear: float = 0.0
    translate: float = 0.1
    mosaic: float = 0.0
    mixup: float = 0.0


@dataclass(frozen=True)
class Project:
    """One project file.

    Attributes:
        classes: detection classes (`obj_list`).
        combine: dataset categories merged into the single class (`obj_combine`).
        seg_list: foreground segmentation classes, in channel order.
        seg_multilabel: pixels may belong to several classes.
        mean, std: RGB normalisation for values in 0..1.
        image_size: (width, height) of the network's input.
        warnings: sentences about keys that mean nothing here.
    """

    name: str = DEFAULT_PROJECT
    classes: tuple[str, ...] = ("car",)
    combine: tuple[str, ...] = ("car", "bus", "truck", "train")
    traffic_light_color: bool = False
    seg_list: tuple[str, ...] = ("road", "lane")
    seg_multilabel: bool = False
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    anchors: AnchorRule = field(default_factory=AnchorRule)
    need_autoanchor: bool = False
    pin_memory: bool = False
    image_size: tuple[int, int] = (640, 384)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    warnings: tuple[str, ...] = ()

    @property
    def seg_mode(self) -> SegMode:
        """Upstream's rule: multilabel when asked, else binary for one class, multiclass for more."""
        if self.seg_multilabel:
            return "multilabel"
        return "multiclass" if len(self.seg_list) > 1 else "binary"


def shipped_projects() -> list[str]:
    """Names that `load_project` knows without a path."""
    return sorted(path.stem for path in _FOLDER.glob("*.yml"))


def load_project(name_or_file: str = DEFAULT_PROJECT) -> Project:
    """Read a project by the name of a shipped one, by `projects/NAME.yml` of the working folder, or by path.

    Raises:
        HnxError: no such project, not YAML, or a value of the wrong kind; names the key.
    """
    path = _find(name_or_file)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise HnxError(f"Cannot read project {path}", why="it is larger than 1 MiB", fix="check the file")
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise HnxError(
            f"Cannot read project {path}", why="it is not UTF-8 text", fix="save it as UTF-8 YAML"
        ) from error
    except OSError as error:
        raise from_os_error(f"Cannot read project {path}", error) from error
    return parse_project(text, path.stem, str(path))


def _find(name_or_file: str) -> Path:
    given = Path(name_or_file)
    if given.suffix in {".yml", ".yaml"} or len(given.parts) > 1:
        return given
    for path in (Path("projects") / f"{name_or_file}.yml", _FOLDER / f"{name_or_file}.yml"):
        if path.is_file():
            return path
    raise HnxError(
        f"There is no project {name_or_file!r}",
        why=did_you_mean(name_or_file, shipped_projects()),
        fix="give one of these names, or the path of a .yml file",
        code=ExitCode.USAGE,
    )


def parse_project(text: str, name: str, origin: str) -> Project:
    """A `Project` from YAML text; `origin` names it in messages."""
    import yaml

    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise HnxError(
            f"Cannot read project {origin}",
            why=f"it is not valid YAML: {' '.join(str(error).split())}",
            fix="compare it with the shipped bdd100k.yml",
        ) from error
    if not isinstance(data, dict):
        raise HnxError(f"Cannot read project {origin}", why="the file holds no keys", fix="compare it with bdd100k.yml")
    top = _Section(data, "", origin)
    default = Project()
    project = Project(
        name=name,
        classes=top.strings("obj_list", default.classes),
        combine=top.strings("obj_combine", (), may_be_empty=True),
        traffic_light_color=top.boolean("traffic_light_color", False),
        seg_list=top.strings("seg_list", default.seg_list),
        seg_multilabel=top.boolean("seg_multilabel", False),
        mean=top.numbers("mean", default.mean, 3),
        std=top.numbers("std", default.std, 3, positive=True),
        anchors=_anchors(top),
        need_autoanchor=top.boolean("need_autoanchor", False),
        pin_memory=top.boolean("pin_memory", False),
        image_size=_image_size(top.section("model"), default.image_size),
        dataset=_dataset(top.section("dataset")),
        warnings=(),
    )
    if "dataset" in data and len(project.dataset.segroot) != len(project.seg_list):
        raise HnxError(
            f"Project {origin}: {len(project.dataset.segroot)} mask folders for {len(project.seg_list)} classes",
            why="dataset.segroot needs one folder for each entry of seg_list",
            fix="add or remove one",
        )
    check_normalisation(project.mean, project.std)
    # known only now: what was not asked for above
    return replace(project, warnings=tuple(top.unknown()))


def _anchors(top: _Section) -> AnchorRule:
    default = AnchorRule()
    scales = top.arithmetic("anchors_scales", list(default.scales))
    ratios = top.arithmetic("anchors_ratios", list(default.ratios))
    if not isinstance(scales, list | tuple) or not all(isinstance(v, float) for v in scales):
        raise top.wrong("anchors_scales", "a list of numbers such as '[2**0, 2**0.70, 2**1.32]'")
    pairs = isinstance(ratios, list | tuple) and all(
        isinstance(r, list | tuple) and len(r) == 2 and all(isinstance(v, float) for v in r) for r in ratios
    )
    if not pairs:
        raise top.wrong("anchors_ratios", "a list of pairs such as '[(0.62, 1.58), (1.0, 1.0), (1.58, 0.62)]'")
    return AnchorRule(tuple(scales), tuple((r[0], r[1]) for r in ratios))


def _image_size(model: _Section, default: tuple[int, int]) -> tuple[int, int]:
    width, height = model.numbers("image_size", default, 2, positive=True)
    return int(width), int(height)


def _dataset(section: _Section) -> DatasetConfig:
    default = DatasetConfig()
    height, width = section.numbers("org_img_size", default.org_img_size, 2, positive=True)
    numbers = {
        key: section.number(key, getattr(default, key))
        for key in (
            "fliplr",
            "flipud",
            "hsv_h",
            "hsv_s",
            "hsv_v",
            "rot_factor",
            "scale_factor",
            "shear",
            "translate",
            "mosaic",
            "mixup",
        )
    }
    return DatasetConfig(
        dataroot=section.string("dataroot", default.dataroot),
        labelroot=section.string("labelroot", default.labelroot),
        segroot=section.strings("segroot", default.segroot),
        train_set=section.string("train_set", default.train_set),
        test_set=section.string("test_set", default.test_set),
        org_img_size=(int(height), int(width)),
        **numbers,
    )


def _short(value: Any) -> str:
    """`repr`, with dots for what lies deep or far: aliases let 1 kB of YAML stand for gigabytes of text."""
    writer = reprlib.Repr()
    writer.maxlevel, writer.maxlist, writer.maxtuple, writer.maxstring = 2, 20, 20, 80
    try:
        return writer.repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a huge number"


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False


class _Section:
    """Typed access to one mapping of the file; remembers which keys were asked for."""

    def __init__(self, data: Mapping[Any, Any], prefix: str, origin: str) -> None:
        self.data, self.prefix, self.origin = data, prefix, origin
        self.known: list[str] = []
        self.sections: list[_Section] = []

    def wrong(self, key: str, expected: str) -> HnxError:
        return HnxError(
            f"Project {self.origin}: {self.prefix}{key} is {_short(self.data.get(key))[:80]}",
            why=f"it must be {expected}",
            fix="compare it with the shipped bdd100k.yml",
        )

    def _get(self, key: str, default: Any) -> Any:
        self.known.append(key)
        value = self.data.get(key)
        return default if value is None else value

    def section(self, key: str) -> _Section:
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "a group of keys")
        child = _Section(value, f"{self.prefix}{key}.", self.origin)
        self.sections.append(child)
        return child

    def boolean(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def string(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "a text")
        return value

    def number(self, key: str, default: float) -> float:
        value = self._get(key, default)
        if not _finite(value):
            raise self.wrong(key, "a number")
        return float(value)

    def strings(self, key: str, default: tuple[str, ...], *, may_be_empty: bool = False) -> tuple[str, ...]:
        value = self._get(key, default)
        good = isinstance(value, list | tuple) and all(isinstance(v, str) and v for v in value)
        if not good or not (value or may_be_empty):
            raise self.wrong(key, "a list of names")
        if len(set(value)) != len(value):
            raise self.wrong(key, "a list without repetitions")
        return tuple(value)

    def numbers(self, key: str, default: tuple[float, ...], count: int, *, positive: bool = False) -> tuple[float, ...]:
        value = self._get(key, default)
        good = (
            isinstance(value, list | tuple)
            and len(value) == count
            and all(_finite(v) and (v > 0 or not positive) for v in value)
        )
        if not good:
            raise self.wrong(key, f"a list of {count} {'positive ' if positive else ''}numbers")
        return tuple(value)

    def arithmetic(self, key: str, default: Any) -> Any:
        value = self._get(key, default)
        try:
            return parse_arithmetic(value if isinstance(value, str) else _short(value))
        except ValueError as error:
            raise self.wrong(key, f"arithmetic on numbers ({error})") from error

    def unknown(self) -> list[str]:
        """A sentence for each key nobody asked for, here and below."""
        sentences = []
        for key in self.data:
            name = f"{self.prefix}{key}"
            if key in self.known or name in _IGNORED:
                continue
            close = difflib.get_close_matches(str(key), self.known, n=1, cutoff=0.6)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            sentences.append(f"project {self.origin}: the key {name!r} means nothing here{hint}")
        for child in self.sections:
            sentences += child.unknown()
        return sentences
