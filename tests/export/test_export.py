"""Every promise of the exporter, on the smallest network."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

from export import exporter, graph
from export.config import ExportConfig
from export.exporter import export_bundles
from hybridnets.anchors import make_anchors, to_cxcywh
from hybridnets.bundle import open_bundle
from hybridnets.checkpoint import load_checkpoint
from hybridnets.config import ModelConfig
from hybridnets.errors import ExitCode, HnxError
from hybridnets.network.weights import create_model
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime
from runtimes.registry import REGISTRY, probe

# whatever GPU this machine has, a CPU proves the export
RUNNABLE = [row.name for row in REGISTRY if "fp32" in probe(row).runnable() and not row.gpu]
SMALL = ExportConfig(sizes=((256, 128),), compound_coef=0)


def test_every_runtime_of_the_suite_is_there() -> None:
    assert RUNNABLE == ["openvino", "onnxruntime", "torch", "opencv-dnn"]


def export(folder: Path, **changes: object) -> exporter.ExportResult:
    """One bundle of the untrained coefficient 0."""
    return export_bundles(dataclasses.replace(SMALL, output=folder, **changes))[0]  # type: ignore[arg-type]


def load(result: exporter.ExportResult) -> onnx.ModelProto:
    """Its ONNX graph."""
    return onnx.load(result.bundle.file(result.bundle.variants[0].file))


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
def test_every_opset_is_proved_and_tidy(tmp_path: Path, opset: int) -> None:
    result = export(tmp_path, opset=opset, include_weights=False)
    proto = load(result)
    assert proto.opset_import[0].version == opset
    assert [o.name for o in proto.graph.output] == ["regression", "classification", "segmentation"]
    assert [i.name for i in proto.graph.input] == ["input"]
    kinds = {node.op_type for node in proto.graph.node}
    assert not kinds & {"Constant", "BatchNormalization", "Identity", "Shape", "Cast", "Dropout"}
    assert all(node.input[-1] for node in proto.graph.node)
    assert result.proof.worst[1].rel_l2 < 1e-5
    assert sorted(path.name for path in result.bundle.path.iterdir()) == [
        "anchor_128_256.npy", "hybridnets_128x256.onnx", "manifest.json",
    ]  # fmt: skip


def test_metadata_stands_in_the_onnx_file_too(bundle_path: Path) -> None:
    proto = onnx.load(bundle_path / "hybridnets_128x256.onnx")
    properties = {item.key: item.value for item in proto.metadata_props}
    assert json.loads(properties["classes"]) == ["car"]
    assert json.loads(properties["anchors"])["order"] == "level,y,x,scale,ratio"


@pytest.mark.parametrize(
    ("heads", "outputs"), [(("det",), ["regression", "classification"]), (("seg",), ["segmentation"])]
)
def test_heads_are_really_pruned(tmp_path: Path, heads: tuple[str, ...], outputs: list[str], bundle_path: Path) -> None:
    result = export(tmp_path, heads=heads)
    proto = load(result)
    assert [o.name for o in proto.graph.output] == outputs
    whole = onnx.load(bundle_path / "hybridnets_128x256.onnx")
    assert len(proto.graph.node) < 0.9 * len(whole.graph.node)
    assert graph.weight_bytes(proto) < graph.weight_bytes(whole)
    assert (result.bundle.anchors() is not None) == ("det" in heads)
    for name in RUNNABLE:
        with open_runtime(name, result.bundle, RuntimeOptions(threads=1)) as runtime:
            assert sorted(runtime.infer(runtime.warm_input())) == sorted(outputs)


def test_dresses_for_other_consumers(tmp_path: Path) -> None:
    layout = ("cls,reg,seg", "anchors-cxcywh", "anchors-bin", "anchors-output")
    result = export(tmp_path, layout=layout)
    assert [o.name for o in load(result).graph.output] == ["classification", "regression", "segmentation", "anchors"]
    anchors = make_anchors(256, 128)
    folder = result.bundle.path
    assert np.array_equal(np.load(folder / "anchors_cxcywh_128_256.npy"), to_cxcywh(anchors))
    assert np.array_equal(np.fromfile(folder / "anchors_24552.bin", "<f4").reshape(1, -1, 4), to_cxcywh(anchors))
    for name in RUNNABLE:
        with open_runtime(name, result.bundle, RuntimeOptions(threads=1)) as runtime:
            assert np.array_equal(runtime.infer(runtime.warm_input())["anchors"], anchors), name


@pytest.mark.parametrize("opset", [11, 17])
def test_dynamic_batch(tmp_path: Path, opset: int) -> None:
    result = export(tmp_path, dynamic_batch=True, opset=opset)
    assert result.bundle.input.shape == ("batch", 3, 128, 256)
    assert result.bundle.outputs["regression"].shape == ("batch", 6138, 4)
    assert "batch of 2" in result.proof.inputs
    with open_runtime("openvino", result.bundle, RuntimeOptions(threads=1)) as runtime:
        assert runtime.infer({"input": np.zeros((3, 3, 128, 256), np.float32)})["segmentation"].shape[0] == 3


def test_external_data_on_request_and_when_protobuf_cannot_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = export(tmp_path / "asked", external_data=True)
    monkeypatch.setattr(graph, "EXTERNAL_DATA_LIMIT", 1 << 20)
    forced = export(tmp_path / "forced")
    for result in (asked, forced):
        folder = result.bundle.path
        assert (folder / "hybridnets_128x256.onnx").stat().st_size < 1 << 20
        assert "hybridnets_128x256.onnx.data" in result.bundle.manifest["files"]
        with open_runtime("onnxruntime", open_bundle(folder), RuntimeOptions(threads=1)) as runtime:
            assert runtime.infer(runtime.warm_input())
        content = bytearray((folder / "hybridnets_128x256.onnx.data").read_bytes())
        content[1000] ^= 1
        (folder / "hybridnets_128x256.onnx.data").write_bytes(content)
        with pytest.raises(HnxError, match=r"onnx\.data"):
            open_bundle(folder)


@pytest.mark.parametrize("activation", ["hardswish", "relu"])
def test_other_activations(tmp_path: Path, activation: str) -> None:
    result = export(tmp_path, activation=activation, opset=13)
    assert result.bundle.model is not None
    assert result.bundle.model.activation == activation


@pytest.mark.parametrize(
    ("config", "yaml"),
    [
        (ModelConfig(0, num_classes=3, seg_classes=4), "obj_list: [a, b, c]\nseg_list: [w, x, y, z]\n"),
        (ModelConfig(0, seg_classes=1, seg_mode="binary"), "seg_list: [road]\n"),
        (ModelConfig(0, seg_mode="multilabel"), "seg_multilabel: true\n"),
    ],
)
def test_from_a_checkpoint_and_a_project(tmp_path: Path, config: ModelConfig, yaml: str) -> None:
    model = create_model(config, 7)
    torch.save({"model": model.state_dict(), "best_fitness": np.array([0.5])}, tmp_path / "x_best.pth")
    (tmp_path / "p.yml").write_text(yaml)
    result = export(tmp_path, compound_coef=None, weights=tmp_path / "x_best.pth", project=str(tmp_path / "p.yml"))
    assert result.bundle.model == config
    assert not result.bundle.untrained
    assert result.bundle.manifest["model"]["source"]["file"] == "x_best.pth"
    # the weights in the bundle carry everything: exporting them again needs no project
    again = export(tmp_path / "again", compound_coef=None, weights=result.bundle.path / "weights.safetensors")
    assert again.bundle.model == config
    assert again.bundle.classes == result.bundle.classes
    first, second = (load_checkpoint(r.bundle.path / "weights.safetensors").state for r in (result, again))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_wrong_class_count_names_the_tensor(tmp_path: Path) -> None:
    torch.save(create_model(ModelConfig(0, num_classes=10), 0).state_dict(), tmp_path / "ten.pth")
    with pytest.raises(HnxError, match=r"classifier\.header") as caught:
        export(tmp_path, weights=tmp_path / "ten.pth")
    assert "90" in str(caught.value)
    assert not (tmp_path / "hybridnets_c0_128x256").exists()


def test_a_failed_proof_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = graph.simplify

    def break_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
        proto = original(proto)
        weight = next(t for t in proto.graph.initializer if len(t.dims) == 4)
        weight.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.01), weight.name)
        )
        return proto

    monkeypatch.setattr(exporter, "simplify", break_graph)
    with pytest.raises(HnxError, match="is not the PyTorch network"):
        export(tmp_path)
    assert not list(tmp_path.iterdir())


def test_replacing(tmp_path: Path) -> None:
    folder = tmp_path / "hybridnets_c0_128x256"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(HnxError, match="is not a bundle"):
        export(tmp_path)
    assert (folder / "thesis.tex").read_text() == "mine"


def test_what_another_bundle_had_is_told(bundle_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / bundle_path.name
    shutil.copytree(bundle_path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "tuning": {"openvino": {}}}))
    assert export(tmp_path, heads=("det",)).replaced == (
        "heads: det,seg, now det",
        "outputs: regression float32 1x6138x4,classification float32 1x6138x1,segmentation float32 1x3x128x256, "
        "now regression float32 1x6138x4,classification float32 1x6138x1",
        "settings of hnx tune: openvino",
    )
    assert export(tmp_path, heads=("det",)).replaced == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": ()},
        {"sizes": ((600, 384),)},
        {"sizes": ((0, 128),)},
        {"compound_coef": 9},
        {"opset": 10},
        {"opset": 21},
        {"heads": ("det", "lane")},
        {"heads": ()},
        {"layout": ("anchors-xywh",)},
        {"heads": ("seg",), "layout": ("anchors-bin",)},
        {"tolerance": 0.0},
        {"tolerance": float("nan")},
    ],
)
def test_requests_are_checked_first(changes: dict[str, object]) -> None:
    with pytest.raises(HnxError) as caught:
        dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("anchors", None),
        ("anchors", {"scales": [1], "ratios": 5}),
        ("anchors", {"scales": [10**400, 1, 1], "ratios": [[1, 1]] * 3}),
        ("classes", 5),
        ("classes", [5]),
        ("classes", "car"),
        ("mean", "abc"),
        ("mean", [1, 2]),
        ("std", [0, 0, 0]),
        ("seg_classes", None),
    ],
)
def test_metadata_of_a_checkpoint_is_checked_before_the_work(
    bundle_path: Path, tmp_path: Path, key: str, value: object
) -> None:
    with safetensors.safe_open(bundle_path / "weights.safetensors", framework="pt") as file:
        texts = {**file.metadata(), key: json.dumps(value)}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if value is None:
        del texts[key]
    safetensors.torch.save_file(state, tmp_path / "w.safetensors", metadata=texts)
    with pytest.raises(HnxError, match=r"w\.safetensors") as caught:
        export(tmp_path / "out", weights=tmp_path / "w.safetensors", compound_coef=None)
    assert "-p bdd100k" in caught.value.fix
    assert not (tmp_path / "out").exists()
