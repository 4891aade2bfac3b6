"""The estimate of a row's memory against what was measured, and the refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.memory import estimate_mb, shortage
from hybridnets.bundle import Bundle, Variant
from hybridnets.onnx_header import TensorSpec
from tests.benchmarks.fakes import fake_bundle


def bundle(folder: Path, megabytes: float, height: int, width: int) -> Bundle:
    with (folder / "net.onnx").open("wb") as stream:
        stream.truncate(int(megabytes * 1e6))
    spec = TensorSpec("input", "float32", (1, 3, height, width))
    return replace(fake_bundle(), path=folder, input=spec, variants=(Variant("fp32", "net.onnx"),))


@pytest.mark.parametrize(
    ("megabytes", "size", "streams", "measured"),
    [(51.1, (384, 640), 1, 515), (17.9, (128, 256), 1, 324), (17.9, (128, 256), 2, 373)],
)
def test_the_estimate_lies_a_little_above_the_worst_measured_peak(
    tmp_path: Path, megabytes: float, size: tuple[int, int], streams: int, measured: float
) -> None:
    estimate = estimate_mb(bundle(tmp_path, megabytes, *size), streams)
    assert measured * 1.1 < estimate < measured * 1.3


def test_weights_beside_the_graph_count(tmp_path: Path) -> None:
    small = bundle(tmp_path, 1, 128, 256)
    before = estimate_mb(small, 1)
    with (tmp_path / "net.onnx.data").open("wb") as stream:
        stream.truncate(100_000_000)
    assert estimate_mb(small, 1) == pytest.approx(before + 300)


def test_shortage_names_figures_and_the_way_out() -> None:
    assert shortage("torch:fp32", 600, 601) is None
    assert shortage("torch:fp32", 600, None) is None
    found = shortage("torch:fp32", 600, 599)
    assert found is not None
    assert found["reason"] == "it needs about 600 MB of memory, 599 MB are left"
    assert "--runtime torch:fp32" in found["fix"]
