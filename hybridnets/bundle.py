"""Deployment bundles: the folder that `hnx export` writes and everything else reads.

A bundle holds the ONNX file, the anchors and `manifest.json`, which carries all that an edge device must know
(preprocessing, classes, anchors, hashes), so no project file and no torch are needed there. A bare ONNX file with
anchors beside it, made by any other exporter, opens as a bundle too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hybridnets.anchors import AnchorRule, anchor_count, make_anchors
from hybridnets.config import Activation, ModelConfig, SegMode, check_normalisation, check_size
from hybridnets.errors import HnxError, did_you_mean, from_os_error
from hybridnets.files import read_json, sha256_file
from hybridnets.onnx_header import OnnxHeader, TensorSpec, read_onnx_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hybridnets.preprocess import Preprocessor

__all__ = [
    "MANIFEST",
    "ROLES",
    "SCHEMA_VERSION",
    "Bundle",
    "Variant",
    "bundle_name",
    "find_bundles",
    "open_bundle",
]

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
ROLES = ("regression", "classification", "segmentation")
DEFAULT_FOLDER = Path("exports")
_EXPORT = "export it with `hnx export`"


@dataclass(frozen=True)
class Variant:
    """One form of the network inside a bundle.

    Attributes:
        precision: of its weights and arithmetic as stored, for example `fp32`.
        file: ONNX file, relative to the bundle.
        runtimes: names of the runtimes it is made for; empty means all.
    """

    precision: str
    file: str
    runtimes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Everything is checked when it is made: see `open_bundle`.

    Attributes:
        path: the folder.
        input: the image input, float32 (N, 3, H, W).
        outputs: role (`regression`, `classification`, `segmentation`, possibly `anchors`) to tensor.
        classes, seg_classes: names; the background is not listed.
        model: configuration of the network, None for files made by others.
        weights: safetensors file of the PyTorch runtime, relative to the folder, None when absent.
        manifest: the whole manifest, {} for files made by others.
    """

    path: Path
    input: TensorSpec
    outputs: Mapping[str, TensorSpec]
    classes: tuple[str, ...]
    seg_classes: tuple[str, ...]
    seg_mode: SegMode
    mean: tuple[float, ...]
    std: tuple[float, ...]
    variants: tuple[Variant, ...]
    anchors_file: str | None
    anchor_rule: AnchorRule
    model: ModelConfig | None = None
    weights: str | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Folder name, or file name for a bare ONNX."""
        return self.path.name

    @property
    def target(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return int(self.input.shape[2]), int(self.input.shape[3])

    @property
    def untrained(self) -> bool:
        """The weights are the seeded untrained default: results mean nothing, speeds do."""
        return bool(self.manifest.get("model", {}).get("untrained", False))

    def variant(self, precision: str, runtime: str) -> Variant:
        """The stored form that serves a precision on a runtime.

        Raises:
            HnxError: the bundle has none.
        """
        for variant in self.variants:
            if variant.precision == precision and (not variant.runtimes or runtime in variant.runtimes):
                return variant
        stored = ", ".join(sorted({v.precision for v in self.variants}))
        raise HnxError(
            f"Bundle {self.name} has no {precision} variant for {runtime}",
            why=f"it stores: {stored}",
            fix="export a bundle with that variant",
        )

    def file(self, relative: str) -> Path:
        """Absolute place of a file of the bundle."""
        return self.path / relative if self.path.is_dir() else self.path.parent / relative

    def anchors(self) -> NDArray[np.float32] | None:
        """float32 (1, A, 4) y1, x1, y2, x2 in input pixels; None when there is no detection output.

        Raises:
            HnxError: the file is corrupt or does not fit the network.
        """
        import numpy as np

        if "regression" not in self.outputs:
            return None
        height, width = self.target
        if self.anchors_file is None:
            return make_anchors(width, height, self.anchor_rule)
        path = self.file(self.anchors_file)
        try:
            anchors = np.load(path, allow_pickle=False)
        except OSError as error:
            if error.errno is None:  # numpy's own word for a file it cannot parse
                raise _bad_anchors(path, str(error)) from error
            raise from_os_error(f"Cannot read anchors {path}", error) from error
        except (ValueError, EOFError, MemoryError) as error:
            raise _bad_anchors(path, str(error)) from error
        expected = (1, anchor_count(width, height), 4)
        if not isinstance(anchors, np.ndarray) or anchors.dtype.kind != "f" or anchors.shape != expected:
            found = f"{getattr(anchors, 'dtype', type(anchors).__name__)} {getattr(anchors, 'shape', '')}"
            raise _bad_anchors(path, f"it holds {found}, the network needs floats of shape {expected}")
        if not (np.abs(anchors) < 1e9).all():  # NaN too; boxes of larger ones would leave the range of float32
            raise _bad_anchors(path, "it holds values that are not finite")
        return np.ascontiguousarray(anchors, np.float32)

    def preprocessor(self) -> Preprocessor:
        """A new preprocessor for this bundle's input."""
        from hybridnets.preprocess import Preprocessor

        return Preprocessor(self.target, self.mean, self.std)


def _bad_anchors(path: Path, why: str) -> HnxError:
    return HnxError(f"Cannot use anchors {path}", why=why, fix="export the bundle again")


def bundle_name(compound_coef: int, width: int, height: int) -> str:
    """Folder name of a bundle.

    >>> bundle_name(3, 640, 384)
    'hybridnets_c3_384x640'
    """
    return f"hybridnets_c{compound_coef}_{height}x{width}"


