"""The driver through ctypes, on a library made of Python functions; and the two libraries that give memory."""

from __future__ import annotations

import ctypes
import gc
import sys
import types
from typing import Any

import numpy as np
import pytest

from hybridnets.errors import ExitCode, HnxError
from runtimes.tensorrt import cuda, driver
from runtimes.tensorrt.cuda import CudaPythonDevice, PyCudaDevice, open_device
from runtimes.tensorrt.driver import CudaError, CudaState, Driver, Gpu


def put(pointer: Any, value: int) -> None:
    """Write through a byref()."""
    pointer._obj.value = value


class FakeLibcuda:
    """libcuda with `count` devices; `fail` names a call that returns an error."""

    def __init__(self, count: int = 1, fail: dict[str, int] | None = None, integrated: int = 0) -> None:
        self.count, self.fail, self.integrated, self.log = count, fail or {}, integrated, []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.log.append(name)
            if name in self.fail:
                return self.fail[name]
            return getattr(self, "_" + name, lambda *a: 0)(*arguments) or 0

        return call

    def _cuDriverGetVersion(self, version: Any) -> None:  # noqa: N802 - names of the driver
        put(version, 12_060)

    def _cuDeviceGetCount(self, count: Any) -> None:  # noqa: N802
        put(count, self.count)

    def _cuDeviceGetName(self, name: Any, size: int, device: Any) -> None:  # noqa: N802
        name.value = b"Orin"

    def _cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> None:  # noqa: N802
        put(memory, 8 << 30)

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> None:  # noqa: N802
        put(value, {75: 8, 76: 7, 18: self.integrated}[attribute])

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> None:  # noqa: N802
        put(context, 0x1234)

    def _cuStreamEndCapture(self, stream: Any, graph: Any) -> None:  # noqa: N802
        put(graph, 0x55)

    def _cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> None:  # noqa: N802
        assert (graph.value, flags.value) == (0x55, 0)
        put(executable, 0x66)

    def _cuMemGetInfo_v2(self, free: Any, total: Any) -> None:  # noqa: N802
        put(free, 3 << 30)


def test_devices_are_listed() -> None:
    state = Driver(FakeLibcuda(2, integrated=1)).state()
    assert not state.problem
    assert state.driver_cuda == 12_060
    assert state.gpus[1] == Gpu(1, "Orin", (8, 7), True, 8 << 30)
    assert state.gpu(1).sm == "sm_87"
    with pytest.raises(HnxError, match="no device cuda:2") as caught:
        state.gpu(2)
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert "cuda:0 Orin" in caught.value.why


@pytest.mark.parametrize(
    ("library", "words"),
    [
        (FakeLibcuda(0), "lists no device"),
        (FakeLibcuda(fail={"cuInit": 100}), "no CUDA device was found"),
        (FakeLibcuda(fail={"cuInit": 803}), "reboot after an update"),
        (FakeLibcuda(fail={"cuInit": 999}), "unknown error"),
        (FakeLibcuda(fail={"cuDeviceGetCount": 12345}), "CUDA error 12345"),
    ],
)
def test_no_usable_device_is_a_reason(library: FakeLibcuda, words: str) -> None:
    state = Driver(library).state()
    assert words in state.problem
    assert state.fix
    assert not state.gpus


def test_probe_names_what_hides_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "load_driver", lambda: None)
    assert "libcuda" in driver.probe().problem
    monkeypatch.setattr(driver, "load_driver", lambda: Driver(FakeLibcuda(fail={"cuInit": 100})))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    state = driver.probe()
    assert "CUDA_VISIBLE_DEVICES='7'" in state.problem
    assert "unset" in state.fix


def test_graph_calls() -> None:
    library = FakeLibcuda()
    calls = Driver(library)
    assert calls.retain_primary(0) == 0x1234
    assert calls.free_memory() == 3 << 30
    calls.begin_capture(7)
    graph = calls.end_capture(7)
    executable = calls.instantiate(graph)
    calls.launch(executable, 7)
    calls.destroy_executable(executable)
    calls.destroy_graph(graph)
    calls.release_primary(0)
    assert library.log == [
        "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuMemGetInfo_v2", "cuStreamBeginCapture_v2",
        "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch", "cuGraphExecDestroy", "cuGraphDestroy",
        "cuDeviceGet", "cuDevicePrimaryCtxRelease_v2",
    ]  # fmt: skip
    with pytest.raises(CudaError, match="cuGraphLaunch: CUDA error 700") as caught:
        Driver(FakeLibcuda(fail={"cuGraphLaunch": 700})).launch(1, 2)
    assert caught.value.number == 700


