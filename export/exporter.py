"""Bundles: load, trace, simplify, rewrite, fuse, prove, and only then write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.config import ExportConfig
from export.fused import FusedGraph, FusedProof, fuse, prove_fused
from export.graph import add_anchor_output, save, simplify, trace
from export.manifest import make_manifest, onnx_metadata, weight_metadata
from export.proof import Proof, prove
from export.replaced import lost
from export.rewrites import REWRITES, PassReport, apply_rewrites
from export.source import Source, check_request, load_source
from hybridnets.anchors import make_anchors, to_cxcywh
from hybridnets.bundle import MANIFEST, Bundle, bundle_name, open_bundle
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import atomic_directory, read_json, sha256_file, write_json
from hybridnets.onnx_header import read_onnx_header
from hybridnets.preprocess import Preprocessor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ExportResult", "export_bundles", "require_packages"]


@dataclass(frozen=True)
class ExportResult:
    """One written bundle.

    Attributes:
        replaced: what the bundle that lay there had, and this one has not; see `export.replaced.lost`.
    """

    bundle: Bundle
    proof: Proof
    bytes: int
    rewrites: tuple[PassReport, ...] = ()
    replaced: tuple[str, ...] = ()


def export_bundles(config: ExportConfig, on_step: Callable[[str], None] = lambda _: None) -> list[ExportResult]:
    """Write one proved bundle for each size.

    Args:
        on_step: told what happens next, for a status line.

    Raises:
        HnxError: missing packages (exit code 4), a bad checkpoint, project or folder, or a failed proof. What could
            not be proved is not written; bundles of earlier sizes stay.
    """
    check_request(config)
    require_packages()
    on_step("loading the network")
    source = load_source(config)
    results = []
    for width, height in config.sizes:
        network = source.model.config
        name = bundle_name(network.compound_coef, width, height, network.backbone, config.form)
        target = config.output / name
        _refuse_foreign(target)
        with atomic_directory(target) as folder:
            proof, rewrites = _write(config, source, (width, height), folder, partial(_prefixed, on_step, name))
            replaced = lost(_manifest_of(target), read_json(folder / MANIFEST))
        total = sum(path.stat().st_size for path in target.iterdir())
        results.append(ExportResult(open_bundle(target, verify=False), proof, total, rewrites, replaced))
    return results


def _manifest_of(target: Path) -> Any:
    """The manifest of the bundle that is there; None where there is none, or one that cannot be read."""
    try:
        return read_json(target / MANIFEST)
    except HnxError:
        return None


def _prefixed(on_step: Callable[[str], None], name: str, text: str) -> None:
    on_step(f"{name}: {text}")


def require_packages() -> None:
    """Refuse to begin without what an export needs.

    Raises:
        HnxError: a package is missing (exit code 4).
    """
    for module in ("torch", "onnx", "onnxsim", "onnxruntime", "safetensors"):
        try:
            __import__(module)
        except ImportError as error:
            raise HnxError(
                "Exporting needs packages that are not installed here",
                why=f"{module}: {error}",
                fix='pip install -e ".[export]"',
                code=ExitCode.NOTHING_RAN,
            ) from error


def _refuse_foreign(target: Path) -> None:
    """Replacing an older bundle is fine, replacing somebody's folder is not."""
    if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise HnxError(
            f"{target} exists and is not a bundle", why="it would be replaced", fix="move it away, or use -o FOLDER"
        )


def _write(
    config: ExportConfig, source: Source, size: tuple[int, int], folder: Path, on_step: Callable[[str], None]
) -> tuple[Proof, tuple[PassReport, ...]]:
    width, height = size
    project, model = source.project, source.model
    on_step("tracing")
    proto = trace(
        source.deployed, size, opset=config.opset, outputs=config.output_order, dynamic_batch=config.dynamic_batch
    )
    on_step("simplifying")
    proto = simplify(proto)
    on_step("rewriting")
    proto, rewrites = apply_rewrites(proto, tuple(REWRITES) if config.rewrites is None else config.rewrites)
    anchors = make_anchors(width, height, project.anchors) if "det" in config.heads else None
    if anchors is not None and "anchors-output" in config.layout:
        add_anchor_output(proto, anchors)
    fused = None
    if config.form.fused:
        on_step("fusing")
        fused = fuse(
            proto,
            config.form,
            size=size,
            seg_mode=model.config.seg_mode,
            mean=project.mean,
            std=project.std,
            anchors=anchors,
        )
        proto = fused.model
    onnx_path = folder / f"hybridnets_{height}x{width}.onnx"
    save(proto, onnx_path, external_data=config.external_data, metadata=onnx_metadata(source, config.form))
    on_step("proving it against PyTorch")
    proof = _prove(config, source, size, onnx_path, fused, anchors)
    anchor_file = None
    if anchors is not None:
        anchor_file = _write_anchors(config, anchors, size, folder)
    if config.include_weights:
        from hybridnets.checkpoint import save_safetensors

        save_safetensors(folder / "weights.safetensors", model, weight_metadata(source))
    manifest = make_manifest(config, source, read_onnx_header(onnx_path), onnx_path.name, anchor_file, proof)
    manifest["rewrites"] = [report.to_json() for report in rewrites]
    manifest["files"] = {
        path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())
    }
    write_json(folder / MANIFEST, manifest)
    return proof, rewrites


def _prove(
    config: ExportConfig,
    source: Source,
    size: tuple[int, int],
    path: Path,
    fused: FusedGraph | None,
    anchors: NDArray[np.float32] | None,
) -> Proof:
    width, height = size
    project, model = source.project, source.model
    preprocess = Preprocessor((height, width), project.mean, project.std, form=config.form.input)
    if fused is None:
        return prove(path, model, preprocess, tolerance=config.tolerance, dynamic_batch=config.dynamic_batch)
    check = FusedProof(
        config.form, anchors, (height, width), model.config.seg_mode, len(project.classes), config.tolerance
    )
    return prove_fused(fused, path, model, preprocess, check, dynamic_batch=config.dynamic_batch)


def _write_anchors(config: ExportConfig, anchors: Any, size: tuple[int, int], folder: Path) -> str:
    import numpy as np

    width, height = size
    name = f"anchor_{height}_{width}.npy"
    np.save(folder / name, anchors)
    if "anchors-cxcywh" in config.layout:
        np.save(folder / f"anchors_cxcywh_{height}_{width}.npy", to_cxcywh(anchors))
    if "anchors-bin" in config.layout:
        (folder / f"anchors_{anchors.size}.bin").write_bytes(to_cxcywh(anchors).astype("<f4").tobytes())
    return name
