"""Device memory, streams and events from pycuda, or from cuda-python where pycuda is absent; graphs from the driver.

Both work on the primary context, which TensorRT and torch use, too; pycuda's `autoinit` would make a private one.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hybridnets.errors import ExitCode, HnxError, first_line
from runtimes.tensorrt.driver import Driver, Gpu, load_driver

__all__ = ["Buffer", "CudaPythonDevice", "Device", "PyCudaDevice", "Stream", "open_device"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Buffer:
    """Host memory the GPU can reach, and the address the network reads or writes.

    Attributes:
        host: pinned array.
        address: of device memory; of `host` itself as the GPU sees it when `mapped`.
        mapped: the GPU works on `host` directly (no copies): boards where both share their memory.
        keep: whatever owns the device's side; `host` owns its own.
    """

    host: Array
    address: int
    mapped: bool
    keep: Any = field(default=None, repr=False)


class Stream(ABC):
    """A CUDA stream of our own: the default stream serialises everything and cannot be captured."""

    handle: int

    @abstractmethod
    def upload(self, buffer: Buffer) -> None:
        """Enqueue host to device; nothing for mapped memory."""

    @abstractmethod
    def download(self, buffer: Buffer) -> None:
        """Enqueue device to host; nothing for mapped memory."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all that was enqueued."""

    @abstractmethod
    def event(self) -> Any:
        """A new event that can be recorded and timed."""

    @abstractmethod
    def record(self, event: Any) -> None:
        """Enqueue a time stamp."""

    @abstractmethod
    def wait(self, event: Any) -> None:
        """Let the CPU wait for a time stamp."""

    @abstractmethod
    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two time stamps that have passed."""


class Device(ABC):
    """A GPU with its primary context.

    A thread calls `activate` before it uses streams and buffers, and makes and frees them inside `owning`.
    """

    library: str

    def __init__(self, gpu: Gpu, driver: Driver) -> None:
        self.gpu, self.driver = gpu, driver
        # kept for the life of the process: arrays that were handed out lie in it, and reading them must not end it
        self._context = driver.retain_primary(gpu.index)

    def activate(self) -> None:
        """Make the context current in this thread."""
        self.driver.make_current(self._context)

    @contextlib.contextmanager
    def owning(self) -> Iterator[None]:
        """The time in which this thread makes or frees streams, events and buffers."""
        self.activate()
        yield

    @abstractmethod
    def stream(self) -> Stream:
        """A new stream that does not wait for the default one."""

    @abstractmethod
    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Pinned host memory and its device side; mapped where CPU and GPU share memory (`gpu.integrated`)."""


# -- pycuda --------------------------------------------------------------------------------------------------------


class PyCudaDevice(Device):
    """Memory, streams and events from pycuda."""

    def __init__(self, gpu: Gpu, driver: Driver) -> None:
        self._drv: Any = importlib.import_module("pycuda.driver")
        self._drv.init()
        super().__init__(gpu, driver)
        # pycuda's own handle of the same context: this makes no second one
        self._own = self._drv.Device(gpu.index).retain_primary_context()
        self.library = f"pycuda {'.'.join(map(str, importlib.import_module('pycuda').VERSION))}"

    @contextlib.contextmanager
    def owning(self) -> Iterator[None]:
        """See `Device.owning`.

        pycuda makes and frees things only in threads that have a context on its own stack, and it aborts the process
        when a thread ends with one still there. So it is there for no longer than needed; using things needs none.
        """
        self.activate()
        self._own.push()
        try:
            yield
        finally:
            self._drv.Context.pop()
            self.activate()

    def stream(self) -> Stream:
        """See `Device.stream`."""
        return _PyCudaStream(self._drv)

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """See `Device.buffer`."""
        flags = self._drv.host_alloc_flags.DEVICEMAP if self.gpu.integrated else 0
        host = self._drv.pagelocked_empty(shape, np.dtype(dtype), mem_flags=flags)
        if self.gpu.integrated:
            return Buffer(host, int(host.base.get_device_pointer()), True)
        memory = self._drv.mem_alloc(max(host.nbytes, 1))
        return Buffer(host, int(memory), False, memory)


