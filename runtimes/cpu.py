"""What this CPU can do."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

__all__ = ["cpu_flags", "cpu_model", "has_native"]

_NATIVE = {"bf16": {"avx512_bf16", "amx_bf16", "bf16"}, "fp16": {"avx512_fp16", "amx_fp16", "asimdhp", "fphp"}}


@functools.lru_cache(maxsize=1)
def _cpuinfo() -> dict[str, str]:
    """First processor's entry of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def cpu_model() -> str:
    """Marketing name of the processor."""
    info = _cpuinfo()
    return info.get("model name") or info.get("hardware") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Instruction set flags as Linux names them (x86 `flags`, ARM `Features`)."""
    info = _cpuinfo()
    return frozenset((info.get("flags") or info.get("features") or "").split())


def has_native(precision: str) -> bool:
    """The CPU has instructions for bf16 or fp16; other precisions are always native."""
    wanted = _NATIVE.get(precision)
    return wanted is None or bool(wanted & cpu_flags())
