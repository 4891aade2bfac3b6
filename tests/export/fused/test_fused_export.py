"""`export_bundles` with fused steps: opsets, heads, layouts, free batches; and a proof that finds wrong steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.config import ExportConfig
from export.exporter import ExportResult, export_bundles
from export.fused import FusedProof, detection, graph, prove_fused
from export.graph import save
from export.rewrites.editing import GraphEditor
from hybridnets.anchors import make_anchors
from hybridnets.bundle import GraphForm, NmsForm
from hybridnets.checkpoint import build_model, load_checkpoint
from hybridnets.data import read_demo_frame
from hybridnets.errors import HnxError
from hybridnets.network.model import HybridNets
from hybridnets.preprocess import Preprocessor
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime
from runtimes.predictor import Predictor
from tests.export.test_export import RUNNABLE
from tests.fused import FORMS, MEAN, SIZE, STD, fused, name_of

SMALL = ExportConfig(sizes=(SIZE,), compound_coef=0)
MOST = GraphForm("uint8", "classmap", "nms", NmsForm())
TARGET = (SIZE[1], SIZE[0])


def export(folder: Path, **changes: object) -> ExportResult:
    return export_bundles(dataclasses.replace(SMALL, output=folder, **changes))[0]  # type: ignore[arg-type]


def test_everything_at_once_in_the_oldest_opset(tmp_path: Path) -> None:
    layout = ("cls,reg,seg", "anchors-output", "anchors-cxcywh")
    result = export(tmp_path, form=MOST, opset=11, layout=layout)
    bundle = result.bundle
    assert bundle.name == "hybridnets_c0_128x256_uint8_classmap_nms"
    assert list(bundle.outputs) == ["detections", "segmentation", "anchors"]
    assert bundle.form == MOST
    assert bundle.input.shape == (1, 128, 256, 3)
    assert set(result.proof.outputs) == {"regression", "classification", "segmentation"}
    assert result.proof.worst[1].rel_l2 < 1e-5
    assert result.proof.fused["detections"]["matched"] == result.proof.fused["detections"]["boxes"] > 50
    assert result.proof.fused["segmentation"]["different"] == 0
    assert bundle.manifest["proof"]["fused"] == result.proof.fused
    for name in RUNNABLE:
        with open_runtime(name, bundle, RuntimeOptions(threads=1)) as runtime:
            found = runtime.infer(runtime.warm_input())
            assert np.array_equal(found["anchors"], make_anchors(*SIZE)), name
            assert {key: (value.dtype, value.shape) for key, value in found.items() if key != "anchors"} == {
                "detections": (np.float32, (1, 300, 6)),
                "segmentation": (np.uint8, (1, 128, 256)),
            }, name


def test_a_free_batch_in_the_newest_opset(tmp_path: Path) -> None:
    form = GraphForm("uint8", "lowres", "decoded")
    result = export(tmp_path, form=form, opset=20, dynamic_batch=True, external_data=True, include_weights=False)
    bundle = result.bundle
    assert bundle.input.shape == ("batch", 128, 256, 3)
    assert "batch of 2" in result.proof.inputs
    assert result.proof.fused["boxes"]["largest_relative"] < 1e-6
    assert bundle.outputs["boxes"].shape == ("batch", 6138, 4)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 128, 256, 3), np.uint8)
    for name in ("openvino", "onnxruntime"):
        with open_runtime(name, bundle, RuntimeOptions(threads=1)) as runtime:
            assert runtime.infer({"input": pictures})["segmentation"].shape == (3, 3, 32, 64)
    prediction = Predictor(open_runtime("onnxruntime", bundle, RuntimeOptions(threads=1)))(read_demo_frame())
    assert prediction.segmentation is not None
    assert prediction.segmentation.shape == (720, 1280)


@pytest.mark.slow
@pytest.mark.parametrize("opset", range(11, 21))
@pytest.mark.parametrize("form", [MOST, GraphForm("uint8", "lowres", "decoded")], ids=name_of)
def test_every_opset(tmp_path: Path, form: GraphForm, opset: int) -> None:
    result = export(tmp_path, form=form, opset=opset)
    frame = read_demo_frame()
    for name in RUNNABLE:
        with Predictor(open_runtime(name, result.bundle, RuntimeOptions(threads=1))) as predictor:
            assert predictor(frame).segmentation.shape == (720, 1280)  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heads", "form"),
    [
        (("det",), GraphForm("uint8", "logits", "nms", NmsForm())),
        (("det",), GraphForm("uint8", "logits", "decoded")),
        (("seg",), GraphForm("uint8", "classmap", "raw")),
        (("seg",), GraphForm("float32", "lowres", "raw")),
    ],
)
def test_single_heads(tmp_path: Path, heads: tuple[str, ...], form: GraphForm) -> None:
    bundle = export(tmp_path, form=form, heads=heads).bundle
    assert (bundle.detects, bundle.segments) == ("det" in heads, "seg" in heads)
    frame = read_demo_frame()
    for name in RUNNABLE:
        with Predictor(open_runtime(name, bundle, RuntimeOptions(threads=1))) as predictor:
            assert (predictor(frame).segmentation is not None) == ("seg" in heads)


@pytest.mark.parametrize("head", ["det", "seg"])
@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_graphs_of_one_head(head: str, form: GraphForm, bundle_path: Path) -> None:
    model = onnx.load(bundle_path / "hybridnets_128x256.onnx")
    kept = [o for o in model.graph.output if (o.name == "segmentation") == (head == "seg")]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    made = fused(model, form)
    expected = {"seg": ["segmentation"], "det": list(form.detection_roles)}[head]
    assert [output.name for output in made.model.graph.output] == expected


# -- the proof -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(bundle_path: Path) -> HybridNets:
    from hybridnets.bundle import open_bundle

    bundle = open_bundle(bundle_path)
    assert bundle.model is not None
    return build_model(load_checkpoint(bundle_path / "weights.safetensors"), bundle.model)


def prove(form: GraphForm, bundle_path: Path, network: HybridNets, folder: Path) -> Any:
    made = fused(onnx.load(bundle_path / "hybridnets_128x256.onnx"), form)
    path = folder / "fused.onnx"
    save(made.model, path, external_data=False, metadata={})
    check = FusedProof(form, make_anchors(*SIZE), TARGET, "multiclass", 1, 1e-4)
    preprocess = Preprocessor(TARGET, MEAN, STD, form=form.input)
    return prove_fused(made, path, network, preprocess, check)


@pytest.mark.parametrize("form", [MOST, GraphForm("float32", "lowres", "decoded")], ids=name_of)
def test_right_steps_are_proved(form: GraphForm, bundle_path: Path, network: HybridNets, tmp_path: Path) -> None:
    assert prove(form, bundle_path, network, tmp_path).fused


def _other_constant(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[np.ndarray], np.ndarray], dimensions: int = 0
) -> None:
    """Another value wherever a step adds a constant of this name (and number of dimensions)."""
    original = GraphEditor.add_constant

    def add(self: GraphEditor, value: np.ndarray, hint: str) -> str:
        meant = name in hint and dimensions in (0, value.ndim)
        return original(self, change(value).astype(value.dtype) if meant else value, hint)

    monkeypatch.setattr(GraphEditor, "add_constant", add)


MUTATIONS: dict[str, tuple[GraphForm, Callable[[pytest.MonkeyPatch], None]]] = {
    "colours in the other order": (
        GraphForm(input="uint8"),
        lambda patch: _other_constant(patch, "/pipeline/input/onnx::Conv", lambda w: w[:, ::-1], 4),
    ),
    "another mean": (
        GraphForm(input="uint8"),
        lambda patch: _other_constant(patch, "input/level", lambda v: v + 1),
    ),
    "boxes with their corners at the centre": (
        GraphForm(detection="decoded"),
        lambda patch: _other_constant(patch, "detection/half", lambda v: v * 1.001),
    ),
    "x and y exchanged": (
        GraphForm(detection="decoded"),
        lambda patch: _other_constant(patch, "detection/places", lambda v: v[::-1]),
    ),
    "clipped one pixel too late": (
        GraphForm(detection="decoded"),
        lambda patch: _other_constant(patch, "detection/last", lambda v: v + 1),
    ),
    "another overlap": (
        MOST,
        lambda patch: _other_constant(patch, "detection/iou", lambda v: v + 0.1),
    ),
    "another score": (
        MOST,
        lambda patch: _other_constant(patch, "detection/conf", lambda v: v + 0.1),
    ),
    "boxes without a size in the way": (
        MOST,
        lambda patch: patch.setattr(detection, "_solid", lambda editor, boxes, count: boxes),
    ),
    "logits of another map": (
        GraphForm(segmentation="lowres"),
        lambda patch: patch.setattr(graph, "before_enlargement", _negated),
    ),
    "classes counted from 1": (
        GraphForm(segmentation="classmap"),
        lambda patch: patch.setattr(graph, "add_class_map", _shifted),
    ),
}


def _negated(editor: GraphEditor, logits: str) -> None:
    resize = editor.maker(logits, "Resize")
    assert resize is not None
    editor.add_node("Neg", [resize.input[0]], "/pipeline/segmentation/Neg", output="segmentation")


def _shifted(editor: GraphEditor, logits: str, seg_mode: str, size: tuple[int, int]) -> None:
    one = editor.add_constant(np.array([1], np.int64), "/pipeline/segmentation/one")
    classes = editor.add_node("ArgMax", [logits], "/pipeline/segmentation/ArgMax", axis=1, keepdims=0)
    more = editor.add_node("Add", [classes, one], "/pipeline/segmentation/Add")
    editor.add_node("Cast", [more], "/pipeline/segmentation/Cast", output="segmentation", to=onnx.TensorProto.UINT8)


@pytest.mark.parametrize("name", MUTATIONS)
def test_wrong_steps_are_found(
    name: str, bundle_path: Path, network: HybridNets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form, mutate = MUTATIONS[name]
    mutate(monkeypatch)
    with pytest.raises(HnxError, match=r"is not the PyTorch network|are not what is computed outside"):
        prove(form, bundle_path, network, tmp_path)
