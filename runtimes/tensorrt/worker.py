"""A build in a process of its own: the child's side of `runtimes.tensorrt.launch`.

Builders take gigabytes, cannot be interrupted before TensorRT 10, and end the process when memory or a driver fails
them. Here all of that ends this process only. One JSON object on the standard input asks, objects on the standard
output answer; when the input closes, the parent is gone and so is this.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hybridnets.errors import ExitCode, HnxError, from_os_error, kind_and_line
from hybridnets.files import write_bytes

if TYPE_CHECKING:
    from runtimes.tensorrt.builder import Report

__all__ = ["main", "run"]

_MOST_CACHE = 512 << 20
_BETWEEN_S = 0.1


def run(job: dict[str, Any], folder: Path, send: Report) -> dict[str, Any]:
    """Build what `job` asks for, leave `plan` in `folder`, and return what the sidecar needs.

    Args:
        job: `config` (`PlanConfig.to_json`) and `cache_dir` (where default timing caches lie, or None).
        send: takes (phase, done, total); returns False to stop.

    Raises:
        HnxError: see `runtimes.tensorrt.builder.build`.
    """
    from runtimes.tensorrt import memory
    from runtimes.tensorrt.builder import build
    from runtimes.tensorrt.choose import weight_files
    from runtimes.tensorrt.config import PlanConfig
    from runtimes.tensorrt.driver import load_driver, probe
    from runtimes.tensorrt.library import load

    config = PlanConfig.from_json(job["config"])
    state = probe()
    library = load(config.flavor)
    library.guard(state, building=True)
    gpu = None if state.problem else state.gpu(config.gpu_index)
    if gpu is not None and config.gpu_index:
        _select(config.gpu_index)
    try:
        size = sum(path.stat().st_size for path in (config.onnx, *weight_files(config.onnx)))
    except OSError as error:
        raise from_os_error(f"Cannot read {config.onnx}", error) from error
    cpu, device = memory.free_bytes(state, load_driver(), config.gpu_index)
    memory.check_memory(size, cpu)
    workspace = config.workspace or memory.default_workspace(device, gpu is not None and gpu.integrated)
    where = config.timing_cache
    if where is None and gpu is not None:  # without a GPU nothing is timed
        where = _default_cache(job["cache_dir"], library.flavor, library.version, f"{gpu.sm}-{gpu.name}")
    built = build(config, library, state, workspace, _read_cache(where), send)
    (folder / "plan").write_bytes(built.plan)
    notes = list(built.notes)
    if where is not None and built.timing_cache:
        try:
            write_bytes(where, built.timing_cache)
        except HnxError as error:
            notes.append(f"the timing cache was not kept: {error.why}")
    return {
        "flavor": library.flavor,
        "version": library.version,
        "typing": library.typing,
        "gpu": None if gpu is None else {"name": gpu.name, "capability": list(gpu.capability), "sm": gpu.sm},
        "driver_cuda": state.driver_cuda,
        "workspace": workspace,
        "timing_cache": None if where is None else str(where),
        "tensors": [[t.name, t.mode, t.dtype, list(t.shape)] for t in built.tensors],
        "layers": [layer.to_json() for layer in built.layers],
        "layers_from": built.layers_from,
        "timing_s": built.timing_s,
        "notes": notes,
    }


def _select(index: int) -> None:
    """Make another GPU than the first one current: TensorRT builds on the current device."""
    from runtimes.tensorrt.driver import load_driver

    driver = load_driver()
    if driver is not None:
        driver.retain_primary(index)


def _default_cache(folder: str | None, flavor: str, version: str, device: str) -> Path | None:
    """One cache for each version and GPU: TensorRT refuses others, and timings differ."""
    if folder is None:
        return None
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{flavor}{version}-{device}")
    return Path(folder) / f"{name}.timing"


def _read_cache(path: Path | None) -> bytes:
    try:
        if path is None or path.stat().st_size > _MOST_CACHE:
            return b""
        return path.read_bytes()
    except OSError:
        return b""


def main() -> int:
    """Serve one build."""
    # libraries print to the standard output: it is moved away from under them
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def answer(value: dict[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(value, allow_nan=False) + "\n")
            answers.flush()

    line = sys.stdin.readline()
    if not line:
        return 0
    job = json.loads(line)
    folder = Path(job["folder"])
    stop = threading.Event()
    threading.Thread(target=_watch, args=(sys.stdin, stop, folder), daemon=True).start()

    last_phase, last_time = "", 0.0

    def send(phase: str, done: int, total: int) -> bool:
        nonlocal last_phase, last_time
        # a builder takes tens of thousands of steps; ten of them a second are enough to look at
        now = time.monotonic()
        if phase != last_phase or now - last_time >= _BETWEEN_S:
            last_phase, last_time = phase, now
            answer({"phase": phase[:200], "done": done, "total": total})
        return not stop.is_set()

    try:
        answer({"result": run(job, folder, send)})
    except HnxError as error:
        answer({"error": {"what": error.what, "why": error.why, "fix": error.fix, "code": int(error.code)}})
    except OSError as error:
        failure = from_os_error("A file operation of the build failed", error)
        answer({"error": {"what": failure.what, "why": failure.why, "fix": failure.fix, "code": int(failure.code)}})
    except MemoryError:
        answer({"error": _failure("Not enough memory to build", "Python found none", "close other programs")})
    except Exception as error:
        if os.environ.get("HNX_DEBUG"):
            raise
        why = kind_and_line(error)
        answer({"error": _failure("The build failed", why, "run it again with HNX_DEBUG=1 and report the traceback")})
    # the libraries' own clean-up at the end of a process may crash after the answer is out
    os._exit(0)


def _failure(what: str, why: str, fix: str) -> dict[str, Any]:
    return {"what": what, "why": why, "fix": fix, "code": int(ExitCode.FAILED)}


def _watch(stream: TextIO, stop: threading.Event, folder: Path) -> None:
    """Wait for the parent's word `stop`, or its death."""
    for line in stream:
        if line.strip() == "stop":
            stop.set()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
