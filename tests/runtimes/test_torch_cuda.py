"""PyTorch on a GPU: the probe's sentences, and buffers, graphs and times on a CPU with the calls of torch.cuda."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hybridnets.bundle import open_bundle
from hybridnets.data import read_demo_frame
from hybridnets.difference import difference
from hybridnets.errors import ExitCode, HnxError
from runtimes import torch_cuda as module_under_test
from runtimes.base import RuntimeOptions
from runtimes.device_times import DeviceTimes
from runtimes.opening import open_runtime
from runtimes.registry import entry, probe
from runtimes.tensorrt.driver import CudaState, Gpu
from runtimes.torch_cuda import TorchCudaRuntime, _GpuContext
from tests.runtimes.tensorrt.fake_device import RTX4090, state

TURING = Gpu(0, "Tesla T4", (7, 5), False, 16 << 30)


class FakeCuda:
    """Streams, events and graphs; a graph that is replayed computes anew into the tensors it was captured with.

    Attributes:
        fail: what ends a capture.
        clock: ms; one passes with each event.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.fail: list[str] = []
        self.clock, self.running = 0.0, threading.local()
        fake = self
        forward = _GpuContext._forward

        def remember(context: _GpuContext) -> dict[str, Any]:
            fake.running.context = context
            return forward(context)

        class Stream:
            def __init__(self, device: Any) -> None:
                fake.log.append("stream")

            def synchronize(self) -> None:
                fake.log.append("synchronize")

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing
                self.at = 0.0

            def record(self, stream: Any) -> None:
                fake.clock += 1
                self.at = fake.clock

            def synchronize(self) -> None:
                fake.log.append("wait")

            def elapsed_time(self, end: Event) -> float:
                return end.at - self.at

        class CUDAGraph:
            context: Any = None

            def replay(self) -> None:
                fake.log.append("replay")
                for role, tensor in forward(self.context).items():
                    self.context._results[role].copy_(tensor)

        @contextlib.contextmanager
        def graph(made: CUDAGraph, *, stream: Any, capture_error_mode: str) -> Iterator[None]:
            assert capture_error_mode == "thread_local"
            fake.log.append("capture")
            try:
                if fake.fail:
                    raise RuntimeError(fake.fail[0])
                yield
                made.context = fake.running.context
            finally:
                if fake.fail:
                    raise RuntimeError(fake.fail[1])

        monkeypatch.setattr(_GpuContext, "_forward", remember)
        monkeypatch.setattr(TorchCudaRuntime, "_device", "cpu")
        for name, value in (("Stream", Stream), ("Event", Event), ("CUDAGraph", CUDAGraph), ("graph", graph)):
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: self.log.append("device"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that PyTorch was built for."""
    monkeypatch.setattr(module_under_test, "probe_cuda", state)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_86", "sm_90", "compute_90"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def fake(machine: None, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def test_same_numbers_as_on_the_cpu(fake: FakeCuda, bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    image = bundle.preprocessor()(read_demo_frame())[0].copy()
    with open_runtime("torch", bundle, RuntimeOptions(threads=1)) as runtime:
        expected = {name: array.copy() for name, array in runtime.infer({"input": image}).items()}
    tf32 = torch.backends.cudnn.allow_tf32
    with TorchCudaRuntime(bundle) as runtime:
        assert torch.backends.cudnn.allow_tf32 is False
        assert torch.backends.cudnn.benchmark is True
        for value in (np.zeros_like(image), image):
            outputs = runtime.infer({"input": value})
        for name, array in expected.items():
            assert difference(outputs[name], array).rel_l2 < 1e-5, name
        assert runtime.execution.details["cuda_graph"] is True
        assert (runtime.execution.precision, runtime.execution.threads) == ("fp32", 1)
        assert runtime.device_times() == [DeviceTimes(1.0, 1.0, 1.0)]
        # the context of the trial run serves the first thread
        assert fake.log.count("stream") == fake.log.count("capture") == 1
        assert fake.log.count("replay") == 3
        # what loaded the network on another stream is waited for
        assert fake.log.index("device") < fake.log.index("stream")
        other = runtime.context().infer({"input": image})
        assert fake.log.count("capture") == 2
        assert all(np.array_equal(other[name], outputs[name]) for name in expected)
        assert not any(np.shares_memory(other[name], outputs[name]) for name in expected)
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert not runtime.device_times()


@pytest.mark.parametrize("words", [("aten::nonzero needs the CPU", "capture was invalidated")])
def test_plain_launches_where_capture_fails(fake: FakeCuda, bundle_path: Path, words: tuple[str, str]) -> None:
    fake.fail = list(words)
    bundle = open_bundle(bundle_path)
    with TorchCudaRuntime(bundle) as runtime:
        assert runtime.execution.details["cuda_graph"] is False
        # the network's reason, not that of ending the capture
        assert runtime.execution.details["no_graph_because"] == words[0]
        first = {name: array.copy() for name, array in runtime.infer(runtime.warm_input()).items()}
        second = runtime.infer({"input": np.ones((1, 3, 128, 256), np.float32)})
        assert any(not np.array_equal(first[name], second[name]) for name in first)
    assert fake.log.count("capture") == 1
    assert "replay" not in fake.log


def test_bf16_is_read_back_from_the_weights(fake: FakeCuda, bundle_path: Path) -> None:
    with TorchCudaRuntime(open_bundle(bundle_path), RuntimeOptions("bf16")) as runtime:
        assert runtime.execution.precision == "bf16"
        assert all(array.dtype == np.float32 for array in runtime.infer(runtime.warm_input()).values())


def test_another_shape_is_captured_anew(fake: FakeCuda) -> None:
    parameter = torch.zeros(1, dtype=torch.bfloat16)
    seen: list[Any] = []

    def run(image: Any) -> dict[str, Any]:
        seen.append((image.dtype, image.is_contiguous(memory_format=torch.channels_last)))
        return {"double": 2 * image}

    context = _GpuContext(run, parameter, None)  # type: ignore[arg-type]  # no image of uint8 comes here
    for batch in (1, 1, 3):
        image = np.full((batch, 3, 4, 4), batch, np.float32)
        np.testing.assert_array_equal(context.infer(image)["double"], 2 * image)
    assert fake.log.count("capture") == 2
    assert {*seen} == {(torch.bfloat16, True)}


@pytest.mark.parametrize(
    ("change", "words", "fix"),
    [
        ({"machine": CudaState("there is no NVIDIA driver here", "install it")}, "no NVIDIA driver", "install it"),
        ({"machine": state(driver_cuda=11_040)}, "CUDA 11.4, this PyTorch is built for CUDA 12", "update the NVIDIA"),
        ({"built": None}, "is built without CUDA", "docs/cuda.md"),
        ({"machine": state(TURING)}, "has no code for Tesla T4 (sm_75), only for sm_80", "docs/cuda.md"),
        ({"available": False}, "finds no device", "docs/cuda.md"),
    ],
)
def test_probe_gives_one_reason(
    change: dict[str, Any], words: str, fix: str, machine: None, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert probe(entry("torch-cuda")).runnable() == ["fp32", "fp16", "bf16"]
    monkeypatch.setattr(module_under_test, "probe_cuda", lambda: change.get("machine", state()))
    monkeypatch.setattr(torch.version, "cuda", change.get("built", "12.6"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: change.get("available", True))
    found = probe(entry("torch-cuda"))
    assert words in found.reason
    assert fix in found.fix
    assert found.version == torch.__version__
    with pytest.raises(HnxError, match="cannot run here") as caught:
        open_runtime("torch-cuda", open_bundle(bundle_path))
    assert caught.value.code == ExitCode.NOTHING_RAN


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        (["sm_80"], (8, 9), True),  # a later minor version of the same generation
        (["sm_90"], (8, 9), False),
        (["sm_80"], (9, 0), False),
        (["sm_80", "compute_80"], (12, 0), True),  # compiled by the driver
        (["sm_90a"], (9, 0), True),
        (["sm_120"], (12, 1), True),
        ([], (7, 0), True),  # it does not say
    ],
)
def test_code_for_a_gpu(
    built: list[str], capability: tuple[int, int], runs: bool, machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(0, "a GPU", capability, False, 1 << 30)
    monkeypatch.setattr(module_under_test, "probe_cuda", lambda: state(gpu))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    assert TorchCudaRuntime.probe().available is runs


def test_bf16_needs_an_ampere(machine: None, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_under_test, "probe_cuda", lambda: state(TURING))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75"])
    assert TorchCudaRuntime.probe().runnable() == ["fp32", "fp16"]
    with pytest.raises(HnxError, match="cannot run bf16 here") as caught:
        TorchCudaRuntime(open_bundle(bundle_path), RuntimeOptions("bf16"))
    assert (caught.value.code, caught.value.why) == (
        ExitCode.NOTHING_RAN,
        "Tesla T4 (sm_75) has no native bf16, it came with sm_80",
    )
    assert RTX4090.capability >= (8, 0)


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = probe(entry("torch-cuda"))
    assert "could not be imported" in found.reason
    assert found.fix == 'pip install -e ".[torch]"'


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_graph_computes_what_plain_launches_do(precision: str, bundle_path: Path) -> None:
    """On a real device."""
    if reason := probe(entry("torch-cuda")).reason:
        pytest.skip(reason)
    bundle = open_bundle(bundle_path)
    image = bundle.preprocessor()(read_demo_frame())[0].copy()
    with open_runtime("torch-cuda", bundle, RuntimeOptions(precision)) as runtime:
        assert isinstance(runtime, TorchCudaRuntime)
        assert runtime.execution.details["cuda_graph"], runtime.execution.details["no_graph_because"]
        with_graph = {name: array.copy() for name, array in runtime.infer({"input": image}).items()}
        context = runtime._context()
        context._use_graph = False
        plain = runtime._infer(context, {"input": image})
        for name, array in plain.items():
            assert difference(with_graph[name], array).rel_l2 < {"fp32": 1e-5}.get(precision, 2e-2), name
        (times, *_) = runtime.device_times()
        assert min(times.upload, times.compute, times.download) > 0
