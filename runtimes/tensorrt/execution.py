"""Inference with a loaded plan: pinned double buffers, a stream of our own, a CUDA graph, times from events."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import HnxError
from runtimes.device_times import DeviceTimes
from runtimes.tensorrt.cuda import Buffer, Device, Stream
from runtimes.tensorrt.driver import CudaError
from runtimes.tensorrt.engine import Engine

__all__ = ["PlanContext", "Ticket"]

Arrays = Mapping[str, NDArray[Any]]
_SLOTS = 2  # one computes while the caller reads the other's results
_ALIGNMENT = 256  # NvInferRuntime.h: addresses must be multiples of it; CUDA's own allocations are


@dataclass(eq=False)
class _Slot:
    """Buffers of one inference, and the graph that was captured with their addresses."""

    inputs: dict[str, Buffer]
    outputs: dict[str, Buffer]
    events: tuple[Any, Any, Any, Any]
    graph: int = 0
    executable: int = 0
    busy: bool = field(default=False)


@dataclass(frozen=True)
class Ticket:
    """An inference that was submitted; give it to `collect`."""

    slot: _Slot = field(repr=False)


class PlanContext:
    """One thread's right to run an engine. Not to be shared between threads.

    `infer` is `submit` and `collect`; using them apart overlaps the CPU's work with the GPU's. The arrays that
    `collect` returns live in pinned memory and stay valid until the second next `submit`.
    """

    def __init__(self, engine: Engine, device: Device, *, use_graph: bool = True) -> None:
        self._engine, self._device, self._use_graph = engine, device, use_graph
        with device.owning():
            self._context = engine.context()
            self._stream: Stream = device.stream()
        self._slots: list[_Slot] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._next = 0
        self.times: DeviceTimes | None = None
        self.graph_problem = "" if use_graph else "not asked for"

    @property
    def graph(self) -> bool:
        """Inferences are launched as a CUDA graph."""
        return bool(self._slots) and all(slot.executable for slot in self._slots)

    def infer(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once.

        Raises:
            HnxError: TensorRT refuses a shape or the launch.
            CudaError, RuntimeError: the device failed.
        """
        return self.collect(self.submit(inputs))

    def submit(self, inputs: Arrays) -> Ticket:
        """Copy the inputs and enqueue everything; returns at once.

        Raises:
            HnxError: both slots are in flight, or TensorRT refuses.
        """
        if self._context is None:
            raise HnxError("The context is closed", fix="make a new one")
        self._device.activate()
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            with self._device.owning():
                self._resize(shapes)
        slot = self._slots[self._next]
        if slot.busy:
            raise HnxError(
                "Two inferences are in flight", why="a context has two sets of buffers", fix="collect one first"
            )
        self._next = (self._next + 1) % _SLOTS
        for name, array in inputs.items():
            np.copyto(slot.inputs[name].host, array, casting="no")
        stream, (start, uploaded, computed, downloaded) = self._stream, slot.events
        stream.record(start)
        for buffer in slot.inputs.values():
            stream.upload(buffer)
        stream.record(uploaded)
        if slot.executable:
            self._device.driver.launch(slot.executable, stream.handle)
        else:
            self._enqueue(slot)
        stream.record(computed)
        for buffer in slot.outputs.values():
            stream.download(buffer)
        stream.record(downloaded)
        slot.busy = True
        return Ticket(slot)

    def collect(self, ticket: Ticket) -> dict[str, NDArray[Any]]:
        """Wait for an inference and return its outputs by name."""
        self._device.activate()
        slot, stream = ticket.slot, self._stream
        start, uploaded, computed, downloaded = slot.events
        stream.wait(downloaded)
        slot.busy = False
        self.times = DeviceTimes(
            stream.elapsed_ms(start, uploaded),
            stream.elapsed_ms(uploaded, computed),
            stream.elapsed_ms(computed, downloaded),
        )
        return {name: buffer.host for name, buffer in slot.outputs.items()}

    def close(self) -> None:
        """Free graphs, buffers, the stream and TensorRT's context; a second call does nothing."""
        if self._context is None:
            return
        # a device that is gone cannot free anything, and says so
        with contextlib.suppress(CudaError, RuntimeError), self._device.owning():
            self._stream.synchronize()
            self._drop()
            self._slots.clear()
            del self._context, self._stream, self._engine
        self._slots, self._context = [], None

    # -- shapes ----------------------------------------------------------------------------------------------

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """New shapes: new buffers, and graphs captured again, because addresses and sizes are part of them."""
        if any(slot.busy for slot in self._slots):
            raise HnxError("The input's shape changed while an inference is in flight", fix="collect it first")
        self._stream.synchronize()
        self._drop()
        self._slots, self._shapes = [], {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, tuple(shape)):
                raise HnxError(
                    f"The plan does not take {name} of shape {'x'.join(map(str, shape))}",
                    why=self._engine.library.log.why("it is outside the shapes the plan was built for"),
                    fix="build it again with another --max-batch",
                )
        missing = self._context.infer_shapes()
        if missing:
            raise HnxError(f"The plan needs further inputs: {', '.join(missing)}", fix="export the network again")
        self._slots = [self._slot() for _ in range(_SLOTS)]
        self._next = 0
        for slot in self._slots:
            # once without capture: what TensorRT sets up in a first run must not be part of the graph
            self._enqueue(slot)
            self._stream.synchronize()
            if self._use_graph:
                self._capture(slot)
        self._shapes = dict(shapes)

    def _slot(self) -> _Slot:
        buffers: dict[str, dict[str, Buffer]] = {"input": {}, "output": {}}
        for form in (*self._engine.inputs, *self._engine.outputs):
            shape = tuple(int(size) for size in self._context.get_tensor_shape(form.name))
            buffer = self._device.buffer(shape, form.dtype)
            if buffer.address % _ALIGNMENT:
                raise HnxError(f"The buffer of {form.name} is not aligned", why=f"{self._device.library} gave it so")
            buffers[form.mode][form.name] = buffer
        first, second, third, last = (self._stream.event() for _ in range(4))
        return _Slot(buffers["input"], buffers["output"], (first, second, third, last))

    def _enqueue(self, slot: _Slot) -> None:
        """A plain launch."""
        for name, buffer in (*slot.inputs.items(), *slot.outputs.items()):
            if not self._context.set_tensor_address(name, buffer.address):
                raise self._refused(f"TensorRT refuses the buffer of {name}")
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._refused("TensorRT could not launch the network")

    def _refused(self, what: str) -> HnxError:
        return HnxError(what, why=self._engine.library.log.why("it does not say why"), fix="build the plan again")

    # -- graphs ----------------------------------------------------------------------------------------------

    def _capture(self, slot: _Slot) -> None:
        """Capture one launch; where that fails, plain launches go on and `graph_problem` says why.

        Plans with data-dependent outputs or streamed weights cannot be captured, for example.
        """
        driver, handle = self._device.driver, self._stream.handle
        try:
            driver.begin_capture(handle)
        except CudaError as error:
            self._give_up(str(error))
            return
        problem = ""
        try:
            self._enqueue(slot)
        except HnxError as error:
            problem = f"{error.what}: {error.why}"
        try:
            slot.graph = driver.end_capture(handle)
            if problem or not slot.graph:
                raise CudaError("cuStreamEndCapture", 901)
            slot.executable = driver.instantiate(slot.graph)
        except CudaError as error:
            self._give_up(problem or str(error))

    def _give_up(self, problem: str) -> None:
        self.graph_problem, self._use_graph = problem, False
        self._drop()

    def _drop(self) -> None:
        """Free all graphs."""
        driver = self._device.driver
        for slot in self._slots:
            if slot.executable:
                driver.destroy_executable(slot.executable)
            if slot.graph:
                driver.destroy_graph(slot.graph)
            slot.graph = slot.executable = 0
