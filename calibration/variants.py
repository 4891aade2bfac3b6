"""Further forms of a network put into a bundle that exists, whole or not at all.

A bundle is valid at every moment, however the writer ends: the new file gets a name that nobody uses (its hash is part
of it), then the manifest is replaced in one step, and only then the file that nothing names any more is removed.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridnets.bundle import MANIFEST, Bundle, open_bundle
from hybridnets.errors import HnxError, first_line
from hybridnets.files import read_json, sha256_file, write_bytes, write_json

if TYPE_CHECKING:
    import onnx

__all__ = ["NewVariant", "add_variants", "check_manifest", "float_model", "load_model"]

_DIGITS = 8  # of the hash, in file names


@dataclass(frozen=True)
class NewVariant:
    """A network to be added.

    Attributes:
        precision: `int8` or `fp16`.
        label: for the file name, such as `openvino`.
        runtimes: names of the runtimes it is made for.
        model: the network.
        details: how it was made, for the manifest; JSON.
    """

    precision: str
    label: str
    runtimes: tuple[str, ...]
    model: onnx.ModelProto
    details: Mapping[str, Any] = field(default_factory=dict)


def load_model(path: Path) -> onnx.ModelProto:
    """An ONNX file with its weights.

    Raises:
        HnxError: it cannot be read.
    """
    import onnx

    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's kinds of errors, and those of external data
        raise HnxError(
            f"Cannot read {path}",
            why=first_line(error),
            fix="export it again with `hnx export`",
        ) from error


def float_model(bundle: Bundle) -> onnx.ModelProto:
    """The float32 network of a bundle that variants are made from.

    Raises:
        HnxError: it has none, or only one that holds Q/DQ nodes already.
    """
    model = load_model(bundle.file(bundle.variant("fp32", "onnxruntime").file))
    if any(node.op_type in ("QuantizeLinear", "QLinearConv") for node in model.graph.node):
        raise HnxError(
            f"The network of {bundle.name} is quantised already",
            why="it holds QuantizeLinear nodes",
            fix="name a bundle that `hnx export` wrote",
        )
    return model


def check_manifest(bundle: Bundle) -> None:
    """Refuse a network that others cannot be put beside; asked before minutes are spent on measuring.

    Raises:
        HnxError: it is a bare ONNX file.
    """
    if not (bundle.path / MANIFEST).is_file():
        raise HnxError(
            f"{bundle.path} is a bare ONNX file, and only a bundle can be quantised",
            why="there is no manifest that could list its INT8 networks",
            fix="make a bundle with `hnx export`, and name its folder",
        )


def add_variants(bundle: Bundle, variants: Sequence[NewVariant]) -> Bundle:
    """Write networks into the bundle's folder, in the place of those of the same precision that were for the same
    runtimes, or for some of them.

    Returns:
        The bundle, opened again with all hashes checked.

    Raises:
        HnxError: it is a bare ONNX file, its manifest changed meanwhile, or the folder cannot be written.
    """
    check_manifest(bundle)
    folder = bundle.path
    where = folder / MANIFEST
    manifest: dict[str, Any] = copy.deepcopy(read_json(where))
    if manifest.get("files") != bundle.manifest.get("files"):
        raise HnxError(
            f"Bundle {folder} has changed since it was opened", why="another command wrote it", fix="start again"
        )
    before = {record["file"] for record in manifest["variants"]}
    for variant in variants:
        name = _write(folder, bundle, variant)
        path = folder / name
        manifest["files"][name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        manifest["variants"] = [old for old in manifest["variants"] if not _replaced(old, variant)] + [
            {
                "precision": variant.precision,
                "file": name,
                "runtimes": list(variant.runtimes),
                "made_by": "hnx quantize",
                **variant.details,
            }
        ]
    obsolete = before - {record["file"] for record in manifest["variants"]}
    for name in obsolete:
        manifest["files"].pop(name, None)
    write_json(where, manifest)
    for name in obsolete:
        with contextlib.suppress(OSError):  # nothing names it any more; the bundle is valid with it
            (folder / name).unlink()
    return open_bundle(folder)


def _replaced(old: Mapping[str, Any], new: NewVariant) -> bool:
    """The new network serves every runtime that the old one was made for; one that names none is for all of them."""
    before, after = set(old.get("runtimes", ())), set(new.runtimes)
    return old.get("precision") == new.precision and (before == after or (bool(before) and before <= after))


def _write(folder: Path, bundle: Bundle, variant: NewVariant) -> str:
    data = variant.model.SerializeToString(deterministic=True)
    height, width = bundle.target
    digest = hashlib.sha256(data).hexdigest()[:_DIGITS]
    name = f"hybridnets_{height}x{width}-{variant.precision}-{variant.label}-{digest}.onnx"
    write_bytes(folder / name, data)
    return name
