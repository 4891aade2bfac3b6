"""What a measurement ran on. Nothing here may fail: whatever a machine does not tell is left out."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from hybridnets.version import __version__
from runtimes.base import available_threads
from runtimes.cpu import cpu_flags, cpu_model
from runtimes.jetson import detect
from runtimes.sysfs import Tree

__all__ = [
    "Stopwatch",
    "available_memory_mb",
    "describe_environment",
    "system_busy_seconds",
    "throttle_counters",
    "throttled_since",
]

T = TypeVar("T")
ROOT = Path("/")
# vector and matrix instructions: they decide which arithmetic a CPU runtime can use
ISA_FLAGS = re.compile(r"avx|amx|fma|f16c|neon|asimd|fphp|sve|i8mm|bf16")
LIBRARIES = (
    "numpy", "opencv-python-headless", "opencv-python", "onnxruntime", "onnxruntime-gpu", "openvino", "torch",
    "tensorrt",
)  # fmt: skip
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "KMP_BLOCKTIME", "KMP_AFFINITY", "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM",
)  # fmt: skip


def _attempt(call: Callable[[], T]) -> T | None:
    """The call's result, or None for anything that goes wrong."""
    try:
        return call()
    except Exception:
        return None


def _read(path: str, root: Path) -> str | None:
    return _attempt(lambda: (root / path).read_text(errors="replace").strip())


def _number(text: str | None, scale: float = 1.0) -> float | None:
    return None if text is None else _attempt(lambda: round(float(text) * scale, 3))


def _affinity() -> list[int] | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    return _attempt(lambda: sorted(os.sched_getaffinity(0)))


def system_busy_seconds(root: Path = ROOT) -> float | None:
    """Seconds that the cores open to this process were busy since boot, with whatever program (Linux).

    Time stolen by the hypervisor counts: for us it is somebody else's work. None where the system does not tell.
    """
    text = _read("proc/stat", root)
    if text is None:
        return None
    cores = _affinity()
    total = 0
    found = False
    for line in text.splitlines():
        match = re.match(r"cpu(\d+) (.+)", line)
        if match is None or (cores is not None and int(match[1]) not in cores):
            continue
        fields = [int(value) for value in match[2].split() if value.isdigit()]
        if len(fields) < 4:
            continue
        found = True
        # user nice system idle iowait irq softirq steal; the guest fields after them are already in user
        total += sum(fields[:3]) + sum(fields[5:8])
    if not found:
        return None
    ticks = _attempt(lambda: os.sysconf("SC_CLK_TCK")) or 100
    return total / ticks


class Stopwatch:
    """Wall time, and what other programs took of our cores meanwhile; it runs from when it is made."""

    def __init__(self) -> None:
        self._busy, self._own, self._start = system_busy_seconds(), time.process_time(), time.perf_counter()

    def stop(self) -> tuple[float, float | None]:
        """Wall seconds, and core-seconds of others; None where the system does not tell.

        Its accounts go by ticks of 10 ms: over short times the second may be a little below 0.
        """
        wall, own, busy = time.perf_counter() - self._start, time.process_time() - self._own, system_busy_seconds()
        return wall, None if busy is None or self._busy is None else busy - self._busy - own


