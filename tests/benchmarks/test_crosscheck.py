"""Reading the vendor's report, and the turns; the measurement itself is not a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import crosscheck
from hybridnets.errors import HnxError
from runtimes.cpu import cpu_flags


def test_median_in_ms_whatever_the_unit() -> None:
    assert crosscheck.read_vendor({"execution_results": {"latency (ms)": "212.4", "avg latency": "1"}}) == 212.4
    assert crosscheck.read_vendor({"execution_results": {"latency (us)": "5000"}}) == 5.0
    with pytest.raises(HnxError, match="no median"):
        crosscheck.read_vendor({"execution_results": {"throughput": "4"}})


def test_sides_take_turns(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []

    def vendor(network: Path, iterations: int) -> float:
        # what our runtime hands to OpenVINO: enlargements of few maps are gathered
        assert ("Gather" in network.read_text()) == ("avx2" in cpu_flags())
        order.append("vendor")
        return 20.0

    monkeypatch.setattr(crosscheck, "measure_hnx", lambda *_: order.append("hnx") or 10.0)
    monkeypatch.setattr(crosscheck, "measure_vendor", vendor)
    assert crosscheck.main([str(bundle_path), "--rounds", "3"]) == 0
    assert order == ["hnx", "vendor", "vendor", "hnx", "hnx", "vendor"]
    assert "median ratio of 3 rounds: 0.500" in capsys.readouterr().out


def test_a_failing_program_is_one_clear_error() -> None:
    import sys

    with pytest.raises(HnxError, match="failed") as caught:
        crosscheck._run([sys.executable, "-c", "import sys; print('noise'); sys.exit('the last word')"])
    assert caught.value.why == "the last word"