class _PyCudaStream(Stream):
    def __init__(self, drv: Any) -> None:
        self._drv = drv
        self._stream = drv.Stream(1)  # CU_STREAM_NON_BLOCKING
        self.handle = int(self._stream.handle)

    def upload(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            self._drv.memcpy_htod_async(buffer.address, buffer.host, self._stream)

    def download(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            self._drv.memcpy_dtoh_async(buffer.host, buffer.address, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def event(self) -> Any:
        return self._drv.Event()

    def record(self, event: Any) -> None:
        event.record(self._stream)

    def wait(self, event: Any) -> None:
        event.synchronize()

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(start.time_till(end))


# -- cuda-python ---------------------------------------------------------------------------------------------------


class CudaPythonDevice(Device):
    """Memory, streams and events from NVIDIA's cuda-python (module `cuda.bindings.driver`, `cuda.cuda` before 12.6)."""

    def __init__(self, gpu: Gpu, driver: Driver) -> None:
        try:
            self._cu: Any = importlib.import_module("cuda.bindings.driver")
            version = str(importlib.import_module("cuda.bindings").__version__)
        except ModuleNotFoundError:
            self._cu = importlib.import_module("cuda.cuda")
            version = "of before 12.6"
        super().__init__(gpu, driver)
        self.library = f"cuda-python {version}"

    def stream(self) -> Stream:
        """See `Device.stream`."""
        return _CudaPythonStream(self._cu)

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """See `Device.buffer`."""
        cu, kind = self._cu, np.dtype(dtype)
        size = max(math.prod(shape) * kind.itemsize, 1)
        flags = cu.CU_MEMHOSTALLOC_DEVICEMAP if self.gpu.integrated else 0
        pointer = int(checked(cu.cuMemHostAlloc(size, flags)))
        block = (ctypes.c_char * size).from_address(pointer)
        # freed after the last array that looks into it; at the end of the process the driver does that
        weakref.finalize(block, cu.cuMemFreeHost, pointer).atexit = False
        host: Array = np.ndarray(shape, kind, memoryview(block).cast("B"))
        if self.gpu.integrated:
            return Buffer(host, int(checked(cu.cuMemHostGetDevicePointer(pointer, 0))), True)
        address = int(checked(cu.cuMemAlloc(size)))
        return Buffer(host, address, False, _Owned(address, cu.cuMemFree))


class _Owned:
    """Memory that is freed with its owner."""

    def __init__(self, pointer: int, free: Callable[[int], Any]) -> None:
        self._pointer, self._free = pointer, free

    def __del__(self) -> None:
        self._free(self._pointer)


def checked(result: tuple[Any, ...]) -> Any:
    """The value of a cuda-python call, which returns (error, value...).

    Raises:
        RuntimeError: the error is not CUDA_SUCCESS.
    """
    error, *values = result
    if int(error):
        raise RuntimeError(f"CUDA error {int(error)} ({getattr(error, 'name', error)})")
    return values[0] if values else None


class _CudaPythonStream(Stream):
    def __init__(self, cu: Any) -> None:
        self._cu = cu
        self._stream = checked(cu.cuStreamCreate(int(cu.CUstream_flags.CU_STREAM_NON_BLOCKING)))
        self.handle = int(self._stream)

    def upload(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            host = buffer.host
            checked(self._cu.cuMemcpyHtoDAsync(buffer.address, host.ctypes.data, host.nbytes, self._stream))

    def download(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            host = buffer.host
            checked(self._cu.cuMemcpyDtoHAsync(host.ctypes.data, buffer.address, host.nbytes, self._stream))

    def synchronize(self) -> None:
        checked(self._cu.cuStreamSynchronize(self._stream))

    def event(self) -> Any:
        return checked(self._cu.cuEventCreate(0))

    def record(self, event: Any) -> None:
        checked(self._cu.cuEventRecord(event, self._stream))

    def wait(self, event: Any) -> None:
        checked(self._cu.cuEventSynchronize(event))

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(checked(self._cu.cuEventElapsedTime(start, end)))


# -- choosing ------------------------------------------------------------------------------------------------------

PROVIDERS: tuple[type[Device], ...] = (PyCudaDevice, CudaPythonDevice)


_devices: dict[int, Device] = {}
_lock = threading.Lock()


def open_device(gpu: Gpu) -> Device:
    """The GPU through pycuda, else through cuda-python; the same object for all users of a process.

    Raises:
        HnxError: neither is installed (exit code 4), or both fail.
    """
    driver = load_driver()
    if driver is None:
        raise HnxError("There is no NVIDIA driver", fix="install it", code=ExitCode.NOTHING_RAN)
    reasons = []
    with _lock:
        if gpu.index in _devices:
            return _devices[gpu.index]
        for provider in PROVIDERS:
            try:
                _devices[gpu.index] = provider(gpu, driver)
                return _devices[gpu.index]
            except Exception as error:  # whatever a broken installation raises
                reasons.append(f"{provider.__name__.removesuffix('Device')}: {first_line(error)}")
    raise HnxError(
        "Nothing gives access to GPU memory",
        why="; ".join(reasons),
        fix="pip install pycuda (needs nvcc), or pip install cuda-python",
        code=ExitCode.NOTHING_RAN,
    )
