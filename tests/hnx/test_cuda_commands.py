"""Rows of a GPU from the shell's side, on a machine that shows none: listed with a reason, never run on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hnx.__main__ import main
from runtimes.registry import REGISTRY
from runtimes.tensorrt.driver import load_driver

DATA = Path(__file__).parents[1] / "data" / "parity" / "dataset"
ROWS = [row.name for row in REGISTRY if row.gpu]
LISTED = ",".join(ROWS)
SHORT = ("--iterations", "4", "--duration", "0.05", "--max-time", "20", "--threads", "1", "--fast", "--power", "off")


@pytest.fixture
def hnx(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A command on the shared bundle, with every GPU hidden from it and its processes."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.chdir(tmp_path)
    assert ROWS == ["tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt", "torch-cuda"]

    def run(name: str, *arguments: object, named: bool = True) -> int:
        return main([name, *([str(bundle_path)] if named else []), *map(str, arguments)])

    return run


def reason() -> str:
    """What the driver says here."""
    return "there is no NVIDIA driver here" if load_driver() is None else "CUDA_VISIBLE_DEVICES='-1'"


def test_bench_and_eval_list_them_and_end_with_4(
    hnx: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("bench", *SHORT), ("eval", "--data", DATA, "--limit", "1", "--threads", "1")):
        path = tmp_path / f"{words[0]}.json"
        assert hnx(*words, "--runtime", LISTED, "--json", path) == 4
        captured = capsys.readouterr()
        for row in REGISTRY:
            if row.gpu and row.name != "tensorrt":  # TensorRT itself may be missing, which is its reason then
                assert f"skipped {row.name}:{','.join(row.precisions)}: {reason()}" in captured.out
        assert "skipped tensorrt:fp16,int8,fp32: " in captured.out
        assert "Traceback" not in captured.err
        rows = json.loads(path.read_text())["rows"]
        assert {row["runtime"] for row in rows} == set(ROWS)
        assert all(row["skipped"]["reason"] and row["skipped"]["fix"] for row in rows)


@pytest.mark.parametrize("name", ROWS)
def test_infer_and_compare_say_why_and_end_with_4(
    name: str, hnx: Callable[..., int], bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hnx("infer", "--bundle", bundle_path, "--runtime", name, named=False) == 4
    inferred = capsys.readouterr().err
    assert hnx("compare", "--runtime", f"onnxruntime,{name}", "--frames", "1") == 4
    for error in (inferred, capsys.readouterr().err):
        assert f"{name} cannot run here" in error
        assert name == "tensorrt" or reason() in error
        assert "Traceback" not in error


def test_doctor_lists_them(hnx: Callable[..., int], tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    assert hnx("doctor", "--json", path, named=False) == 0
    found = {row["name"]: row for row in json.loads(path.read_text())["runtimes"]}
    for name in ROWS:
        assert not found[name]["available"]
        assert found[name]["reason"]
        assert found[name]["fix"]
