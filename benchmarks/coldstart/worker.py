"""One process, one start: it loads a network, runs it once, and tells what took how long.

Started anew for each sample by `benchmarks.coldstart.samples`. Nothing is imported before the clock runs but what the
protocol needs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.serving import answer, serve

__all__ = ["SPANS", "main", "plain", "through_hnx"]

# what a start consists of; `keep` writes the compiled network into the cache
SPANS = ("import", "read", "compile", "keep", "first")


class _Watch:
    def __init__(self) -> None:
        self._last = time.perf_counter_ns()
        self._imported = 0
        self.spans = dict.fromkeys(SPANS, 0.0)

    def lap(self, name: str) -> None:
        now = time.perf_counter_ns()
        self.spans[name] += (now - self._last) / 1e6
        self._last = now
        if name == "import":
            self._imported = time.process_time_ns()

    @property
    def cpu_ms(self) -> float:
        """CPU time of all threads since the imports."""
        return (time.process_time_ns() - self._imported) / 1e6


def plain(*, path: str, precision: str, threads: int) -> dict[str, Any]:
    """OpenVINO as its manual uses it: read_model, compile_model, an inference.

    Args:
        precision: as OpenVINO names it (`bf16`, `f32`).
    """
    watch = _Watch()
    # as in our runtime: its telemetry would wait for a network
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import numpy as np
    import openvino as ov

    watch.lap("import")
    core = ov.Core()
    model = core.read_model(path)
    watch.lap("read")
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(model, "CPU", config)
    watch.lap("compile")
    compiled.create_infer_request().infer({0: np.zeros(tuple(compiled.input(0).shape), np.float32)})
    watch.lap("first")
    return _reply(watch, "off")


def through_hnx(*, path: str, precision: str, threads: int, cache: str) -> dict[str, Any]:
    """A bundle as `hnx` opens it: the manifest and the digests of its files checked, its network loaded, an inference.

    Args:
        precision: as we name it (`bf16`, `fp32`).
        cache: folder of compiled networks.
    """
    watch = _Watch()
    from hybridnets.bundle import open_bundle
    from runtimes.base import RuntimeOptions
    from runtimes.opening import open_runtime
    from runtimes.registry import entry, probe

    probe(entry("openvino"))
    watch.lap("import")
    bundle = open_bundle(path, weights=False)  # as hnx.load does
    watch.lap("read")
    runtime = open_runtime("openvino", bundle, RuntimeOptions(precision, threads, cache_dir=Path(cache)))
    details = runtime.execution.details
    watch.lap("compile")
    watch.spans["keep"] = float(details["cache_ms"])
    watch.spans["compile"] -= watch.spans["keep"]
    runtime.infer(runtime.warm_input())
    watch.lap("first")
    return _reply(watch, str(details["cache"]))


def _reply(watch: _Watch, cache: str) -> dict[str, Any]:
    cpu_ms = watch.cpu_ms
    return {"spans_ms": watch.spans, "cpu_ms": cpu_ms, "cache": cache, "process_cpu_ms": time.process_time() * 1e3}


def main() -> None:
    """Serve the two commands."""
    commands: dict[str, Callable[..., dict[str, Any]]] = {"plain": plain, "through_hnx": through_hnx}
    serve(lambda message: answer(commands, message))


if __name__ == "__main__":
    main()
