"""Reading the vendor's report, and the turns; the measurement itself is not a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import crosscheck
from hybridnets.bundle import open_bundle
from hybridnets.errors import HnxError


def test_median_in_ms_whatever_the_unit() -> None:
    assert crosscheck.read_vendor({"execution_results": {"latency (ms)": "212.4", "avg latency": "1"}}) == 212.4
    assert crosscheck.read_vendor({"execution_results": {"latency (us)": "5000"}}) == 5.0
    with pytest.raises(HnxError, match="no median"):
        crosscheck.read_vendor({"execution_results": {"throughput": "4"}})


def test_sides_take_turns(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []

    def side(name: str, took: float) -> Callable[[Path, int], float]:
        def measure(onnx: Path, iterations: int) -> float:
            assert not open_bundle(onnx).rewritten  # alone, without its manifest
            order.append(name)
            return took

        return measure

    monkeypatch.setattr(crosscheck, "measure_hnx", side("hnx", 10.0))
    monkeypatch.setattr(crosscheck, "measure_vendor", side("vendor", 20.0))
    assert crosscheck.main([str(bundle_path), "--rounds", "3"]) == 0
    assert order == ["hnx", "vendor", "vendor", "hnx", "hnx", "vendor"]
    assert "median ratio of 3 rounds: 0.500" in capsys.readouterr().out


def test_a_failing_program_is_one_clear_error() -> None:
    import sys

    with pytest.raises(HnxError, match="failed") as caught:
        crosscheck._run([sys.executable, "-c", "import sys; print('noise'); sys.exit('the last word')"])
    assert caught.value.why == "the last word"