def throttle_counters(root: Path = ROOT) -> dict[str, int]:
    """How often, since boot, heat, current or a quota slowed the processor; empty where nobody counts."""
    counters: dict[str, int] = {}
    pattern = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"
    for path in _attempt(lambda: sorted(root.glob(pattern))) or []:
        value = _number(_read(str(path.relative_to(root)), root))
        if value is not None:
            counters["heat"] = counters.get("heat", 0) + int(value)
    # a Jetson's own, one file for each way its supply can be overdrawn
    for path in _attempt(lambda: sorted(root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"))) or []:
        value = _number(_read(str(path.relative_to(root)), root))
        if value is not None:
            counters["current"] = counters.get("current", 0) + int(value)
    for name in ("sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/cpu/cpu.stat"):
        match = re.search(r"^nr_throttled (\d+)$", _read(name, root) or "", re.MULTILINE)
        if match is not None:
            counters["quota"] = int(match[1])
            break
    return counters


def throttled_since(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """Which counters grew, in words."""
    words = {
        "heat": "it became too hot",
        "quota": "the container's CPU quota was used up",
        "current": "it drew more current than its supply allows",
    }
    return [
        f"{words.get(name, name)} ({count - before.get(name, 0)} times)"
        for name, count in after.items()
        if name in before and count > before[name]
    ]


def _cpu(root: Path) -> dict[str, Any]:
    board = _read("proc/device-tree/model", root)
    quota = _read("sys/fs/cgroup/cpu.max", root)
    return _known(
        {
            "model": cpu_model(),
            "board": board.rstrip("\0") if board else None,
            "flags": sorted(flag for flag in cpu_flags() if ISA_FLAGS.match(flag)),
            "cores": os.cpu_count(),
            "available_cores": available_threads(),
            "affinity": _affinity(),
            "quota": quota if quota and not quota.startswith("max") else None,
            "frequency": _frequency(root),
        }
    )


def _frequency(root: Path) -> dict[str, Any] | None:
    base = "sys/devices/system/cpu/cpu0/cpufreq"
    boost = _read("sys/devices/system/cpu/cpufreq/boost", root)
    turbo_off = _read("sys/devices/system/cpu/intel_pstate/no_turbo", root)
    found = _known(
        {
            "governor": _read(f"{base}/scaling_governor", root),
            "driver": _read(f"{base}/scaling_driver", root),
            "current_mhz": _number(_read(f"{base}/scaling_cur_freq", root), 1e-3),
            "limit_mhz": _number(_read(f"{base}/scaling_max_freq", root), 1e-3),
            "maximum_mhz": _number(_read(f"{base}/cpuinfo_max_freq", root), 1e-3),
            "boost": boost == "1" if boost else (turbo_off == "0" if turbo_off else None),
        }
    )
    return found or None


def _temperatures(root: Path) -> dict[str, float] | None:
    """Degrees Celsius by zone."""
    zones: dict[str, float] = {}
    for zone in _attempt(lambda: sorted(root.glob("sys/class/thermal/thermal_zone*"))) or []:
        place = str(zone.relative_to(root))
        value = _number(_read(f"{place}/temp", root), 1e-3)
        if value is not None:
            zones[f"{zone.name} {_read(f'{place}/type', root) or ''}".strip()] = value
    return zones or None


def _memory(root: Path) -> dict[str, float] | None:
    """Millions of bytes."""
    text = _read("proc/meminfo", root) or ""
    values = {key: int(kib) for key, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    names = {"total_mb": "MemTotal", "available_mb": "MemAvailable", "swap_free_mb": "SwapFree"}
    found = {ours: round(values[theirs] * 1024 / 1e6, 1) for ours, theirs in names.items() if theirs in values}
    return found or None


def available_memory_mb(root: Path = ROOT) -> float | None:
    """What programs can still take without swapping, in millions of bytes; None where the system does not tell."""
    return (_attempt(lambda: _memory(root)) or {}).get("available_mb")


def _container(root: Path) -> str | None:
    """A hint, not a proof."""
    if _attempt(lambda: (root / ".dockerenv").exists()):
        return "docker"
    if _attempt(lambda: (root / "run/.containerenv").exists()):
        return "podman"
    match = re.search(r"docker|kubepods|containerd|lxc", _read("proc/1/cgroup", root) or "")
    return match[0] if match else None


def _jetson(root: Path) -> dict[str, Any] | None:
    board = detect(Tree(root))
    return None if board is None else board.to_json()


def _versions(names: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _os_name(root: Path) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read("etc/os-release", root) or "", re.MULTILINE)
    return match[1] if match else platform.system()


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def describe_environment(root: Path = ROOT) -> dict[str, Any]:
    """Machine, system and libraries as a JSON object; keys that cannot be found out are absent. Never raises.

    Args:
        root: where `proc`, `sys` and `etc` lie, for tests.
    """
    load = _attempt(os.getloadavg) if hasattr(os, "getloadavg") else None
    return _known(
        {
            "hnx": __version__,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "os": _attempt(lambda: _os_name(root)),
            "kernel": _attempt(lambda: f"{platform.system()} {platform.release()}"),
            "machine": platform.machine(),
            "pointer_bits": 64 if sys.maxsize > 2**32 else 32,
            "cpu": _attempt(lambda: _cpu(root)),
            "load_average": [round(value, 2) for value in load] if load else None,
            "memory": _attempt(lambda: _memory(root)),
            "temperatures_c": _attempt(lambda: _temperatures(root)),
            "jetson": _attempt(lambda: _jetson(root)),
            "container": _attempt(lambda: _container(root)),
            "libraries": _attempt(lambda: _versions(LIBRARIES)),
            "thread_variables": {key: os.environ[key] for key in THREAD_VARIABLES if key in os.environ},
        }
    )
