"""Backbones of the package timm: refused in words without it, and the whole way with it (`-m timm`, see .ci/timm)."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hnx.__main__ import main
from hybridnets.checkpoint import build_model, load_checkpoint, save_safetensors
from hybridnets.config import ModelConfig
from hybridnets.errors import ExitCode, HnxError
from hybridnets.network import HybridNets
from hybridnets.network.timm_encoder import channels_first
from hybridnets.network.weights import create_model
from hybridnets.training.initialise import load_encoder, read_timm

BACKBONES = ("repvgg_b0", "resnet18", "mobilenetv3_large_100")
META = {"classes": ["car"], "seg_classes": ["road", "lane"], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def test_without_timm_the_message_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(HnxError) as caught:
        HybridNets(ModelConfig(compound_coef=0, backbone="resnet18"))
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert '".[timm]"' in caught.value.fix


def test_a_broken_timm_is_told_from_a_missing_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(HnxError, match="cannot be imported") as caught:
        HybridNets(ModelConfig(compound_coef=0, backbone="resnet18"))
    assert "torchvision::nms" in caught.value.why


@pytest.mark.parametrize("name", ["", "../resnet18", "res net", "hf-hub:x/y", "a" * 300])
def test_names_that_timm_cannot_have(name: str) -> None:
    with pytest.raises(HnxError) as caught:
        ModelConfig(backbone=name)
    assert caught.value.code == ExitCode.USAGE


def test_maps_with_channels_last_are_turned() -> None:
    (turned,) = channels_first([torch.arange(24.0).reshape(1, 2, 3, 4)])
    assert turned.shape == (1, 4, 2, 3)
    assert turned.is_contiguous()
    assert turned[0, 3, 1, 2] == 23


def test_export_of_an_impossible_backbone_ends_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    arguments = ["export", "-c", "0", "-bb", "resnet18", "--size", "256x128", "-o", str(tmp_path)]
    assert main(arguments) == ExitCode.NOTHING_RAN
    assert "timm" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def network(name: str) -> HybridNets:
    return create_model(ModelConfig(compound_coef=0, backbone=name)).eval()


@pytest.fixture
def timm() -> None:
    pytest.importorskip("timm")


@pytest.mark.timm
@pytest.mark.usefixtures("timm")
def test_keys_of_repvgg_are_those_of_upstream() -> None:
    keys = [key for key in network("repvgg_b0").state_dict() if key.startswith("encoder.")]
    assert len(keys) == 451
    assert keys[0].startswith("encoder.stem.")
    assert "encoder.stem.conv_kxk.conv.weight" in keys


@pytest.mark.timm
@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [(128, 256), (384, 128)])
def test_forward_gives_every_output_its_shape(name: str, size: tuple[int, int]) -> None:
    model = network(name)
    with torch.inference_mode():
        image = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, *size), np.float32))
        first, fused = model(image), model.deployed()(image)
    anchors = 9 * sum((size[0] // s) * (size[1] // s) for s in (8, 16, 32, 64, 128))
    assert first.regression.shape == (2, anchors, 4)
    assert first.classification.shape == (2, anchors, 1)
    assert first.segmentation.shape == (2, 3, *size)
    for a, b in zip(first, fused, strict=True):
        assert torch.linalg.vector_norm(a - b) <= 1e-4 * torch.linalg.vector_norm(a)


@pytest.mark.timm
@pytest.mark.usefixtures("timm")
def test_models_without_four_levels_are_refused_with_suggestions() -> None:
    with pytest.raises(HnxError) as caught:
        network("vit_tiny_patch16_224")
    assert "repvgg_b0" in caught.value.fix
    with pytest.raises(HnxError, match="no model 'resnet81'"):
        network("resnet81")


@pytest.mark.timm
@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", BACKBONES)
def test_checkpoint_round_trip(name: str, tmp_path: Path) -> None:
    model, path = network(name), tmp_path / "net.safetensors"
    save_safetensors(path, model, META)
    again = build_model(load_checkpoint(path))
    assert again.config == model.config
    for (key, a), (other, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert key == other
        assert torch.equal(a, b)
    plain = tmp_path / "plain.pth"
    torch.save(model.state_dict(), plain)
    with pytest.raises(HnxError, match="does not say which backbone"):
        build_model(load_checkpoint(plain))


@pytest.mark.timm
@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", BACKBONES)
def test_a_file_of_timm_is_taken_over(name: str, tmp_path: Path) -> None:
    whole = importlib.import_module("timm").create_model(name).state_dict()
    torch.save(whole, tmp_path / "model.pth")
    model = network(name)
    load_encoder(model, read_timm(tmp_path / "model.pth"))
    given = {key.replace(".", "_"): value for key, value in whole.items()}
    for key, value in model.encoder.state_dict().items():
        assert torch.equal(value, given[key.replace(".", "_")]), key


@pytest.mark.timm
@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", BACKBONES)
def test_trained_exported_proved_and_evaluated(name: str, tmp_path: Path, data: Path) -> None:
    folder = data / "parity" / "dataset"
    project = yaml.safe_load((folder / "project_nc1_multiclass.yml").read_text())
    project["dataset"]["train_set"] = "val"
    file = tmp_path / "p.yml"
    file.write_text(yaml.safe_dump(project))
    common = ["-p", str(file), "--data", str(folder)]
    runs = tmp_path / "runs"
    steps = ["-c", "0", "-bb", name, "--size", "256x128", "-b", "4", "--num-epochs", "1", "-n", "0", "-o", str(runs)]
    assert main(["train", *common, *steps]) == ExitCode.OK
    best = next(runs.rglob("best.safetensors"))
    assert main(["export", "-w", str(best), "--size", "256x128", "-o", str(tmp_path / "exports")]) == ExitCode.OK
    (bundle,) = (tmp_path / "exports").iterdir()
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["model"]["backbone"] == name
    report = tmp_path / "eval.json"
    rows = ["--runtime", "torch:fp32,onnxruntime:fp32,openvino:fp32", "--store", str(tmp_path / "store")]
    assert main(["eval", str(bundle), *common, *rows, "--json", str(report), "--draws", "0"]) == ExitCode.OK
    found = json.loads(report.read_text())["rows"]
    assert [row["executed"] for row in found] == ["fp32"] * 3
    for row in found[1:]:
        assert row["metrics"]["mIoU"] == pytest.approx(found[0]["metrics"]["mIoU"], abs=1e-3)
