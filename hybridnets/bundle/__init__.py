"""Deployment bundles: the folder that `hnx export` writes and everything else reads.

A bundle holds the ONNX file, the anchors and `manifest.json`, which carries all that an edge device must know
(preprocessing, classes, anchors, hashes), so no project file and no torch are needed there. A bare ONNX file with
anchors beside it, made by any other exporter, opens as a bundle too.
"""

from __future__ import annotations

from pathlib import Path

from hybridnets.bundle.bare import open_bare
from hybridnets.bundle.form import UNFUSED, GraphForm, NmsForm
from hybridnets.bundle.manifest import MANIFEST, SCHEMA_VERSION, check_weights, files_of, open_manifest
from hybridnets.bundle.model import ROLES, Bundle, Variant, bundle_name
from hybridnets.errors import HnxError, did_you_mean, from_os_error
from hybridnets.files import read_json

__all__ = [
    "DEFAULT_FOLDER",
    "MANIFEST",
    "ROLES",
    "SCHEMA_VERSION",
    "UNFUSED",
    "Bundle",
    "GraphForm",
    "NmsForm",
    "Variant",
    "bundle_name",
    "check_weights",
    "find_bundles",
    "open_bundle",
]

DEFAULT_FOLDER = Path("exports")


def find_bundles(folder: Path = DEFAULT_FOLDER) -> list[Path]:
    """Bundle folders below `folder`, newest first."""
    try:
        found = [path.parent for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
        return sorted(found, key=lambda path: (path / MANIFEST).stat().st_mtime_ns, reverse=True)
    except OSError as error:
        raise from_os_error(f"Cannot look for bundles in {folder}", error) from error


def open_bundle(path: Path | str, *, verify: bool = True, weights: bool = True) -> Bundle:
    """Open a bundle folder, its manifest, or a bare ONNX file (or a folder holding exactly one).

    Args:
        verify: compare the SHA-256 of every file with the manifest (75 ms for the 106 MB of c3).
        weights: compare that of `weights.safetensors` now. The torch runtime does it when it reads them, if not; the
            others never do, and open in half the time.

    Raises:
        HnxError: not a bundle, a newer schema, a damaged or changed file.
    """
    path = Path(path)
    if path.name == MANIFEST:
        path = path.parent
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return open_manifest(path, verify, weights)
        models = sorted(path.glob("*.onnx"))
        if len(models) == 1:
            return open_bare(models[0])
        why = "it holds no manifest.json and no .onnx file" if not models else "it holds several .onnx files"
        raise HnxError(f"{path} is not a bundle", why=why, fix="make one with `hnx export`, or name one .onnx file")
    if path.suffix == ".onnx" and path.is_file():
        manifest = path.parent / MANIFEST
        if manifest.is_file() and path.name in files_of(read_json(manifest)):
            return open_manifest(path.parent, verify, weights)
        return open_bare(path)
    if not path.exists():
        near = [p.name for p in find_bundles(path.parent if path.parent.is_dir() else DEFAULT_FOLDER)]
        hint = did_you_mean(path.name, near) if near else "make one with `hnx export`"
        raise HnxError(f"There is no bundle {path}", why="the path does not exist", fix=hint)
    raise HnxError(
        f"{path} is not a bundle",
        why="a bundle is a folder with manifest.json, or an .onnx file",
        fix="make one with `hnx export`",
    )
