"""What may be asked for, and what it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.config import planned_rows
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import available_threads
from tests.benchmarks.fakes import config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "--iterations 0"),
        ({"threads": -1}, "--threads -1"),
        ({"duration_s": float("nan")}, "--duration nan"),
        ({"max_time_s": 0.0}, "--max-time 0"),
        ({"scenario": "offlin"}, "did you mean 'offline'"),
        ({"preset": "slow"}, "Unknown preset"),
        ({"streams": 2}, "without --scenario multi"),
        ({"runtimes": "opnvino"}, "did you mean 'openvino'"),
        ({"runtimes": "openvino:fp12"}, "Unknown precision"),
        ({"runtimes": "openvino", "baseline": "onnxruntime"}, "is not measured"),
    ],
)
def test_bad_configurations_are_refused_before_any_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HnxError) as caught:
        config(**changes)
    assert message in str(caught.value)
    assert caught.value.code == ExitCode.USAGE


def test_rows_in_order_without_repetitions() -> None:
    assert planned_rows("ov:half,onnxruntime,ov") == [
        ("openvino", "fp16"),
        ("onnxruntime", "fp32"),
        ("onnxruntime", "int8"),
        ("openvino", "fp32"),
        ("openvino", "bf16"),
        ("openvino", "int8"),
    ]
    assert config(runtimes="ort,ov", baseline="ort").baseline_row == ("onnxruntime", "fp32")


def test_streams_and_threads_of_scenarios() -> None:
    assert config().stream_count == 1
    assert config(scenario="multi", streams=3).stream_count == 3
    assert config(scenario="offline").stream_count == available_threads()
    assert config(threads=None).thread_count == available_threads()
