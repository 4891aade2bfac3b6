"""Which graphs are compared and what their figures mean; the measurement itself is not a test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks import rewrites
from benchmarks.turns import Timing
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.errors import ExitCode
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime


@pytest.fixture
def exports(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been exported; the bundle itself stands for every export."""
    asked: list[str] = []

    def export(bundle: Bundle, folder: Path, rewrite: str) -> Bundle:
        asked.append(rewrite)
        return open_bundle(bundle_path)

    monkeypatch.setattr(rewrites, "export_again", export)
    return asked


def test_variants_are_stock_repaired_each_rewrite_and_all(
    bundle_path: Path, tmp_path: Path, exports: list[str]
) -> None:
    found = rewrites.make_variants(open_bundle(bundle_path), tmp_path)
    passes = [entry["name"] for entry in open_bundle(bundle_path).manifest["rewrites"] if entry["places"]]
    assert "segmentation-head" in passes
    assert "hard-sigmoid" not in passes  # nothing to do in a network of Swish
    assert list(found) == ["stock", "repaired", *passes, "all"]
    assert exports == ["all", "none", *passes]


def test_openvino_runs_them_as_exported_and_the_last_as_users_get_it(bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    found = rewrites.in_runtime({"max-pool": bundle, "all": bundle}, "openvino")
    assert {name: bool(entry.manifest) for name, entry in found.items()} == {
        "max-pool": False,
        "all": False,
        "prepared": True,
    }
    assert list(rewrites.in_runtime({"all": bundle}, "onnxruntime")) == ["all"]


@pytest.mark.usefixtures("exports")
def test_stock_has_no_tiles_and_the_same_outputs(bundle_path: Path, tmp_path: Path) -> None:
    found = rewrites.make_variants(open_bundle(bundle_path), tmp_path)
    kinds = {
        name: [node.op_type for node in onnx.load(found[name].file(found[name].variants[0].file)).graph.node]
        for name in ("stock", "repaired")
    }
    assert "AveragePool" in kinds["repaired"]
    assert "AveragePool" not in kinds["stock"]
    assert kinds["stock"].count("GlobalAveragePool") == kinds["repaired"].count("GlobalAveragePool")
    tensor = {"input": np.random.default_rng(0).standard_normal((1, 3, 128, 256), np.float32)}
    outputs = []
    for name in ("stock", "repaired"):
        with open_runtime("onnxruntime", found[name], RuntimeOptions(threads=1)) as runtime:
            outputs.append({role: array.copy() for role, array in runtime.infer(tensor).items()})
    for role, array in outputs[0].items():
        np.testing.assert_allclose(array, outputs[1][role], rtol=1e-3, atol=1e-3)


def test_distances_are_those_of_the_runtime(bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    found = rewrites.distances(bundle, {"itself": bundle}, "openvino", threads=1)
    assert set(found["itself"]) == {"regression", "classification", "segmentation"}
    assert all(0 < value < 1e-5 for value in found["itself"].values())


def test_ratios_by_hand() -> None:
    base = Timing([[10.0, 10.0], [20.0, 20.0], [10.0, 10.0]], [[8.0], [8.0], [8.0]])
    other = Timing([[9.0, 9.0], [10.0, 10.0], [11.0, 11.0]], [[4.0], [6.0], [6.0]])
    stock, row = rewrites.rows({"stock": base, "other": other}, {"other": {"segmentation": 1e-6}})
    assert (stock.ratio, stock.paired, stock.paired_cpu, stock.rel_l2) == (1.0, 1.0, 1.0, {})
    assert row.p50_ms == 10.0
    assert row.ratio == 1.0
    assert row.paired == 0.9
    assert row.spread == (0.5, 1.1)
    assert row.paired_cpu == 0.75
    assert row.rel_l2 == {"segmentation": 1e-6}


@pytest.mark.parametrize(
    ("last", "limit", "code"),
    [
        ("all", "0.95", ExitCode.OK),
        ("all", "0.85", ExitCode.GATE_FAILED),
        ("prepared", "0.85", ExitCode.OK),
        ("prepared", "0.75", ExitCode.GATE_FAILED),
    ],
)
def test_the_limit_decides_the_exit_code(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, limit: str, code: ExitCode
) -> None:
    timings = {"stock": Timing([[10.0]], [[10.0]]), "all": Timing([[9.0]], [[9.0]])}
    if last == "prepared":
        timings[last] = Timing([[8.0]], [[8.0]])
    asked: list[Any] = []
    monkeypatch.setattr(rewrites, "make_variants", lambda *_: {"all": open_bundle(bundle_path)})
    monkeypatch.setattr(rewrites, "distances", lambda *_: {"all": {"segmentation": 1e-6}})
    monkeypatch.setattr(rewrites, "measure", lambda *a, **_: asked.append(a[1:]) or timings)
    report = tmp_path / "report.json"
    words = [str(bundle_path), "--check", limit, "--json", str(report), "--precision", "fp32", "--threads", "1"]
    assert rewrites.main(words) == code
    assert asked == [("openvino", RuntimeOptions("fp32", 1))]
    stored = json.loads(report.read_text())
    assert stored["rows"][1]["paired"] == 0.9
    assert stored["rows"][1]["samples_ms"]["wall"] == [[9.0]]


def test_bad_requests(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rewrites.main([str(tmp_path / "nothing")]) == ExitCode.FAILED
    bare = shutil.copy(bundle_path / "hybridnets_128x256.onnx", tmp_path)
    assert rewrites.main([str(bare)]) == ExitCode.FAILED
    assert "fix:" in capsys.readouterr().err
    for words in (["--rounds", "0"], ["--samples", "0"], ["--precision", "int4"], ["--runtime", "torch"]):
        with pytest.raises(SystemExit) as caught:
            rewrites.main([str(bundle_path), *words])
        assert caught.value.code == ExitCode.USAGE


@pytest.mark.slow
def test_from_the_command_line(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(bundle_path), "--rounds", "1", "--samples", "1", "--threads", "1", "--dense"]
    assert rewrites.main(words) == ExitCode.OK
    printed = capsys.readouterr().out
    for name in ("stock", "repaired", "segmentation-head", "fusion-weights", "all", "prepared", "dense headers (10)"):
        assert f"\n{name} " in printed
