"""A CUDA device made of host memory: what `runtimes.tensorrt.execution` needs, with everything it did written down."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from runtimes.tensorrt.cuda import Buffer, Device, Stream
from runtimes.tensorrt.driver import CudaError, CudaState, Gpu

ORIN = Gpu(0, "Orin", (8, 7), True, 8 << 30)
RTX4090 = Gpu(0, "NVIDIA GeForce RTX 4090", (8, 9), False, 24 << 30)


def state(gpu: Gpu = RTX4090, driver_cuda: int = 13_000) -> CudaState:
    """A machine with one GPU."""
    return CudaState("", "", driver_cuda, (gpu,))


class FakeDriver:
    """Graphs that remember what was done to them."""

    def __init__(self, fail: str = "") -> None:
        self.fail, self.log, self.capturing, self._next = fail, [], False, 0
        self.alive: set[int] = set()

    def _do(self, name: str) -> None:
        self.log.append(name)
        if name == self.fail:
            raise CudaError(name, 901)

    def make_current(self, context: int) -> None:
        assert context

    def retain_primary(self, index: int) -> int:
        return 4096 + index

    def release_primary(self, index: int) -> None:
        self.log.append("release_primary")

    def begin_capture(self, stream: int) -> None:
        self._do("begin_capture")
        self.capturing = True

    def end_capture(self, stream: int) -> int:
        self.capturing = False
        self._do("end_capture")
        return self._new()

    def instantiate(self, graph: int) -> int:
        assert graph in self.alive
        self._do("instantiate")
        return self._new()

    def launch(self, executable: int, stream: int) -> None:
        assert executable in self.alive
        self._do("launch")

    def destroy_graph(self, graph: int) -> None:
        self.alive.remove(graph)

    def destroy_executable(self, executable: int) -> None:
        self.alive.remove(executable)

    def _new(self) -> int:
        self._next += 1
        self.alive.add(self._next)
        return self._next


class FakeStream(Stream):
    """Counts; time passes by one ms with each thing enqueued."""

    def __init__(self) -> None:
        self.handle, self.clock, self.log = 7, 0.0, []

    def upload(self, buffer: Buffer) -> None:
        self.clock += 1
        self.log.append("upload")

    def download(self, buffer: Buffer) -> None:
        self.clock += 2
        self.log.append("download")

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def event(self) -> Any:
        return [0.0]

    def record(self, event: Any) -> None:
        event[0] = self.clock

    def wait(self, event: Any) -> None:
        self.log.append("wait")

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(end[0] - start[0])


class FakeDevice(Device):
    """See the module."""

    library = "fake"

    def __init__(self, gpu: Gpu = RTX4090, fail: str = "", alignment: int = 256) -> None:
        self._driver, self._alignment = FakeDriver(fail), alignment
        self.local = threading.local()
        super().__init__(gpu, self._driver)  # type: ignore[arg-type]  # the methods used are there
        self.streams: list[FakeStream] = []
        self.buffers: list[Buffer] = []

    @contextlib.contextmanager
    def owning(self) -> Iterator[None]:
        assert not self._owning(), "nested"
        self.local.owned = True
        try:
            yield
        finally:
            self.local.owned = False

    def _owning(self) -> bool:
        return getattr(self.local, "owned", False)

    def stream(self) -> Stream:
        assert self._owning()
        self.streams.append(FakeStream())
        return self.streams[-1]

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        assert self._owning()
        address = self._alignment * (len(self.buffers) + 1)
        self.buffers.append(Buffer(np.zeros(shape, dtype), address, self.gpu.integrated))
        return self.buffers[-1]
