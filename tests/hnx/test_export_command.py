"""Which size `hnx export` exports."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from export import exporter
from export.config import ExportConfig
from hnx.__main__ import main
from hnx.defaults import Chosen, choose_weights
from hybridnets.carried import carried_activation, carried_size
from hybridnets.errors import ExitCode, HnxError


def header(**metadata: str) -> bytes:
    """That of a checkpoint, with metadata."""
    text = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(text)) + text


def with_size(text: str) -> bytes:
    """The header of a checkpoint that names a size."""
    return header(size=text)


@pytest.mark.parametrize(
    "content",
    [
        *(with_size(text) for text in ("[250, 128]", "[256]", "[true, 128]", '"256"', "[1e3, 128]", "{", "[" * 5000)),
        *(b"", b"short", struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 2) + b"{}", b"\xff" * 64),
    ],
)
def test_a_size_that_no_network_can_take_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert choose_weights(path, size=(256, 128)) == Chosen(path)
    assert carried_size(tmp_path / "gone") is None


def test_a_file_used_at_another_size_than_its_own_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(with_size("[256, 128]"))
    assert choose_weights(path) == Chosen(path, "", (256, 128))
    assert "a.safetensors was trained at 256x128" in choose_weights(path, size=(640, 384)).remark


def pth_with_size(path: Path, size: object) -> Path:
    """A checkpoint as `hnx train` writes its best ones, but for the tensors."""
    torch.save({"epoch": 1, "step": 2, "size": size, "model": {"bifpn.weight": torch.zeros(1)}}, path)
    return path


@pytest.mark.parametrize(
    ("size", "found"),
    [("256x128", (256, 128)), ("250x128", None), ("256", None), (256, None), ([256, 128], None), ("9" * 9, None)],
)
def test_the_size_in_a_checkpoint_of_upstreams_form(
    size: object, found: tuple[int, int] | None, tmp_path: Path
) -> None:
    assert carried_size(pth_with_size(tmp_path / "a_best.pth", size)) == found


def test_without_torch_a_checkpoint_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pth_with_size(tmp_path / "a_best.pth", "256x128")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert carried_size(path) is None


@pytest.mark.parametrize(
    ("words", "size"),
    [
        # at another size than they were trained at, the shipped weights lose 13 points of road and of lanes
        ([], (384, 256)),
        (["--width", "640"], (640, 384)),
        (["--height", "256"], (640, 256)),
        (["--size", "512x256"], (512, 256)),
        (["-w", "untrained"], (640, 384)),
        (["-w", "mine.safetensors"], (256, 128)),
        (["-w", "mine.safetensors", "--size", "512x256"], (512, 256)),
        (["-w", "other.pth"], (640, 384)),
        (["-w", "a_best.pth"], (256, 128)),
    ],
)
def test_the_size_is_what_was_asked_for_else_that_of_the_weights(
    words: list[str], size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[ExportConfig] = []

    def keep(config: ExportConfig, step: object) -> None:
        found.append(config)
        raise HnxError("Far enough")

    monkeypatch.chdir(tmp_path)
    Path("mine.safetensors").write_bytes(with_size("[256, 128]"))
    Path("other.pth").write_bytes(b"a pickle")
    pth_with_size(Path("a_best.pth"), "256x128")
    monkeypatch.setattr(exporter, "export_bundles", keep)
    assert main(["export", *words]) == ExitCode.FAILED
    assert found[0].sizes == (size,)


def test_two_ways_to_name_a_size_at_once() -> None:
    assert main(["export", "--size", "640x384", "--width", "640"]) == ExitCode.USAGE


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-c", "9"], "compound coefficient 9"),
        (["-p", "nosuch"], "nosuch"),
        (["-bb", "no such"], "not the name of a backbone"),
        (["-w", "w.safetensors", "--activation", "relu"], "was trained with hardswish, relu was asked for"),
        (["-w", "nofile.pth"], "nofile.pth"),
    ],
)
def test_mistakes_show_before_torch_is_imported(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.safetensors").write_bytes(header(activation='"hardswish"'))
    monkeypatch.setattr(exporter, "require_packages", lambda: pytest.fail("it imports torch"))
    monkeypatch.setattr("hybridnets.checkpoint.load_checkpoint", lambda *_: pytest.fail("it reads the checkpoint"))
    Path("other.pth").write_bytes(b"a pickle")
    given = words if "-w" in words else ["-w", "other.pth", *words]
    assert main(["export", *given]) == ExitCode.USAGE
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"short", struct.pack("<Q", 2) + b"{}", b"\xff" * 64])
def test_an_activation_that_is_not_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    assert carried_activation(tmp_path / "w.safetensors") is None
    (tmp_path / "w.safetensors").write_bytes(header(activation="[1]"))
    assert carried_activation(tmp_path / "w.safetensors") is None
    assert carried_activation(tmp_path) is None


def test_a_threshold_that_no_score_is_above(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--nms", "--nms-conf", "1.0"]) == ExitCode.USAGE
    assert "--nms-conf" in capsys.readouterr().err


def test_what_is_replaced_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    difference = SimpleNamespace(rel_l2=0.0, max_abs=0.0)
    results = [
        SimpleNamespace(
            bundle=SimpleNamespace(path=Path("b")),
            bytes=1,
            proof=SimpleNamespace(worst=("boxes", difference)),
            rewrites=(),
            replaced=replaced,
        )
        for replaced in ((), ("opset 13, now 17", "settings of hnx tune: openvino"))
    ]
    monkeypatch.setattr(exporter, "export_bundles", lambda *_: results)
    assert main(["export", "-w", "untrained"]) == ExitCode.OK
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "replaced" in text]
    assert line.endswith("of which these are gone: opset 13, now 17; settings of hnx tune: openvino")
