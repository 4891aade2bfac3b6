"""The child's side of a row's process: it loads one runtime at one precision and takes samples when it is told to.

Started as `python -m benchmarks.worker` by `benchmarks.children`, which describes the protocol.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.device import device_samples
from benchmarks.environment import Stopwatch
from benchmarks.frames import decode_jpeg, tensor_sha256
from benchmarks.sampling import (
    STAGES,
    Stamps,
    StopRule,
    WarmUpRule,
    collect,
    collect_parallel,
    peak_memory_mb,
    unrecorded,
    wait_idle,
    warm_up,
)
from benchmarks.serving import answer, probe, serve

__all__ = ["Session", "main", "reload"]


class Session:
    """What a child knows between commands. It does not know how they arrive."""

    def __init__(self) -> None:
        self._runtime: Any = None
        self._forward: list[Callable[[], Stamps]] = []
        self._end_to_end: list[Callable[[], Stamps]] = []
        self._probes: list[Any] = []
        self._outputs: dict[str, NDArray[Any]] = {}

    def handle(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one command; a failure is an answer too."""
        commands: dict[str, Callable[..., dict[str, Any]]] = {
            "probe": probe,
            "open": self.open,
            "reload": reload,
            "warm_up": self.warm_up,
            "measure": self.measure,
            "finish": self.finish,
        }
        return answer(commands, message)

    def open(
        self,
        *,
        bundle: str,
        runtime: str,
        precision: str,
        threads: int,
        streams: int,
        frames: Sequence[str],
        conf: float,
        iou: float,
        compiled: bool = False,
    ) -> dict[str, Any]:
        """Load the network, run it once, prepare the loops. Frames are files of JPEG bytes."""
        # hashes were compared by the parent: another 54 MB through SHA-256 would only warm the wrong caches
        from hybridnets.bundle import open_bundle
        from runtimes.base import RuntimeOptions
        from runtimes.opening import open_runtime
        from runtimes.predictor import Pipeline

        opened = open_bundle(Path(bundle), verify=False)
        # imports the library: only some rows would pay for that, as the process that looked becomes the first row's
        probe(runtime=runtime)
        encoded = [np.frombuffer(Path(name).read_bytes(), np.uint8) for name in frames]
        # pre- and postprocessing run on OpenCV's threads: the same number for every row
        cv2.setNumThreads(threads)
        before = peak_memory_mb()
        # no model cache: loading is measured cold, apart from the operating system's file cache
        options = RuntimeOptions(precision, threads, streams, compile=compiled, cache_dir=None)
        start = time.perf_counter_ns()
        self._runtime = open_runtime(runtime, opened, options)
        load = time.perf_counter_ns() - start
        after = peak_memory_mb()

        frame = decode_jpeg(encoded[0])
        pipelines = [Pipeline(self._runtime, conf=conf, iou=iou) for _ in range(streams)]
        # the preprocessor overwrites its buffer: the fixed input of the forward-only loop is a copy
        tensor = pipelines[0].preprocess(frame)[0].copy()
        start = time.perf_counter_ns()
        self._outputs = pipelines[0].network(tensor)
        first = time.perf_counter_ns() - start
        finite = self._finite()
        self._forward = [self._forward_step(pipeline, tensor) for pipeline in pipelines]
        self._end_to_end = [
            self._end_to_end_step(pipeline, encoded, offset) for offset, pipeline in enumerate(pipelines)
        ]
        execution = self._runtime.execution
        return {
            "load_ms": load / 1e6,
            "first_inference_ms": first / 1e6,
            "memory_mb": {"before_load": before, "after_load": after},
            "input_sha256": tensor_sha256(tensor),
            "finite": finite,
            "execution": {
                "precision": execution.precision,
                "device": execution.device,
                "threads": execution.threads,
                "library": execution.library,
                "details": dict(execution.details),
            },
        }

    def _finite(self) -> bool:
        return all(bool(np.isfinite(array).all()) for array in self._outputs.values())

    def _forward_step(self, pipeline: Any, tensor: NDArray[np.float32]) -> Callable[[], Stamps]:
        def step() -> Stamps:
            start = time.perf_counter_ns()
            self._outputs = pipeline.network(tensor)
            return start, time.perf_counter_ns()

        return step

    def _end_to_end_step(
        self, pipeline: Any, encoded: Sequence[NDArray[np.uint8]], offset: int
    ) -> Callable[[], Stamps]:
        position = offset

        def step() -> Stamps:
            nonlocal position
            data = encoded[position % len(encoded)]
            position += 1
            t0 = time.perf_counter_ns()
            frame = decode_jpeg(data)
            t1 = time.perf_counter_ns()
            tensor, box = pipeline.preprocess(frame)
            t2 = time.perf_counter_ns()
            outputs = pipeline.network(tensor)
            t3 = time.perf_counter_ns()
            pipeline.postprocess(outputs, box)
            return t0, t1, t2, t3, time.perf_counter_ns()

        return step

    def warm_up(self, *, window: int, tolerance: float, iterations: int, seconds: float) -> dict[str, Any]:
        """Forward-only samples until the rule is met; then the whole pipeline twice, for its own buffers."""
        samples, stable = warm_up(self._forward[0], WarmUpRule(window, tolerance, iterations, seconds))
        unrecorded(self._end_to_end, 2)
        return {"samples_ns": samples, "stable": stable, "idle": wait_idle()}

    def measure(
        self, *, kind: str, count: int, seconds: float, limit: float, discard: int, pause: float
    ) -> dict[str, Any]:
        """A pause, `discard` unrecorded iterations, then a slice of samples of `forward` or `end_to_end`."""
        steps = self._forward if kind == "forward" else self._end_to_end
        time.sleep(pause)
        unrecorded(steps, discard)
        rule = StopRule(count, seconds, limit)
        watch = Stopwatch()
        per_second: float | None = None
        # the parent's clock, too: it reads the power meanwhile
        span = [time.monotonic_ns()]
        if len(steps) == 1:
            stamps = collect(steps[0], rule)
        else:
            stamps, per_second = collect_parallel(steps, rule)
        span.append(time.monotonic_ns())
        wall, foreign = watch.stop()
        reply: dict[str, Any] = {
            "span_ns": span,
            "total_ns": [stamp[-1] - stamp[0] for stamp in stamps],
            "per_second": per_second,
            "wall_s": wall,
            "foreign_s": foreign,
        }
        if kind == "end_to_end":
            for index, stage in enumerate(STAGES):
                reply[f"{stage}_ns"] = [stamp[index + 1] - stamp[index] for stamp in stamps]
        reply["idle"] = wait_idle()
        return reply

    def finish(self) -> dict[str, Any]:
        """Peak memory, whether the last outputs are finite, and the device's own times; the network is freed."""
        reply: dict[str, Any] = {"peak_mb": peak_memory_mb(), "finite": self._finite(), "device_ms": {}}
        if self._runtime is not None and self._forward:
            reply["device_ms"] = device_samples(self._runtime, self._forward[-1])
        self._forward, self._end_to_end, self._outputs = [], [], {}
        if self._runtime is not None:
            self._runtime.close()
        return reply


def reload(*, bundle: str, runtime: str, precision: str, threads: int, streams: int, cache: str) -> dict[str, Any]:
    """Load the network as `Session.open` does, but from a folder of compiled networks, where it is then kept."""
    from hybridnets.bundle import open_bundle
    from runtimes.base import RuntimeOptions
    from runtimes.opening import open_runtime

    # with its digests, which are part of opening a bundle, not of loading its network
    opened = open_bundle(Path(bundle))
    probe(runtime=runtime)
    options = RuntimeOptions(precision, threads, streams, cache_dir=Path(cache))
    start = time.perf_counter_ns()
    with open_runtime(runtime, opened, options) as loaded:
        load = time.perf_counter_ns() - start
        tensor = loaded.warm_input()
        start = time.perf_counter_ns()
        loaded.infer(tensor)
        first = time.perf_counter_ns() - start
        state = loaded.execution.details["cache"]
    return {"load_ms": load / 1e6, "first_inference_ms": first / 1e6, "cache": state}


def main() -> None:
    """Serve the commands of a `Session`."""
    serve(Session().handle)


if __name__ == "__main__":
    main()
