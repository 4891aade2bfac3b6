"""What this CPU can do."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

__all__ = ["INT8_PRODUCTS", "cpu_flags", "cpu_model", "has_int8_products", "has_native"]

# add products of 8-bit numbers up in 32 bits; without them x86 adds pairs in 16, which saturate, and INT8 took 1.03 of
# float32's time in OpenVINO and 1.41 in ONNX Runtime (AMD EPYC with AVX2)
INT8_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})

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


def has_int8_products() -> bool:
    """The CPU has instructions for sums of 8-bit products, or does not tell what it has."""
    flags = cpu_flags()
    return not flags or bool(INT8_PRODUCTS & flags)
