"""Downloads made of the fixtures in tests/data/bdd100k, and small made-up ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tools.convert import ConvertConfig, convert, make_plan
from tools.convert.report import SplitReport

FIXTURES = Path(__file__).parents[2] / "data" / "bdd100k"


def unpack(root: Path, generation: str, *, base: str = "bdd100k") -> Path:
    """The fixtures of a generation (v0, v1, v2020) and their images as downloads below `root`."""
    shutil.copytree(FIXTURES / generation, root / base, dirs_exist_ok=True)
    shutil.copytree(FIXTURES / "images", root / base / "images", dirs_exist_ok=True)
    return root


def image(path: Path, size: tuple[int, int] = (72, 128)) -> Path:
    """A grey JPEG (or whatever the suffix says)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), 90, np.uint8))
    return path


def dump(path: Path, value: Any) -> Path:
    """A JSON file; NaN is written as NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def det_frame(name: str, boxes: Sequence[tuple[float, ...]] = ((10, 10, 30, 30),), **extra: Any) -> dict[str, Any]:
    """A frame of det_20 for a picture of 128x72."""
    corners = ("x1", "y1", "x2", "y2")
    labels = [{"id": "0", "category": "car", "box2d": dict(zip(corners, box, strict=True))} for box in boxes]
    return {"name": name, "size": {"width": 128, "height": 72}, "labels": labels, **extra}


def own_frames(root: Path, names: Sequence[str], split: str = "val") -> Path:
    """Small frames with boxes of 2020, without masks."""
    for name in names:
        image(root / "images/100k" / split / f"{name}.jpg")
    dump(root / f"labels/det_20/det_{split}.json", [det_frame(f"{name}.jpg") for name in names])
    return root


def run(root: Path, target: Path, **options: Any) -> dict[str, SplitReport]:
    """Convert in this process."""
    config = ConvertConfig(root, target, **options)
    return {report.split: report for report in convert(config, make_plan(config))}


def outputs(target: Path) -> dict[str, bytes]:
    """Every file of a data set by its path, without journal and manifest."""
    files = sorted(path for path in target.rglob("*") if path.is_file() and path.parent != target)
    return {str(path.relative_to(target)): path.read_bytes() for path in files}


def grey(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A mask."""
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    return np.asarray(mask, np.uint8)


def overlap(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Intersection over union of what is not zero."""
    return float(((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum())
