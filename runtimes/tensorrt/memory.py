"""Memory before a build: is there enough, and how much of it may be TensorRT's workspace."""

from __future__ import annotations

from pathlib import Path

from hybridnets.errors import ExitCode, HnxError
from runtimes.tensorrt.driver import CudaState, Driver

__all__ = ["check_memory", "default_workspace", "free_bytes", "needed_bytes"]

_MIB = 1 << 20
_LEAST, _MOST = 64 * _MIB, 4096 * _MIB
_WITHOUT_GPU = 1024 * _MIB


def free_bytes(state: CudaState, driver: Driver | None, gpu: int) -> tuple[int | None, int | None]:
    """Free memory of the CPU and of the GPU in bytes; None where it cannot be told.

    On boards where both share one memory (`Gpu.integrated`) both come from the kernel: what the driver calls free there
    leaves out what the kernel could drop from its caches.
    """
    cpu, physical = _available()
    if state.problem or driver is None:
        return cpu, None
    if state.gpu(gpu).integrated:
        return cpu, physical  # a GPU cannot use swapped memory
    try:
        driver.retain_primary(gpu)
        try:
            return cpu, driver.free_memory()
        finally:
            driver.release_primary(gpu)
    except RuntimeError:
        return cpu, None


def _available() -> tuple[int | None, int | None]:
    """Memory the kernel can give without ending anybody: with swap, and without."""
    found = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("MemAvailable", "SwapFree"):
                found[name] = int(value.split()[0]) * 1024
        return found["MemAvailable"] + found.get("SwapFree", 0), found["MemAvailable"]
    except (OSError, ValueError, IndexError, KeyError):
        return None, None


def needed_bytes(onnx_bytes: int) -> int:
    """CPU memory a build needs.

    TensorRT for RTX 1.7.1 took 498 MiB for the c3 network (48 MiB of ONNX) and 822 MiB for its Q/DQ form (49 MiB); what
    TensorRT takes with its kernel libraries on a GPU was not measured.
    """
    return 512 * _MIB + 10 * onnx_bytes


def check_memory(onnx_bytes: int, free: int | None) -> None:
    """Refuse a build that the system would end.

    Raises:
        HnxError: exit code 1.
    """
    needed = needed_bytes(onnx_bytes)
    if free is not None and free < needed:
        raise HnxError(
            "Not enough memory to build",
            why=f"about {needed // _MIB} MiB are needed and {free // _MIB} MiB are free; the system would end the "
            "build half-way",
            fix="close other programs (on a Jetson the desktop, too: sudo systemctl isolate multi-user), or add swap",
            code=ExitCode.FAILED,
        )


def default_workspace(free_gpu: int | None, shared: bool) -> int:
    """Scratch memory the builder may use: half of a card's free memory, a quarter where CPU and GPU share theirs."""
    if free_gpu is None:
        return _WITHOUT_GPU
    return max(_LEAST, min(_MOST, free_gpu // (4 if shared else 2)))
