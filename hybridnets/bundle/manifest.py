"""Bundle folders: `manifest.json` read with suspicion, and the files it lists held against their hashes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from hybridnets.anchors import AnchorRule
from hybridnets.bundle.form import GraphForm
from hybridnets.bundle.model import ROLES, Bundle, Variant, check_tensors
from hybridnets.config import Activation, ModelConfig, SegMode, check_normalisation, check_size
from hybridnets.errors import HnxError
from hybridnets.files import read_json, sha256_file
from hybridnets.onnx_header import OnnxHeader, TensorSpec, read_onnx_header

__all__ = ["MANIFEST", "SCHEMA_VERSION", "check_weights", "files_of", "open_manifest"]

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
# files whose SHA-256 is computed at once
_HASHERS = 4


def files_of(manifest: Any) -> dict[str, Any]:
    """The file records of a manifest; {} where it has none."""
    files = manifest.get("files") if isinstance(manifest, dict) else None
    return files if isinstance(files, dict) else {}


def check_weights(bundle: Bundle) -> None:
    """Compare the SHA-256 of a bundle's weights with its manifest, where that was put off when it was opened.

    Raises:
        HnxError: they are not those that were exported, or cannot be read.
    """
    name = bundle.weights
    if name is None or not bundle.digests or name in bundle.digests:
        return
    if sha256_file(bundle.file(name)) != files_of(bundle.manifest)[name]["sha256"]:
        raise _changed(bundle.path, name)


def open_manifest(path: Path, verify: bool, weights: bool) -> Bundle:
    """The bundle in a folder that holds a manifest.

    Args:
        verify: compare the SHA-256 of every file, not only its size.
        weights: of PyTorch's weights, too.

    Raises:
        HnxError: not a manifest of ours, a newer schema, a missing, damaged or changed file.
    """
    where = path / MANIFEST
    manifest = read_json(where, limit=16 << 20)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise HnxError(
            f"Cannot use {where}",
            why="it has no schema_version: it is not a manifest of hnx",
            fix="export the bundle again",
        )
    if version > SCHEMA_VERSION:
        raise HnxError(
            f"Cannot use {where}",
            why=f"its schema version is {version}, this hnx reads {SCHEMA_VERSION}",
            fix="update hnx",
        )
    try:
        bundle = _from_manifest(path, manifest)
        records = _records(manifest)
    except HnxError as error:
        raise _cannot_use(where, error) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        reason = (
            f"the key {error} is missing" if isinstance(error, KeyError) else f"a value has the wrong form ({error})"
        )
        raise HnxError(f"Cannot use {where}", why=reason, fix="export the bundle again") from error
    compared = records if verify else {}
    if not weights:
        compared = {name: record for name, record in compared.items() if name != bundle.weights}
    _check_files(bundle, records, compared)
    for variant in bundle.variants:
        if variant.file.endswith(".onnx"):
            _check_header(where, bundle, read_onnx_header(path / variant.file))
    return replace(bundle, digests={name: digest for name, (_, digest) in compared.items()})


def _cannot_use(where: Path, error: HnxError) -> HnxError:
    return HnxError(f"Cannot use {where}", why=f"{error.what}. {error.why}".strip(), fix="export the bundle again")


def _records(manifest: Any) -> dict[str, tuple[int, str]]:
    """File name to size and SHA-256."""
    return {_member(name): (int(v["bytes"]), str(v["sha256"])) for name, v in files_of(manifest).items()}


def _check_files(
    bundle: Bundle, records: Mapping[str, tuple[int, str]], compared: Mapping[str, tuple[int, str]]
) -> None:
    path = bundle.path
    needed = {variant.file for variant in bundle.variants}
    needed |= {name for name in (bundle.anchors_file, bundle.weights) if name is not None}
    unlisted = needed - records.keys()
    if unlisted:
        raise HnxError(
            f"Cannot use {path / MANIFEST}",
            why=f"no hash is recorded for {', '.join(sorted(unlisted))}",
            fix="export the bundle again",
        )
    for name, (size, _) in records.items():
        member = path / name
        if not member.is_file():
            raise HnxError(
                f"Bundle {path} is incomplete",
                why=f"{name} is missing",
                fix="copy the whole folder, or export again",
            )
        if member.stat().st_size != size:
            raise _changed(path, name)
    # 75 ms one after the other for the two large files of c3; sums are computed outside Python's lock
    with ThreadPoolExecutor(_HASHERS) as pool:
        found = pool.map(sha256_file, [path / name for name in compared])
        for (name, (_, digest)), real in zip(compared.items(), found, strict=True):
            if real != digest:
                raise _changed(path, name)


def _changed(path: Path, name: str) -> HnxError:
    return HnxError(
        f"Bundle {path} has changed since it was exported",
        why=f"{name} is not the file that was proved (its SHA-256 differs from the manifest's)",
        fix="copy the bundle again, or export again",
    )


def _check_header(where: Path, bundle: Bundle, header: OnnxHeader) -> None:
    """The manifest and the network must speak of the same tensors, or a runtime fails in words of its own."""
    for told, real in (([bundle.input], header.inputs), ([*bundle.outputs.values()], header.outputs)):
        if sorted(map(str, told)) != sorted(map(str, real)):
            raise HnxError(
                f"Cannot use {where}",
                why=f"it names {_listing(told)}; the network has {_listing(real)}",
                fix="export the bundle again",
            )


def _listing(specs: Iterable[TensorSpec]) -> str:
    return "; ".join(map(str, specs)) or "no tensors"


def _member(name: Any) -> str:
    """A file name of a manifest, refused when it leads out of the bundle."""
    if not isinstance(name, str) or len(name) > 255:
        raise ValueError(f"a file name is {str(name)[:80]}")
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts or not relative.name:
        raise HnxError(
            f"The manifest names a file outside the bundle: {name!r}",
            why="that may be an attack",
            fix="do not use this bundle",
        )
    return name


def _from_manifest(path: Path, manifest: dict[str, Any]) -> Bundle:
    model, segmentation = manifest["model"], manifest["segmentation"]
    seg_mode: SegMode = _one_of(segmentation["mode"], get_args(SegMode))
    activation: Activation = _one_of(model["activation"], get_args(Activation))
    inputs, outputs = manifest["inputs"], manifest["outputs"]
    rule = manifest["anchors"]["rule"]
    preprocess = manifest["preprocess"]
    weights = model.get("weights")
    classes, seg_classes = _names(manifest["classes"]), _names(segmentation["classes"])
    tensor = _tensor(inputs[0])
    form = GraphForm.from_json(manifest.get("pipeline"))
    height, width = form.size(tensor.shape)
    check_size(width, height)
    mean, std = (tuple(float(v) for v in preprocess[key]) for key in ("mean", "std"))
    check_normalisation(mean, std)
    bundle = Bundle(
        path=path,
        input=tensor,
        outputs={_one_of(o["role"], (*ROLES, "anchors")): _tensor(o) for o in outputs},
        classes=classes,
        seg_classes=seg_classes,
        seg_mode=seg_mode,
        mean=mean,
        std=std,
        variants=tuple(
            Variant(str(v["precision"]), _member(v["file"]), tuple(v.get("runtimes", ()))) for v in manifest["variants"]
        ),
        anchors_file=None if manifest["anchors"]["file"] is None else _member(manifest["anchors"]["file"]),
        anchor_rule=AnchorRule(
            tuple(float(v) for v in rule["scales"]),
            tuple((float(w), float(h)) for w, h in rule["ratios"]),
            float(rule["anchor_scale"]),
        ),
        model=ModelConfig(
            compound_coef=int(model["compound_coef"]),
            num_classes=len(classes),
            seg_classes=len(seg_classes),
            seg_mode=seg_mode,
            activation=activation,
            backbone=_optional_text(model.get("backbone")),
        ),
        weights=None if weights is None else _member(weights),
        manifest=manifest,
        form=form,
    )
    if not bundle.variants or not bundle.outputs:
        raise ValueError("it lists no network or no outputs")
    return check_tensors(bundle)


def _tensor(value: Mapping[str, Any]) -> TensorSpec:
    shape = value["shape"]
    if not isinstance(shape, list) or any(isinstance(v, bool) or not isinstance(v, int | str) for v in shape):
        raise ValueError("a shape is not a list of numbers and names")
    return TensorSpec(str(value["name"]), str(value["dtype"]), tuple(shape))


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ValueError("class names are not a list of texts")
    return tuple(value)


def _optional_text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r} is no name")
    return value


def _one_of(value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return value
