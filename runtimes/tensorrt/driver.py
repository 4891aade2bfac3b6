"""The CUDA driver itself, through ctypes: is there a device, which one, and CUDA graphs.

Nothing but the driver (libcuda) is needed, so it can be asked before any library that would crash without it. The
graph calls are here because pycuda has none; driver handles are common to all libraries, and these names exist from
CUDA 11.4 to 13.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from dataclasses import dataclass
from typing import Any

from hybridnets.errors import ExitCode, HnxError

__all__ = ["CudaState", "Driver", "Gpu", "load_driver", "probe"]

_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18  # CUdevice_attribute
_ERRORS = {
    2: "out of memory",
    34: "the driver is a stub library",
    35: "the driver is older than the CUDA library",
    100: "no CUDA device was found",
    101: "there is no such device",
    201: "the context is invalid",
    209: "the kernel image does not fit this GPU",
    700: "an earlier kernel wrote or read outside its memory",
    719: "an earlier kernel failed",
    803: "the driver and the kernel module differ: reboot after an update",
    901: "the capture was invalidated",
    999: "unknown error: the driver may need a restart",
}


@dataclass(frozen=True)
class Gpu:
    """One device.

    Attributes:
        capability: compute capability, (8, 7) on Orin.
        integrated: it shares the CPU's memory, as on a Jetson.
        memory: total bytes.
    """

    index: int
    name: str
    capability: tuple[int, int]
    integrated: bool
    memory: int

    @property
    def sm(self) -> str:
        """`sm_87`."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


@dataclass(frozen=True)
class CudaState:
    """What the driver says.

    Attributes:
        problem, fix: why no device can be used; both empty when one can.
        driver_cuda: newest CUDA the driver supports, 12060 for 12.6.
    """

    problem: str = ""
    fix: str = ""
    driver_cuda: int = 0
    gpus: tuple[Gpu, ...] = ()

    def obstacle(self, library: str, cuda: int = 0) -> tuple[str, str] | None:
        """Why a library can use no device here, and what to do about it; None where it can.

        Args:
            library: its name for people.
            cuda: the oldest driver interface it needs, 12000 for CUDA 12.0; 0 where it does not say.
        """
        if self.problem:
            return self.problem, self.fix
        if self.driver_cuda < cuda:
            return (
                f"its driver supports CUDA {self.driver_cuda // 1000}.{self.driver_cuda % 1000 // 10}, this {library} "
                f"is built for CUDA {cuda // 1000}: the driver is too old",
                f"update the NVIDIA driver, or install the {library} package of its CUDA version",
            )
        return None

    def gpu(self, index: int) -> Gpu:
        """A device by number.

        Raises:
            HnxError: there is none (exit code 4).
        """
        if index >= len(self.gpus):
            names = ", ".join(f"cuda:{gpu.index} {gpu.name}" for gpu in self.gpus) or "none"
            raise HnxError(
                f"There is no device cuda:{index}",
                why=self.problem or f"this machine has {names}",
                fix=self.fix or "use --device cuda:0",
                code=ExitCode.NOTHING_RAN,
            )
        return self.gpus[index]


class CudaError(RuntimeError):
    """A driver call failed."""

    def __init__(self, call: str, number: int) -> None:
        self.number = number
        super().__init__(f"{call}: CUDA error {number} ({_ERRORS.get(number, 'see cuda.h')})")


class Driver:
    """The calls of libcuda this package needs; `lib` is the loaded library."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that returns a CUresult.

        Raises:
            CudaError: it is not CUDA_SUCCESS.
        """
        number = getattr(self._lib, name)(*arguments)
        if number:
            raise CudaError(name, number)

    # -- what there is ---------------------------------------------------------------------------------------

    def state(self) -> CudaState:
        """Devices and driver version; never raises."""
        try:
            self.call("cuInit", 0)
            version, count = ctypes.c_int(), ctypes.c_int()
            self.call("cuDriverGetVersion", ctypes.byref(version))
            self.call("cuDeviceGetCount", ctypes.byref(count))
            gpus = tuple(self._gpu(index) for index in range(count.value))
        except CudaError as error:
            return CudaState(str(error), "check `nvidia-smi`, and that this user may use /dev/nvidia*")
        if not gpus:
            return CudaState("the driver is loaded and lists no device", "check `nvidia-smi`", version.value)
        return CudaState("", "", version.value, gpus)

    def _gpu(self, index: int) -> Gpu:
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), index)
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, 256, device)
        memory = ctypes.c_size_t()
        self.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        values = []
        for attribute in (_MAJOR, _MINOR, _INTEGRATED):
            value = ctypes.c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
            values.append(value.value)
        text = name.value.decode(errors="replace")
        return Gpu(index, text, (values[0], values[1]), bool(values[2]), memory.value)

    # -- the primary context ---------------------------------------------------------------------------------

    def retain_primary(self, index: int) -> int:
        """The context that TensorRT, pycuda, cuda-python and torch share, made current in this thread."""
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), index)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.make_current(context.value or 0)
        return context.value or 0

    def make_current(self, context: int) -> None:
        """Let this thread use a context; costs less than a microsecond when it already does."""
        self.call("cuCtxSetCurrent", ctypes.c_void_p(context))

    def release_primary(self, index: int) -> None:
        """Give `retain_primary` back."""
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), index)
        self.call("cuDevicePrimaryCtxRelease_v2", device)

    def free_memory(self) -> int:
        """Free bytes of the current context's device."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    # -- graphs ----------------------------------------------------------------------------------------------

    def begin_capture(self, stream: int) -> None:
        """Record what is enqueued on `stream` instead of running it."""
        self.call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """The recorded graph; 0 when the capture was invalidated without an error."""
        graph = ctypes.c_void_p()
        self.call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        return graph.value or 0

    def instantiate(self, graph: int) -> int:
        """An executable graph. The old cuGraphInstantiate changed its parameters with CUDA 12; this one did not."""
        executable = ctypes.c_void_p()
        self.call(
            "cuGraphInstantiateWithFlags", ctypes.byref(executable), ctypes.c_void_p(graph), ctypes.c_ulonglong(0)
        )
        return executable.value or 0

    def launch(self, executable: int, stream: int) -> None:
        """Enqueue an executable graph."""
        self.call("cuGraphLaunch", ctypes.c_void_p(executable), ctypes.c_void_p(stream))

    def destroy_graph(self, graph: int) -> None:
        """Free a recorded graph."""
        self.call("cuGraphDestroy", ctypes.c_void_p(graph))

    def destroy_executable(self, executable: int) -> None:
        """Free an executable graph."""
        self.call("cuGraphExecDestroy", ctypes.c_void_p(executable))


@functools.lru_cache(maxsize=1)
def load_driver() -> Driver | None:
    """The installed driver; None where there is none."""
    names = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
    for name in names:
        try:
            return Driver(ctypes.CDLL(name))
        except OSError:
            continue
    return None


def probe() -> CudaState:
    """Is there a CUDA device? Loads the driver and nothing else; never raises."""
    driver = load_driver()
    if driver is None:
        return CudaState(
            "there is no NVIDIA driver here (libcuda.so.1)",
            "install the NVIDIA driver; in a container, start it with `--gpus all` (Jetson: `--runtime nvidia`)",
        )
    state = driver.state()
    if state.problem and os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        shown = os.environ["CUDA_VISIBLE_DEVICES"]
        return CudaState(
            f"{state.problem}, with CUDA_VISIBLE_DEVICES={shown!r}", "unset CUDA_VISIBLE_DEVICES", state.driver_cuda
        )
    return state
