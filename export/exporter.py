"""Bundles: load, trace, simplify, prove, and only then write."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.config import ExportConfig
from export.graph import add_anchor_output, save, simplify, trace
from export.proof import Proof, prove
from export.rewrites import REWRITES, PassReport, apply_rewrites
from hybridnets.anchors import AnchorRule, make_anchors, to_cxcywh
from hybridnets.bundle import MANIFEST, SCHEMA_VERSION, Bundle, bundle_name, open_bundle
from hybridnets.config import ModelConfig, check_normalisation
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import atomic_directory, sha256_file, write_json
from hybridnets.onnx_header import OnnxHeader, TensorSpec, read_onnx_header
from hybridnets.preprocess import PAD_VALUE
from hybridnets.project import DEFAULT_PROJECT, Project, load_project
from hybridnets.version import __version__

if TYPE_CHECKING:
    from hybridnets.network.model import HybridNets

__all__ = ["ExportResult", "export_bundles"]

_TOOLS = ("torch", "onnx", "onnxsim", "onnxruntime", "numpy", "opencv-python-headless", "safetensors", "timm")


@dataclass(frozen=True)
class ExportResult:
    """One written bundle."""

    bundle: Bundle
    proof: Proof
    bytes: int
    rewrites: tuple[PassReport, ...] = ()


@dataclass(frozen=True)
class _Source:
    """The network to export, and where it came from; `deployed` is the form that is traced."""

    model: HybridNets
    deployed: HybridNets
    project: Project
    origin: dict[str, Any]


def export_bundles(config: ExportConfig, on_step: Callable[[str], None] = lambda _: None) -> list[ExportResult]:
    """Write one proved bundle for each size.

    Args:
        on_step: told what happens next, for a status line.

    Raises:
        HnxError: missing packages (exit code 4), a bad checkpoint, project or folder, or a failed proof. What could
            not be proved is not written; bundles of earlier sizes stay.
    """
    _require_packages()
    on_step("loading the network")
    source = _load(config)
    results = []
    for width, height in config.sizes:
        name = bundle_name(source.model.config.compound_coef, width, height, source.model.config.backbone)
        target = config.output / name
        _refuse_foreign(target)
        with atomic_directory(target) as folder:
            proof, rewrites = _write(config, source, (width, height), folder, partial(_prefixed, on_step, name))
        total = sum(path.stat().st_size for path in target.iterdir())
        results.append(ExportResult(open_bundle(target, verify=False), proof, total, rewrites))
    return results


def _prefixed(on_step: Callable[[str], None], name: str, text: str) -> None:
    on_step(f"{name}: {text}")


def _require_packages() -> None:
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


def _load(config: ExportConfig) -> _Source:
    from hybridnets.checkpoint import build_model, infer_config, load_checkpoint

    if config.weights is None:
        return _untrained(config)
    checkpoint = load_checkpoint(config.weights)
    found = infer_config(
        checkpoint.state,
        activation=config.activation or "swish",
        backbone=config.backbone,
        metadata=checkpoint.metadata,
    )
    carried = config.project is None and "classes" in checkpoint.metadata
    project = _carried_project(config.weights, checkpoint.metadata, found) if carried else _named_project(config)
    if config.activation not in (None, found.activation):
        raise HnxError(
            f"{config.weights} was trained with {found.activation}, {config.activation} was asked for",
            why="another activation makes another network of the same weights",
            fix="leave --activation out",
            code=ExitCode.USAGE,
        )
    expected = ModelConfig(
        compound_coef=found.compound_coef if config.compound_coef is None else config.compound_coef,
        num_classes=len(project.classes),
        seg_classes=len(project.seg_list),
        seg_mode=project.seg_mode,
        activation=found.activation,
        backbone=found.backbone,
    )
    model = build_model(checkpoint, expected)
    origin = {
        "file": config.weights.name,
        "sha256": checkpoint.sha256,
        "layout": checkpoint.layout,
    }
    return _Source(model, model.deployed(), project, {"untrained": False, "source": origin})


def _untrained(config: ExportConfig) -> _Source:
    from hybridnets.network.weights import create_model

    project = _named_project(config)
    model = create_model(
        ModelConfig(
            compound_coef=3 if config.compound_coef is None else config.compound_coef,
            num_classes=len(project.classes),
            seg_classes=len(project.seg_list),
            seg_mode=project.seg_mode,
            activation=config.activation or "swish",
            backbone=config.backbone,
        ),
        config.seed,
    ).eval()
    return _Source(model, model.deployed(), project, {"untrained": True, "source": {"seed": config.seed}})


def _named_project(config: ExportConfig) -> Project:
    return load_project(config.project or DEFAULT_PROJECT)


def _carried_project(weights: Path, metadata: dict[str, Any], found: ModelConfig) -> Project:
    """The project that stands in the metadata of a checkpoint; anybody may have written them."""
    import dataclasses

    try:
        mean, std, rule = metadata["mean"], metadata["std"], metadata["anchors"]
        check_normalisation(mean, std)
        return dataclasses.replace(
            Project(),
            name="checkpoint",
            classes=_texts(metadata["classes"]),
            combine=(),
            seg_list=_texts(metadata["seg_classes"]),
            seg_multilabel=found.seg_mode == "multilabel",
            mean=tuple(mean),
            std=tuple(std),
            anchors=AnchorRule(
                tuple(float(v) for v in rule["scales"]), tuple((float(w), float(h)) for w, h in rule["ratios"])
            ),
        )
    except (HnxError, KeyError, TypeError, ValueError, OverflowError) as error:
        why = f"the key {error} is missing" if isinstance(error, KeyError) else str(error).replace("\n", ";")
        raise HnxError(
            f"Cannot use the metadata of {weights}",
            why=why,
            fix=f"name the project instead, for example -p {DEFAULT_PROJECT}",
        ) from error


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise ValueError("its class names are not a list of texts")
    return tuple(value)


def _write(
    config: ExportConfig, source: _Source, size: tuple[int, int], folder: Path, on_step: Callable[[str], None]
) -> tuple[Proof, tuple[PassReport, ...]]:
    from hybridnets.preprocess import Preprocessor

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
    onnx_path = folder / f"hybridnets_{height}x{width}.onnx"
    save(proto, onnx_path, external_data=config.external_data, metadata=_onnx_metadata(source))
    on_step("proving it against PyTorch")
    preprocess = Preprocessor((height, width), project.mean, project.std)
    proof = prove(onnx_path, model, preprocess, tolerance=config.tolerance, dynamic_batch=config.dynamic_batch)
    anchor_file = None
    if anchors is not None:
        anchor_file = _write_anchors(config, anchors, size, folder)
    if config.include_weights:
        from hybridnets.checkpoint import save_safetensors

        save_safetensors(folder / "weights.safetensors", model, _weight_metadata(source))
    manifest = _manifest(config, source, read_onnx_header(onnx_path), onnx_path.name, anchor_file, proof)
    manifest["rewrites"] = [report.to_json() for report in rewrites]
    manifest["files"] = {
        path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())
    }
    write_json(folder / MANIFEST, manifest)
    return proof, rewrites


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


def _onnx_metadata(source: _Source) -> dict[str, str]:
    """What a consumer of the ONNX file alone must know, as its metadata_props."""
    project = source.project
    return {
        "hnx_version": __version__,
        "classes": json.dumps(project.classes),
        "seg_classes": json.dumps(project.seg_list),
        "seg_mode": source.model.config.seg_mode,
        "mean": json.dumps(project.mean),
        "std": json.dumps(project.std),
        "input": "RGB, (v / 255 - mean) / std, letterboxed with grey 114",
        "anchors": json.dumps(project.anchors.to_json()),
    }


def _weight_metadata(source: _Source) -> dict[str, Any]:
    project = source.project
    return {
        "classes": project.classes,
        "seg_classes": project.seg_list,
        "anchors": {"scales": project.anchors.scales, "ratios": project.anchors.ratios},
        "mean": project.mean,
        "std": project.std,
    }


def _manifest(
    config: ExportConfig, source: _Source, header: OnnxHeader, onnx_name: str, anchor_file: str | None, proof: Proof
) -> dict[str, Any]:
    project, model = source.project, source.model.config
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": {
            "name": "hybridnets",
            "compound_coef": model.compound_coef,
            "activation": model.activation,
            "backbone": model.backbone,
            "reparametrised": source.deployed is not source.model,
            "heads": list(config.heads),
            "parameters": sum(p.numel() for p in source.model.parameters()),
            "weights": "weights.safetensors" if config.include_weights else None,
            **source.origin,
        },
        "inputs": [{**_spec(header.inputs[0]), "layout": "NCHW", "colour": "RGB", "range": "(v / 255 - mean) / std"}],
        "outputs": [{**_spec(spec), "role": spec.name} for spec in header.outputs],
        "preprocess": {
            "letterbox": "longer side to the longer input side, then shrunk to fit, centred",
            "interpolation": "area when shrinking, linear when growing",
            "pad_value": PAD_VALUE,
            "mean": list(project.mean),
            "std": list(project.std),
        },
        "classes": list(project.classes),
        "segmentation": {"mode": model.seg_mode, "classes": list(project.seg_list)},
        "anchors": {"file": anchor_file, "format": "y1,x1,y2,x2 pixels", "rule": project.anchors.to_json()},
        "variants": [{"precision": "fp32", "file": onnx_name, "opset": config.opset}],
        "project": project.name,
        "tools": _tool_versions(),
        "proof": proof.to_json(),
    }


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _tool_versions() -> dict[str, str]:
    found = {"hnx": __version__, "python": platform.python_version()}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