def find_bundles(folder: Path = DEFAULT_FOLDER) -> list[Path]:
    """Bundle folders below `folder`, newest first."""
    try:
        found = [path.parent for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
        return sorted(found, key=lambda path: (path / MANIFEST).stat().st_mtime_ns, reverse=True)
    except OSError as error:
        raise from_os_error(f"Cannot look for bundles in {folder}", error) from error


def open_bundle(path: Path | str, *, verify: bool = True) -> Bundle:
    """Open a bundle folder, its manifest, or a bare ONNX file (or a folder holding exactly one).

    Args:
        verify: compare the SHA-256 of every file with the manifest (30 ms for the 54 MB of c3).

    Raises:
        HnxError: not a bundle, a newer schema, a damaged or changed file.
    """
    path = Path(path)
    if path.name == MANIFEST:
        path = path.parent
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return _open_manifest(path, verify)
        models = sorted(path.glob("*.onnx"))
        if len(models) == 1:
            return _open_bare(models[0])
        why = "it holds no manifest.json and no .onnx file" if not models else "it holds several .onnx files"
        raise HnxError(f"{path} is not a bundle", why=why, fix="make one with `hnx export`, or name one .onnx file")
    if path.suffix == ".onnx" and path.is_file():
        manifest = path.parent / MANIFEST
        if manifest.is_file() and path.name in _files_of(read_json(manifest)):
            return _open_manifest(path.parent, verify)
        return _open_bare(path)
    if not path.exists():
        near = [p.name for p in find_bundles(path.parent if path.parent.is_dir() else DEFAULT_FOLDER)]
        hint = did_you_mean(path.name, near) if near else "make one with `hnx export`"
        raise HnxError(f"There is no bundle {path}", why="the path does not exist", fix=hint)
    raise HnxError(
        f"{path} is not a bundle",
        why="a bundle is a folder with manifest.json, or an .onnx file",
        fix="make one with `hnx export`",
    )


def _files_of(manifest: Any) -> dict[str, Any]:
    files = manifest.get("files") if isinstance(manifest, dict) else None
    return files if isinstance(files, dict) else {}


def _open_manifest(path: Path, verify: bool) -> Bundle:
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
    _check_files(bundle, records, verify)
    for variant in bundle.variants:
        if variant.file.endswith(".onnx"):
            _check_header(where, bundle, read_onnx_header(path / variant.file))
    return bundle


def _cannot_use(where: Path, error: HnxError) -> HnxError:
    return HnxError(f"Cannot use {where}", why=f"{error.what}. {error.why}".strip(), fix="export the bundle again")


def _records(manifest: Any) -> dict[str, tuple[int, str]]:
    """File name to size and SHA-256."""
    return {_member(name): (int(v["bytes"]), str(v["sha256"])) for name, v in _files_of(manifest).items()}


def _check_files(bundle: Bundle, records: Mapping[str, tuple[int, str]], verify: bool) -> None:
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
    for name, (size, digest) in records.items():
        member = path / name
        if not member.is_file():
            raise HnxError(
                f"Bundle {path} is incomplete",
                why=f"{name} is missing",
                fix="copy the whole folder, or export again",
            )
        if member.stat().st_size != size or (verify and sha256_file(member) != digest):
            raise HnxError(
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


def _check_tensors(bundle: Bundle) -> Bundle:
    """Refuse a network that pre- and postprocessing cannot serve; sizes that are free may be anything.

    Raises:
        HnxError: says which tensor is wrong.
    """
    height, width = bundle.target
    channels = 1 if bundle.seg_mode == "binary" else len(bundle.seg_classes) + 1
    count = anchor_count(width, height)
    expected: dict[str, tuple[int, ...]] = {
        "regression": (1, count, 4),
        "classification": (1, count, len(bundle.classes)),
        "segmentation": (1, channels, height, width),
        "anchors": (1, count, 4),
    }
    checked = [(bundle.input, (1, 3, height, width)), *((s, expected[r]) for r, s in bundle.outputs.items())]
    for spec, shape in checked:
        # a shape that is left out entirely is allowed: runtimes infer it
        fits = not spec.shape or (
            len(spec.shape) == len(shape)
            and all(isinstance(v, str) or v == want for v, want in zip(spec.shape, shape, strict=True))
        )
        if not fits or spec.dtype != "float32":
            raise HnxError(
                f"Its tensor {spec} does not fit",
                why=f"with {len(bundle.classes)} detection and {len(bundle.seg_classes)} segmentation class(es) "
                f"({bundle.seg_mode}) it would be float32 {'x'.join(map(str, shape))}",
            )
    return bundle


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
    if len(tensor.shape) != 4:
        raise ValueError("the input is not N x 3 x H x W")
    check_size(int(tensor.shape[3]), int(tensor.shape[2]))
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
        ),
        weights=None if weights is None else _member(weights),
        manifest=manifest,
    )
    if not bundle.variants or not bundle.outputs:
        raise ValueError("it lists no network or no outputs")
    return _check_tensors(bundle)


def _tensor(value: Mapping[str, Any]) -> TensorSpec:
    shape = value["shape"]
    if not isinstance(shape, list) or any(isinstance(v, bool) or not isinstance(v, int | str) for v in shape):
        raise ValueError("a shape is not a list of numbers and names")
    return TensorSpec(str(value["name"]), str(value["dtype"]), tuple(shape))


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ValueError("class names are not a list of texts")
    return tuple(value)


def _one_of(value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return value


def _open_bare(path: Path) -> Bundle:
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
        return _check_tensors(bundle)
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
