"""What a GPU's clock says in a report, and rows that did not run in one line for each reason."""

from __future__ import annotations

from typing import Any

import pytest

import hybridnets.bundle
from benchmarks import latency, worker
from benchmarks.accuracy import views
from benchmarks.device import device_json, device_lines, device_samples
from benchmarks.latency import run_bench
from benchmarks.report import remarks, row_name
from benchmarks.skips import skipped_lines
from runtimes import registry
from tests.benchmarks.accuracy.eval_fakes import report_of as eval_report
from tests.benchmarks.fakes import LocalWorker, Steady, config, fake_bundle, measured, report_of, report_row, rows_of
from tests.benchmarks.on_device import ENTRY


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybridnets.bundle, "open_bundle", lambda path, verify=True: fake_bundle())
    monkeypatch.setattr(worker, "wait_idle", lambda: True)
    monkeypatch.setattr(latency, "EXTENSION", 1)
    monkeypatch.setattr(registry, "REGISTRY", (*rows_of(Steady), ENTRY))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_row_on_a_device_has_its_times_and_says_how_it_is_launched(compiled: bool) -> None:
    report = run_bench(config(compiled=compiled), start=LocalWorker)
    row = measured(report, "on-device:fp32")
    assert row["device_ms"].keys() == {"upload", "compute", "download"}
    assert row["device_ms"]["upload"]["p50"] == 0.25
    # of the context that did the work, fresh in every inference
    compute = row["device_ms"]["compute"]["samples"]
    assert compute == list(range(int(compute[0]), int(compute[0]) + len(compute)))
    assert row["execution"]["details"]["compiled"] is compiled
    assert report.settings["compiled"] is compiled
    assert "device_ms" not in measured(report, "steady:fp32")
    text = "\n".join(remarks(report))
    assert "on-device:fp32 on the device: upload 0.250, compute " in text
    assert "on-device:fp32 is launched kernel by kernel, not as a CUDA graph: aten::nonzero needs the CPU" in text
    assert "steady:fp32 on the device" not in text


def test_nothing_is_said_where_there_is_no_device() -> None:
    assert device_samples(Steady(fake_bundle()), lambda: None) == {}
    assert device_json({"upload": []}) == {}
    assert device_lines([report_row("openvino")], row_name) == []


def test_rows_with_one_reason_share_a_line() -> None:
    def skipped(runtime: str, precision: str, reason: str, **more: Any) -> dict[str, Any]:
        return {"runtime": runtime, "precision": precision, "skipped": {"reason": reason, **more}}

    rows = [
        skipped("torch-cuda", "fp32", "there is no driver", fix="install it"),
        skipped("tensorrt", "fp16", "not installed"),
        skipped("torch-cuda", "fp16", "there is no driver", fix="install it"),
        skipped("torch-cuda", "bf16", "no native bf16", fix="install it"),
        skipped("torch-cuda", "int8", "there is no driver", fix="install it", failed=True),
    ]
    lines = [
        "skipped torch-cuda:fp32,fp16: there is no driver (fix: install it)",
        "skipped tensorrt:fp16: not installed",
        "skipped torch-cuda:bf16: no native bf16 (fix: install it)",
        "FAILED torch-cuda:int8: there is no driver (fix: install it)",
    ]
    assert skipped_lines(rows) == lines
    assert [line for line in remarks(report_of(*rows)) if "skipped" in line] == lines[:3]
    assert [line for line in views.remarks(eval_report(*rows)) if line.startswith(("skipped", "FAILED"))] == lines
