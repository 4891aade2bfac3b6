"""What is written beside and into a network: `manifest.json` and the metadata of the files."""

from __future__ import annotations

import json
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from export.config import ExportConfig
from export.proof import Proof
from export.source import Source
from hybridnets.bundle import SCHEMA_VERSION, GraphForm
from hybridnets.onnx_header import OnnxHeader, TensorSpec
from hybridnets.preprocess import PAD_VALUE
from hybridnets.version import __version__

__all__ = ["make_manifest", "onnx_metadata", "weight_metadata"]

_TOOLS = ("torch", "onnx", "onnxsim", "onnxruntime", "numpy", "opencv-python-headless", "safetensors", "timm")
_INPUTS = {
    "float32": {"layout": "NCHW", "colour": "RGB", "range": "(v / 255 - mean) / std"},
    "uint8": {"layout": "NHWC", "colour": "BGR", "range": "0 to 255"},
}


def onnx_metadata(source: Source, form: GraphForm) -> dict[str, str]:
    """What a consumer of the ONNX file alone must know, as its metadata_props."""
    project, image = source.project, _INPUTS[form.input]
    return {
        "hnx_version": __version__,
        "classes": json.dumps(project.classes),
        "seg_classes": json.dumps(project.seg_list),
        "seg_mode": source.model.config.seg_mode,
        "mean": json.dumps(project.mean),
        "std": json.dumps(project.std),
        "input": f"{image['layout']} {image['colour']}, {image['range']}, letterboxed with grey {PAD_VALUE}",
        "anchors": json.dumps(project.anchors.to_json()),
        "pipeline": json.dumps(form.to_json()),
    }


def weight_metadata(source: Source) -> dict[str, Any]:
    """What makes a checkpoint of the weights file."""
    project = source.project
    return {
        "classes": project.classes,
        "seg_classes": project.seg_list,
        "anchors": {"scales": project.anchors.scales, "ratios": project.anchors.ratios},
        "mean": project.mean,
        "std": project.std,
    }


def make_manifest(
    config: ExportConfig, source: Source, header: OnnxHeader, onnx_name: str, anchor_file: str | None, proof: Proof
) -> dict[str, Any]:
    """`manifest.json`, but for the rewrites and the files.

    Args:
        header: of the network's file.
        onnx_name, anchor_file: names inside the bundle.
    """
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
        "inputs": [{**_spec(header.inputs[0]), **_INPUTS[config.form.input]}],
        "outputs": [{**_spec(spec), "role": spec.name} for spec in header.outputs],
        "pipeline": config.form.to_json(),
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
