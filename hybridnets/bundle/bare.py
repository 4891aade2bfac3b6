"""ONNX files that other exporters made: names, shapes and the files beside them say what a manifest would."""

from __future__ import annotations

import re
from pathlib import Path

from hybridnets.anchors import AnchorRule, anchor_count
from hybridnets.bundle.model import ROLES, Bundle, Variant, check_tensors
from hybridnets.config import SegMode, check_size
from hybridnets.errors import HnxError
from hybridnets.onnx_header import TensorSpec, read_onnx_header

__all__ = ["open_bare"]

_EXPORT = "export it with `hnx export`"


def open_bare(path: Path) -> Bundle:
    """An ONNX file made by another exporter: roles from names and shapes, anchors from the file beside it."""
    header = read_onnx_header(path)
    images = [t for t in header.inputs if len(t.shape) == 4 and t.shape[1] == 3]
    if len(images) != 1 or any(not isinstance(v, int) or v < 1 for v in images[0].shape[2:]):
        listing = "; ".join(map(str, header.inputs))
        raise HnxError(
            f"Cannot use {path}",
            why=f"it needs one input of N x 3 x H x W with fixed H and W; it has {listing}",
            fix=_EXPORT,
        )
    image = images[0]
    height, width = int(image.shape[2]), int(image.shape[3])
    try:
        check_size(width, height)
    except HnxError as error:
        raise HnxError(f"Cannot use {path}", why=f"{error.what}. {error.why}", fix=_EXPORT) from error
    outputs = _roles(path, header.outputs, anchor_count(width, height))
    notes = [f"{path.name} carries no manifest: preprocessing and class names are HybridNets' defaults"]
    anchors_file = None
    if "regression" in outputs:
        anchors_file = _anchors_beside(path, height, width)
        if anchors_file is None:
            notes.append("no anchor file lies beside it: the published rule is used")
    count = _size(path, outputs.get("classification"), -1, default=1)
    channels = _size(path, outputs.get("segmentation"), 1, default=3)
    seg_mode: SegMode = "binary" if channels == 1 else "multiclass"
    bundle = Bundle(
        path=path,
        input=image,
        outputs=outputs,
        classes=("car",) if count == 1 else tuple(f"class {i}" for i in range(count)),
        seg_classes={1: ("road",), 3: ("road", "lane")}.get(channels, tuple(f"seg {i}" for i in range(1, channels))),
        seg_mode=seg_mode,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        variants=(Variant("fp32", path.name),),
        anchors_file=anchors_file,
        anchor_rule=AnchorRule(),
        notes=tuple(notes),
    )
    try:
        return check_tensors(bundle)
    except HnxError as error:
        raise HnxError(f"Cannot use {path}", why=f"{error.what}: {error.why}", fix=_EXPORT) from error


def _size(path: Path, spec: TensorSpec | None, axis: int, *, default: int) -> int:
    """Classes or channels of an output, `default` without it; the form says how many names to make up."""
    if spec is None:
        return default
    value = spec.shape[axis] if len(spec.shape) >= 3 else "?"
    # masks are uint8: 256 channels are the most
    if not isinstance(value, int) or not 1 <= value <= 256:
        why = f"its output {spec} does not say how many classes it has, 1 to 256"
        raise HnxError(f"Cannot use {path}", why=why, fix=_EXPORT)
    return value


def _roles(path: Path, outputs: tuple[TensorSpec, ...], count: int) -> dict[str, TensorSpec]:
    """Roles by name where the names are upstream's, else by shape."""
    found = {spec.name: spec for spec in outputs if spec.name in (*ROLES, "anchors")}
    for spec in outputs:
        if spec in found.values():
            continue
        if len(spec.shape) == 4:
            role = "segmentation"
        elif len(spec.shape) == 3 and spec.shape[1] == count:
            role = "regression" if spec.shape[2] == 4 and "regression" not in found else "classification"
        else:
            continue
        found.setdefault(role, spec)
    if "segmentation" not in found and not {"regression", "classification"} <= found.keys():
        listing = "; ".join(map(str, outputs))
        raise HnxError(
            f"{path} is not a HybridNets network",
            why=f"its outputs are {listing}; boxes would be 1 x {count} x 4",
            fix=_EXPORT,
        )
    if ("regression" in found) != ("classification" in found):
        raise HnxError(
            f"{path} has only half a detection head",
            why="regression and classification belong together",
            fix=_EXPORT,
        )
    return found


def _anchors_beside(path: Path, height: int, width: int) -> str | None:
    """The anchor file under any of the names in use: anchor_H_W, anchor_HxW, anchors_HxW (.npy)."""
    pattern = re.compile(rf"anchors?_{height}[x_]{width}\.npy")
    names = sorted(p.name for p in path.parent.glob("anchor*.npy") if pattern.fullmatch(p.name))
    return names[0] if names else None
