"""This machine: hardware, runtimes and packages, as `hnx doctor` shows them."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from runtimes import registry
from runtimes.base import available_threads
from runtimes.board import look_over
from runtimes.cpu import INT8_PRODUCTS, cpu_model
from runtimes.hardware import gpu_names, isa, memory_bytes
from runtimes.jetson import detect
from runtimes.registry import RuntimeEntry, probe
from runtimes.sysfs import Tree

__all__ = ["diagnose", "probe_here"]

_PACKAGES = (
    ("onnx", "export"),
    ("onnxsim", "export"),
    ("safetensors", "checkpoints"),
    ("rich", "tables"),
    ("PyYAML", "project files"),
)


def probe_here(row: RuntimeEntry) -> dict[str, Any]:
    """What this process finds out about a runtime: {"version", "runnable", "precisions", "reason", "fix"}."""
    state = probe(row)
    return {
        "version": state.version,
        "runnable": state.runnable(),
        "precisions": dict(state.precisions),
        "reason": state.reason,
        "fix": state.fix,
    }


def diagnose(look: Callable[[RuntimeEntry], dict[str, Any]] = probe_here, tree: Tree | None = None) -> dict[str, Any]:
    """Everything `hnx doctor` prints.

    Args:
        look: finds out about one runtime; a library that dies while it is imported takes the process of its caller
            along, so the command passes one that asks a child.
        tree: where a Jetson's files lie, for tests.

    Returns:
        {"hardware": {label: text}, "jetson": [{"what", "found", "fix"}], empty elsewhere, "runtimes": [{"name",
        "available", "version", "runnable", "precisions", "reason", "fix"}], "packages": [{"name", "version", "purpose",
        "fix"}]}
    """
    board = detect(tree)
    memory = memory_bytes()
    flags = isa()
    hardware = {
        "CPU": cpu_model(),
        "cores for this process": available_threads(),
        "instruction sets": ", ".join(flags) or "none of interest",
        "low precision": _low_precision(flags),
        "memory": f"{memory / 2**30:.1f} GiB" if memory else "unknown",
        "GPU": "; ".join(gpu_names()) or "none found (nvidia-smi is missing or lists none)",
        "Jetson": board.model if board else "no",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
    return {
        "schema_version": 1,
        "hardware": hardware,
        "jetson": [finding.to_json() for finding in look_over(board)] if board else [],
        "runtimes": _runtimes(look),
        "packages": _packages(),
    }


def _low_precision(flags: list[str]) -> str:
    native = [
        text
        for text, names in (
            ("bf16", ("avx512_bf16", "amx_bf16", "bf16")),
            ("fp16", ("avx512_fp16", "amx_fp16")),
            ("int8", INT8_PRODUCTS),
        )
        if any(name in flags for name in names)
    ]
    return f"native {', '.join(native)}" if native else "none is native: expect no gain from bf16, fp16 or int8"


def _runtimes(look: Callable[[RuntimeEntry], dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for row in registry.REGISTRY:
        found = look(row)
        rows.append({"name": row.name, "available": not found["reason"], **found})
    return rows


def _packages() -> list[dict[str, str]]:
    rows = []
    for name, purpose in _PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = ""
        rows.append(
            {"name": name, "version": found, "purpose": purpose, "fix": "" if found else 'pip install -e ".[export]"'}
        )
    return rows
