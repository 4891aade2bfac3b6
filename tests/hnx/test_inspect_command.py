"""`hnx inspect` as users call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hnx.__main__ import main
from hybridnets.errors import ExitCode


def test_a_bundle(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "graph.json"
    assert main(["inspect", str(bundle_path), "--json", str(report)]) == ExitCode.OK
    captured = capsys.readouterr()
    for text in ("encoder/stage1", "backbone", "heads", "total", " -> ", "segmentation-head: 1 place(s)"):
        assert text in captured.out
    stored = json.loads(report.read_text())
    assert stored["grouping"] == "blocks"
    total = stored["total"]
    assert total["after"]["macs"] < total["before"]["macs"]
    assert sum(block["before"]["nodes"] for block in stored["blocks"]) == total["before"]["nodes"]


def test_a_file_as_it_stands(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle_path / "hybridnets_128x256.onnx"), "--rewrite", "none"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "in  input: float32 1x3x128x256" in captured.out
    assert "->" not in captured.out
    # what is rewritten already has no place left
    assert main(["inspect", str(bundle_path / "hybridnets_128x256.onnx")]) == ExitCode.OK
    assert "segmentation-head: 0 place(s)" in capsys.readouterr().out


def test_the_newest_bundle_is_the_default(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "exports").symlink_to(bundle_path.parent)
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "--rewrite", "none"]) == ExitCode.OK
    assert "hybridnets_c0_128x256" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--rewrite", "maxpool"], ExitCode.USAGE),
        (["--rewrite", "all,none"], ExitCode.USAGE),
        (["--shape", "1x3x128x256"], ExitCode.USAGE),
        (["--json", "/dev/null/x.json"], ExitCode.FAILED),
    ],
)
def test_bad_options(bundle_path: Path, words: list[str], code: ExitCode, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle_path), *words]) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["text.onnx", "missing.onnx", "missing", "text.txt"])
def test_bad_files(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("text.onnx", "text.txt"):
        (tmp_path / text).write_text("no network " * 50)
    assert main(["inspect", str(tmp_path / name)]) == ExitCode.FAILED
    captured = capsys.readouterr()
    assert "fix:" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("shape", ["0x3x128x256", "1x3", "1,3,128,256", "x", "1x3x128x256x"])
def test_bad_shapes(bundle_path: Path, shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["inspect", str(bundle_path / "hybridnets_128x256.onnx"), "--shape", shape]
    assert main(words) == ExitCode.USAGE
    assert "Traceback" not in capsys.readouterr().err