# -- pycuda and cuda-python, as modules that remember ------------------------------------------------------------


class Recorder:
    """Any attribute is a function that is written down; `results` says what it returns."""

    def __init__(self, log: list[str], results: dict[str, Any] | None = None) -> None:
        self._log, self._results = log, results or {}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._log.append(name)
            result = self._results.get(name)
            return result(*arguments, **keywords) if callable(result) else result

        return call


def pycuda(log: list[str]) -> dict[str, types.ModuleType]:
    """pycuda and pycuda.driver, with the members pycuda's own source has."""
    package, module = types.ModuleType("pycuda"), types.ModuleType("pycuda.driver")
    package.VERSION = (2026, 1)  # type: ignore[attr-defined]
    current: list[Any] = []  # pycuda aborts the process when a thread ends with a context on this stack
    module.stack = current  # type: ignore[attr-defined]

    class Context:
        pop = staticmethod(lambda: current.pop())

        def push(self) -> None:
            current.append(self)

    class Allocation:
        def __init__(self, size: int) -> None:
            assert current, "no currently active context?"
            self.size = size

        def __int__(self) -> int:
            return 0x10000

    class Pinned:
        def get_device_pointer(self) -> int:
            return 0x20000

    class Array(np.ndarray):
        @property
        def base(self) -> Any:  # type: ignore[override]
            return Pinned()

    def pagelocked_empty(shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
        assert current, "no currently active context?"
        log.append(f"pagelocked_empty {mem_flags}")
        return np.zeros(shape, dtype).view(Array)

    class Event(Recorder):
        def __init__(self) -> None:
            assert current, "no currently active context?"
            super().__init__(log, {"time_till": 1.5})

    class Stream(Recorder):
        handle = 77

        def __init__(self, flags: int = 0) -> None:
            assert current, "no currently active context?"
            super().__init__(log)
            log.append(f"Stream {flags}")

    def copy(dest: Any, src: Any, stream: Any = None) -> None:
        log.append(f"copy {type(dest).__name__} {type(src).__name__} {type(stream).__name__}")

    module.init = lambda flags=0: log.append("init")  # type: ignore[attr-defined]
    module.Device = lambda index: Recorder(log, {"retain_primary_context": Context})  # type: ignore[attr-defined]
    module.Context, module.Stream, module.Event = Context, Stream, Event  # type: ignore[attr-defined]
    module.host_alloc_flags = types.SimpleNamespace(DEVICEMAP=2)  # type: ignore[attr-defined]
    module.pagelocked_empty, module.mem_alloc = pagelocked_empty, Allocation  # type: ignore[attr-defined]
    module.memcpy_htod_async = module.memcpy_dtoh_async = copy  # type: ignore[attr-defined]
    return {"pycuda": package, "pycuda.driver": module}


def cuda_python(log: list[str]) -> dict[str, types.ModuleType]:
    """cuda.bindings.driver: every call returns (error, value)."""
    block = (ctypes.c_char * 4096)()
    module: Any = types.ModuleType("cuda.bindings.driver")
    results = {
        "cuMemHostAlloc": (0, ctypes.addressof(block)),
        "cuMemHostGetDevicePointer": (0, 0x20000),
        "cuMemAlloc": (0, 0x10000),
        "cuStreamCreate": (0, 77),
        "cuEventCreate": (0, 5),
        "cuEventElapsedTime": (0, 1.5),
    }
    for name in (
        *results, "cuMemFreeHost", "cuMemFree", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuStreamSynchronize",
        "cuEventRecord", "cuEventSynchronize",
    ):  # fmt: skip

        def call(*arguments: Any, name: str = name) -> Any:
            log.append(name)
            return results.get(name, (0,))

        setattr(module, name, call)
    module.CU_MEMHOSTALLOC_DEVICEMAP = 2
    module.CUstream_flags = types.SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    module._block = block
    package: Any = types.ModuleType("cuda")
    bindings: Any = types.ModuleType("cuda.bindings")
    bindings.__version__ = "13.0.3"
    return {"cuda": package, "cuda.bindings": bindings, "cuda.bindings.driver": module}


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("which", ["pycuda", "cuda-python"])
def test_both_providers_do_the_same(which: str, integrated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    modules = (pycuda if which == "pycuda" else cuda_python)(log)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    libcuda = FakeLibcuda()
    gpu = Gpu(0, "Orin", (8, 7), integrated, 8 << 30)
    provider = PyCudaDevice if which == "pycuda" else CudaPythonDevice
    device = provider(gpu, Driver(libcuda))
    assert device.library.startswith(which)
    device.activate()
    device.activate()
    with device.owning():
        stream = device.stream()
        buffer = device.buffer((2, 3), np.float32)
        start, end = stream.event(), stream.event()
    if which == "pycuda":
        assert modules["pycuda.driver"].stack == []
        with pytest.raises(KeyError), device.owning():
            raise KeyError
        assert modules["pycuda.driver"].stack == []
    assert stream.handle == 77
    assert (buffer.host.shape, buffer.host.dtype, buffer.mapped) == ((2, 3), np.float32, integrated)
    assert buffer.address == (0x20000 if integrated else 0x10000)
    buffer.host[...] = 7
    before = len(log)
    stream.upload(buffer)
    stream.download(buffer)
    assert len(log) - before == (0 if integrated else 2)  # zero-copy: there is nothing to copy
    stream.record(start)
    stream.wait(end)
    stream.synchronize()
    assert stream.elapsed_ms(start, end) == 1.5
    # an array that somebody kept owns its memory
    kept = buffer.host
    del buffer
    assert "cuMemFreeHost" not in log
    assert kept[0, 0] == 7
    del kept
    gc.collect()
    if which == "cuda-python":
        assert log.count("cuMemFreeHost") == 1
        assert log.count("cuMemFree") == (0 if integrated else 1)
    assert "cuDevicePrimaryCtxRelease_v2" not in libcuda.log


def test_pycuda_first_then_cuda_python_then_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(0, "Orin", (8, 7), False, 8 << 30)
    monkeypatch.setattr(cuda, "load_driver", lambda: Driver(FakeLibcuda()))
    monkeypatch.setattr(cuda, "_devices", {})
    for name in ("pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver", "cuda.cuda"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(HnxError, match="Nothing gives access") as caught:
        open_device(gpu)
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert "PyCuda" in caught.value.why
    assert "CudaPython" in caught.value.why
    for name, module in cuda_python([]).items():
        monkeypatch.setitem(sys.modules, name, module)
    device = open_device(gpu)
    assert isinstance(device, CudaPythonDevice)
    assert open_device(gpu) is device
    monkeypatch.setattr(cuda, "_devices", {})
    for name, module in pycuda([]).items():
        monkeypatch.setitem(sys.modules, name, module)
    assert isinstance(open_device(gpu), PyCudaDevice)


def test_errors_of_cuda_python_are_raised() -> None:
    with pytest.raises(RuntimeError, match="CUDA error 2"):
        cuda.checked((2,))
    assert cuda.checked((0,)) is None
    assert cuda.checked((0, 5)) == 5


def test_a_state_without_gpu_has_none() -> None:
    with pytest.raises(HnxError) as caught:
        CudaState("no driver", "install it").gpu(0)
    assert (caught.value.why, caught.value.fix) == ("no driver", "install it")
    assert caught.value.code == ExitCode.NOTHING_RAN


@pytest.mark.trt
def test_cuda_python_really_has_these_functions() -> None:
    """The real module, which imports without a driver (`.ci/trt`)."""
    real = pytest.importorskip("cuda.bindings.driver", exc_type=ImportError)
    for name, value in vars(cuda_python([])["cuda.bindings.driver"]).items():
        if name.startswith(("cu", "CU")):
            assert hasattr(real, name), name
            if callable(value):
                given = {"cuMemHostAlloc": 2, "cuMemHostGetDevicePointer": 2, "cuMemcpyHtoDAsync": 4,
                         "cuMemcpyDtoHAsync": 4, "cuEventRecord": 2, "cuEventElapsedTime": 2}.get(name, 1)  # fmt: skip
                signature = str(getattr(real, name).__doc__).splitlines()[0]
                assert signature.count(",") + 1 == given, signature
    assert int(real.CUstream_flags.CU_STREAM_NON_BLOCKING) == 1
