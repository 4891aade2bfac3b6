"""What this machine is made of, as far as a runtime's speed depends on it; no runtime is touched."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from runtimes.cpu import cpu_flags

__all__ = ["gpu_names", "isa", "memory_bytes"]

# the instruction sets that decide the speed of a convolution, as /proc/cpuinfo names them
_ISA = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "amx_fp16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
)


def isa() -> list[str]:
    """Instruction sets of interest this CPU has."""
    return [name for name in _ISA if name in cpu_flags()]


def memory_bytes() -> int | None:
    """Physical memory, None where it cannot be told."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def gpu_names() -> list[str]:
    """NVIDIA GPUs with memory and driver as nvidia-smi lists them; empty when there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.strip()]
