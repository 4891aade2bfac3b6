"""Graphs in every form, and bundles of them, for tests: of a toy that takes a millisecond, and of the small network."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.fused import FusedGraph, fuse
from export.fused.synthetic import busy_street
from hybridnets.anchors import make_anchors
from hybridnets.bundle import Bundle, GraphForm, NmsForm, open_bundle
from hybridnets.config import SegMode
from hybridnets.files import sha256_file
from hybridnets.onnx_header import read_onnx_header

SIZE = (256, 128)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FORMS = [
    GraphForm(image, segmentation, detection, NmsForm() if detection == "nms" else None)  # type: ignore[arg-type]
    for image, segmentation, detection in itertools.product(
        ("float32", "uint8"), ("logits", "classmap", "lowres"), ("raw", "decoded", "nms")
    )
]


def name_of(form: GraphForm) -> str:
    """For the ids of tests."""
    return f"{form.input}-{form.segmentation}-{form.detection}"


def toy(
    *, classes: int = 1, channels: int = 3, opset: int = 17, batch: int | str = 1, border: bool = False
) -> onnx.ModelProto:
    """A plain graph with the shapes of a 256x128 network: boxes as on a busy street, and some picture of the image.

    Args:
        border: pad with a node of its own before the first convolution, as some backbones do.
    """
    width, height = SIZE
    random = np.random.default_rng(0)
    raw = busy_street(make_anchors(width, height), (height, width), classes)
    count = raw["regression"].shape[1]
    constants = {
        "stem": random.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32),
        "head": random.normal(0, 1, (channels, 8, 1, 1)).astype(np.float32),
        "scales": np.array([1, 1, 4, 4], np.float32),
        "offsets": raw["regression"],
        "scores": raw["classification"],
        "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64),
        "small": np.array([0.01], np.float32),
        "none": np.array([0], np.float32),
    }
    if opset < 13:
        constants["roi"] = np.zeros(0, np.float32)
    stem = ("padded", (0, 0, 0, 0)) if border else ("input", (0, 0, 1, 1))
    nodes = [
        *([helper.make_node("Pad", ["input", "pads"], ["padded"], "pad")] if border else []),
        helper.make_node(
            "Conv", [stem[0], "stem"], ["features"], "/encoder/_conv_stem/Conv", strides=[4, 4], pads=stem[1]
        ),
        helper.make_node("Tanh", ["features"], ["active"], "tanh"),
        helper.make_node("Conv", ["active", "head"], ["low"], "/segmentation_head/Conv"),
        helper.make_node(
            "Resize",
            ["low", "roi" if opset < 13 else "", "scales"],
            ["segmentation"],
            "resize",
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
        # the image moves the boxes a little, so that they depend on it
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"], "pool"),
        helper.make_node("ReduceMean", ["pooled"], ["mean"], "mean", axes=[1, 3], keepdims=0),  # (N, 1)
        helper.make_node("Mul", ["mean", "small"], ["moved"], "move"),
        helper.make_node("Unsqueeze", ["moved", "axis"] if opset >= 13 else ["moved"], ["shift"], "unsqueeze"),
        helper.make_node("Add", ["offsets", "shift"], ["regression"], "regressor"),
        helper.make_node("Mul", ["shift", "none"], ["still"], "still"),
        helper.make_node("Add", ["scores", "still"], ["classification"], "classifier"),
    ]
    if opset >= 13:
        constants["axis"] = np.array([2], np.int64)
    else:
        nodes[-4].attribute.append(helper.make_attribute("axes", [2]))
    if opset >= 18:
        constants["mean_axes"] = np.array([1, 3], np.int64)
        mean = next(node for node in nodes if node.name == "mean")
        mean.input.append("mean_axes")
        del mean.attribute[:]
        mean.attribute.append(helper.make_attribute("keepdims", 0))
    outputs = [
        ("regression", [batch, count, 4]),
        ("classification", [batch, count, classes]),
        ("segmentation", [batch, channels, height, width]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, height, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


# name of a weight -> factor, and what is added
_LIVELIER = {
    "classifier.header.pointwise_conv.conv.weight": (400.0, 0.0),
    "classifier.header.pointwise_conv.conv.bias": (1.0, 1.3),
    "regressor.header.pointwise_conv.conv.weight": (60.0, 0.0),
}


def lively(bundle_path: Path) -> onnx.ModelProto:
    """The graph of the suite's untrained bundle, with heads turned up until they find some hundred boxes."""
    model = onnx.load(bundle_path / "hybridnets_128x256.onnx")
    changed = 0
    for tensor in model.graph.initializer:
        if tensor.name.removeprefix("model.") in _LIVELIER:
            factor, shift = _LIVELIER[tensor.name.removeprefix("model.")]
            value = numpy_helper.to_array(tensor) * np.float32(factor) + np.float32(shift)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
            changed += 1
    assert changed == len(_LIVELIER)
    return model


def _lively_weights(path: Path) -> None:
    """The same for the weights that the torch runtime reads."""
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, (factor, shift) in _LIVELIER.items():
        state[name] = state[name] * np.float32(factor) + np.float32(shift)
    safetensors.numpy.save_file(state, path, metadata)


def lively_bundle(folder: Path, form: GraphForm, base: Path) -> Bundle:
    """A bundle of the turned-up network in a form, for every runtime."""
    model = lively(base)
    return write_bundle(folder, fused(model, form).model if form.fused else model, form, base, weights=True)


def fused(model: onnx.ModelProto, form: GraphForm, seg_mode: SegMode = "multiclass") -> FusedGraph:
    """A plain 256x128 graph in another form."""
    anchors: NDArray[np.float32] | None = make_anchors(*SIZE)
    if "regression" not in {output.name for output in model.graph.output}:
        anchors = None
    return fuse(model, form, size=SIZE, seg_mode=seg_mode, mean=MEAN, std=STD, anchors=anchors)


def write_bundle(
    folder: Path, model: onnx.ModelProto, form: GraphForm, base: Path, *, weights: bool = False, **changes: object
) -> Bundle:
    """A bundle of a graph in a form, with the anchors, weights and manifest of another one.

    Args:
        weights: turn them up as `lively` does.
        changes: keys of the manifest to replace.
    """
    shutil.copytree(base, folder)
    path, state = folder / "hybridnets_128x256.onnx", folder / "weights.safetensors"
    onnx.save(model, path)
    if weights:
        _lively_weights(state)
    manifest = json.loads((folder / "manifest.json").read_text())
    header = read_onnx_header(path)
    manifest["pipeline"] = form.to_json()
    manifest["inputs"] = [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape)} for s in header.inputs]
    manifest["outputs"] = [
        {"name": s.name, "dtype": s.dtype, "shape": list(s.shape), "role": s.name} for s in header.outputs
    ]
    for file in (path, state):
        manifest["files"][file.name] = {"sha256": sha256_file(file), "bytes": file.stat().st_size}
    manifest.update(changes)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return open_bundle(folder)
