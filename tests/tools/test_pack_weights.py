"""Shipping a network is one command, and a bad one is not shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from hybridnets.checkpoint import build_model, load_checkpoint, save_safetensors
from hybridnets.config import ModelConfig
from hybridnets.errors import HnxError
from hybridnets.files import read_json
from hybridnets.network import create_model
from hybridnets.training.start import load_weights
from hybridnets.weights import entries, registry, resolve_weights, shipped
from tools.pack_weights import OUTPUTS, PackConfig, main, pack, remove

METADATA: dict[str, Any] = {
    "classes": ["car"],
    "seg_classes": ["road", "lane"],
    "anchors": {"scales": [1.0, 1.62, 2.5], "ratios": [[0.62, 1.58], [1.0, 1.0], [1.58, 0.62]]},
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "files"
    monkeypatch.setattr(registry, "FILES", folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    save_safetensors(path, create_model(ModelConfig(0), seed=1).eval(), METADATA)
    return path


def config(weights: Path, **changes: Any) -> PackConfig:
    values: dict[str, Any] = {"name": "c0-256x128", "size": (256, 128), "summary": "a test"}
    return PackConfig(weights, **{**values, **changes})


def test_packed_weights_are_listed_found_and_load(files: Path, checkpoint: Path) -> None:
    notes: list[str] = []
    result = pack(config(checkpoint))
    assert list(result.worst) == list(OUTPUTS)
    assert 0 < max(result.worst.values()) < 1e-2
    assert result.agreement > 0.99
    assert result.frames == 1
    assert shipped() == (result.entry,)
    assert entries()[0].name == "c0-256x128"
    assert result.entry.bytes == result.path.stat().st_size <= 9_000_000
    path = resolve_weights("c0-256x128")
    assert path == result.path
    assert sorted(found.name for found in files.iterdir()) == sorted([path.name, "index.json"])
    found = load_checkpoint(path)
    assert {key: found.metadata[key] for key in METADATA} == METADATA
    assert build_model(found).config == ModelConfig(0)
    network = create_model(ModelConfig(0), seed=2)
    load_weights(network, path, notes.append)  # where training starts
    assert notes == []
    assert torch.equal(network.state_dict()["encoder._conv_stem.weight"], found.state["encoder._conv_stem.weight"])


def test_an_entry_is_replaced_in_its_place_and_removed(files: Path, checkpoint: Path, tmp_path: Path) -> None:
    first = pack(config(checkpoint))
    pack(config(checkpoint, name="second"))
    other = tmp_path / "other.safetensors"
    save_safetensors(other, create_model(ModelConfig(0, activation="hardswish"), seed=2).eval(), METADATA)
    again = pack(config(other, summary="better"))
    assert [(entry.name, entry.summary) for entry in shipped()] == [("c0-256x128", "better"), ("second", "a test")]
    assert again.entry.activation == "hardswish"
    assert not first.path.exists()
    assert pack(config(other, summary="better")).entry == again.entry  # the same file again
    assert again.path.exists()
    remove("c0-256x128")
    assert [entry.name for entry in shipped()] == ["second"]
    assert not again.path.exists()
    with pytest.raises(HnxError, match="No weights"):
        remove("c0-256x128")


def test_a_network_that_half_precision_changes_is_not_shipped(files: Path, checkpoint: Path) -> None:
    with pytest.raises(HnxError, match="does not compute in float16") as caught:
        pack(config(checkpoint, tolerance=1e-6))
    assert caught.value.code == 3
    assert "segmentation differs by" in caught.value.why
    assert shipped() == ()
    assert not files.exists()


def test_what_is_too_large_in_half_precision_goes_into_8_bits(files: Path, checkpoint: Path) -> None:
    result = pack(config(checkpoint))
    assert result.eighths == ["encoder._blocks.15._project_conv.weight"]
    assert result.entry.bytes is not None
    assert result.entry.bytes <= 9_000_000
    whole = pack(config(checkpoint, limit=9.3e6))
    assert whole.eighths == []
    assert whole.entry.bytes is not None
    assert 9_000_000 < whole.entry.bytes <= 9_300_000


def test_nor_one_that_is_too_large(files: Path, checkpoint: Path) -> None:
    with pytest.raises(HnxError, match=r"would be \d\.\d\d MB") as caught:
        pack(config(checkpoint, limit=5e6))
    assert caught.value.code == 3
    assert not files.exists()


def test_nor_one_without_metadata(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "bare.pth"
    torch.save(create_model(ModelConfig(0)).state_dict(), path)
    with pytest.raises(HnxError, match="Cannot ship") as caught:
        pack(config(path))
    assert "anchors" in caught.value.why


@pytest.mark.parametrize(
    "change",
    [
        {"name": "hybridnets-v1"},
        {"name": "With Spaces"},
        {"size": (100, 100)},
        {"summary": " "},
        {"licence": ""},
        {"tolerance": 0.0},
        {"max_frames": 0},
        {"limit": -1.0},
    ],
    ids=str,
)
def test_impossible_wishes_are_refused_before_any_work(files: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(HnxError) as caught:
        config(tmp_path / "absent", **change)
    assert caught.value.code == 2


def test_the_command(
    files: Path, checkpoint: Path, road_image: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(checkpoint), "--name", "a", "--size", "256x128", "--summary", "a test"]
    frames = ["--frames", str(road_image), "--frames", str(data / "frames" / "highway_1280x720.mp4")]
    assert main([*arguments, *frames, "--max-frames", "3"]) == 0
    captured = capsys.readouterr()
    assert "worst of 3 picture(s)" in captured.out
    assert "sha256 " + str(shipped()[0].sha256) in captured.out
    assert "comparing picture 3" in captured.err
    assert read_json(files / "index.json")["weights"][0]["name"] == "a"
    assert main([*arguments, "--size", "nonsense"]) == 2
    assert main([*arguments, "--tolerance", "1e-9"]) == 3
    assert "accepted is" in capsys.readouterr().err
    assert main(["absent.safetensors", *arguments[1:]]) == 1
    empty = files.parent / "empty.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, empty)
    assert main([str(empty), *arguments[1:]]) == 1
