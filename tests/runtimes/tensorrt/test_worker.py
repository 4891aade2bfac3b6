"""What the builder's process does with a job, on the table's modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridnets.errors import HnxError
from runtimes.tensorrt import driver, library, worker
from runtimes.tensorrt.config import PlanConfig
from tests.runtimes.tensorrt import scenario
from tests.runtimes.tensorrt.fake_device import state
from tests.runtimes.tensorrt.spec_module import spec_module
from tests.runtimes.tensorrt.world import World


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = spec_module("10.3.0", World())
    monkeypatch.setattr(library, "load", lambda flavor: scenario.library(made))
    monkeypatch.setattr(driver, "probe", state)
    monkeypatch.setattr(driver, "load_driver", lambda: None)
    return made


def job(onnx: Path, cache: Path | None, **settings: Any) -> dict[str, Any]:
    return {
        "config": PlanConfig(onnx, fp16=True, **settings).to_json(),
        "cache_dir": None if cache is None else str(cache),
    }


def test_a_job(module: Any, tmp_path: Path) -> None:
    onnx = tmp_path / "x.onnx"
    onnx.write_bytes(b"x")
    told: list[str] = []
    result = worker.run(job(onnx, tmp_path), tmp_path, lambda *step: bool(told.append(step[0])) or True)
    assert (tmp_path / "plan").read_bytes() == b"fakeplan"
    assert told[0] == "starting"
    assert result["gpu"] == {"name": "NVIDIA GeForce RTX 4090", "capability": [8, 9], "sm": "sm_89"}
    cache = tmp_path / "trt10.3.0-sm_89-NVIDIA_GeForce_RTX_4090.timing"
    assert result["timing_cache"] == str(cache)
    assert cache.read_bytes() == b"fakeplan"
    limits = [call for call in module.calls if call == "IBuilderConfig.set_memory_pool_limit"]
    assert len(limits) == 1
    assert result["workspace"] == 1 << 30


def test_the_cache_that_was_kept_is_used(module: Any, tmp_path: Path) -> None:
    onnx = tmp_path / "x.onnx"
    onnx.write_bytes(b"x")
    seen: list[bytes] = []
    module.answers["IBuilderConfig.create_timing_cache"] = lambda content: (
        seen.append(content) or object.__new__(module.ITimingCache)
    )
    named = tmp_path / "mine.timing"
    for _ in range(2):
        result = worker.run(job(onnx, None, timing_cache=named), tmp_path, lambda *step: True)
        assert result["timing_cache"] == str(named)
    assert seen == [b"", b"fakeplan"]


def test_a_cache_that_cannot_be_written_is_a_remark(module: Any, tmp_path: Path) -> None:
    onnx = tmp_path / "x.onnx"
    onnx.write_bytes(b"x")
    result = worker.run(job(onnx, onnx), tmp_path, lambda *step: True)
    assert "timing cache was not kept" in result["notes"][0]


def test_a_missing_network(module: Any, tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="Cannot read"):
        worker.run(job(tmp_path / "none.onnx", None), tmp_path, lambda *step: True)
