"""Runtimes, processes and clocks of our own: what the tests of the measurement put in place of the real ones."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import hybridnets.bundle
from benchmarks import worker
from benchmarks.children import checked
from benchmarks.config import BenchConfig
from benchmarks.report import Report
from benchmarks.sampling import STAGES, StopRule, collect
from benchmarks.statistics import summarise
from benchmarks.worker import Session
from hybridnets.anchors import AnchorRule, anchor_count
from hybridnets.bundle import Bundle, Variant
from hybridnets.onnx_header import TensorSpec
from runtimes import registry
from runtimes.base import Arrays, Execution, Probe, Runtime
from runtimes.registry import RuntimeEntry

SIZE = (128, 256)
ANCHORS = anchor_count(SIZE[1], SIZE[0])
# what a Timed worker claims of its input tensor
SHA256 = "0" * 64


# -- runtimes ------------------------------------------------------------------------------------------------


class Steady(Runtime):
    """Answers at once and prints where it must not."""

    name = "steady"
    extra = ""
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32"}

    @classmethod
    def probe(cls) -> Probe:
        print("a library talks")
        os.write(1, b"so does its C code\n")
        return Probe(version="1", precisions={"fp32": "", "bf16": "", "fp16": "this CPU has no native fp16"})

    def _open(self) -> Execution:
        shapes = {spec.name: spec.shape for spec in self.bundle.outputs.values()}
        self._outputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        return Execution(self.options.precision, "CPU", self.options.thread_count, "steady 1", {"answer": 42})

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        return self._outputs

    def _close(self) -> None: ...


class Slow(Steady):
    """Two milliseconds in which other threads of the process can work."""

    name = "slow"

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        time.sleep(0.002)
        return self._outputs


class Fallback(Steady):
    """Runs fp32 whatever is asked for."""

    name = "fallback"

    def _open(self) -> Execution:
        super()._open()
        return Execution("fp32", "CPU", 1, "fallback 1")


class Broken(Steady):
    """NaN out."""

    name = "broken"

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        return {name: np.full_like(array, np.nan) for name, array in self._outputs.items()}


class Greedy(Steady):
    """Memory runs out."""

    name = "greedy"

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        raise MemoryError


class Mortal(Steady):
    """The process is killed from outside in the middle of the work."""

    name = "mortal"
    calls = 0

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        Mortal.calls += 1
        if Mortal.calls > 20:
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return self._outputs


def rows_of(*classes: type[Runtime], precisions: tuple[str, ...] = ("fp32",)) -> tuple[RuntimeEntry, ...]:
    return tuple(RuntimeEntry(cls.name, cls.__module__, cls.__name__, "", (cls.name,), precisions) for cls in classes)


def fake_bundle() -> Bundle:
    height, width = SIZE
    return Bundle(
        path=Path("fake.onnx"),
        input=TensorSpec("input", "float32", (1, 3, height, width)),
        outputs={
            "regression": TensorSpec("regression", "float32", (1, ANCHORS, 4)),
            "classification": TensorSpec("classification", "float32", (1, ANCHORS, 1)),
            "segmentation": TensorSpec("segmentation", "float32", (1, 3, height, width)),
        },
        classes=("car",),
        seg_classes=("road", "lane"),
        seg_mode="multiclass",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        variants=(Variant("fp32", "fake.onnx"),),
        anchors_file=None,
        anchor_rule=AnchorRule(),
    )


# -- processes and clocks -----------------------------------------------------------------------------------


def serve() -> None:
    """What a real child of these tests runs: the ordinary loop with our runtimes."""
    registry.REGISTRY = rows_of(Steady, Mortal)
    hybridnets.bundle.open_bundle = lambda path, verify=True: fake_bundle()  # type: ignore[assignment]
    worker.main()


CHILD = ("-c", "from tests.benchmarks import fakes; fakes.serve()")


class LocalWorker:
    """A session in this process; what passes is passed as JSON, as between processes."""

    def __init__(self, log: list[tuple[str, str]] | None = None) -> None:
        self.session, self.log, self.name = Session(), log, ""
        self.closed = False

    def call(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        if command == "open":
            self.name = f"{arguments['runtime']}:{arguments['precision']}"
        if self.log is not None:
            self.log.append((self.name, arguments.get("kind", command)))
        message = json.loads(json.dumps({"command": command, **arguments}))
        return checked(json.loads(json.dumps(self.session.handle(message), default=str)))

    def close(self) -> None:
        self.closed = True


class Clock:
    """Nanoseconds that pass only when a step takes them."""

    def __init__(self, *durations: float) -> None:
        self.now, self._durations, self.calls = 0, durations, 0

    def __call__(self) -> int:
        return self.now

    def step(self) -> tuple[int, int]:
        start = self.now
        self.now += round(self._durations[min(self.calls, len(self._durations) - 1)] * 1e9)
        self.calls += 1
        return start, self.now


class Timed:
    """A worker whose inferences take the seconds given for its runtime, over and over; no real time passes.

    Args:
        durations: by name of the runtime.
        log: rows whose forward-only slices were asked for, in order.
    """

    def __init__(self, durations: Mapping[str, Sequence[float]], log: list[str] | None = None) -> None:
        self._durations, self._log = durations, log
        self._name, self._done, self.seconds = "", 0, 0.0

    def call(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        if command == "probe":
            return {"reason": "", "fix": "", "precisions": {"fp32": ""}, "runnable": ["fp32"]}
        if command == "open":
            self._name = arguments["runtime"]
            execution = {"precision": "fp32", "device": "CPU", "threads": 1, "library": "timed", "details": {}}
            head = {"load_ms": 1.0, "first_inference_ms": 1.0, "memory_mb": {}, "finite": True}
            return {**head, "input_sha256": SHA256, "execution": execution}
        if command == "warm_up":
            return {"samples_ns": self._take(StopRule(10, 0, math.inf)), "stable": True, "idle": True}
        if command == "measure":
            if self._log is not None and arguments["kind"] == "forward":
                self._log.append(self._name)
            self._take(StopRule(arguments["discard"], 0, math.inf))
            begun = round(self.seconds * 1e9)
            taken = self._take(StopRule(arguments["count"], arguments["seconds"], arguments["limit"]))
            stages = {f"{stage}_ns": taken for stage in STAGES} if arguments["kind"] == "end_to_end" else {}
            span = [begun, round(self.seconds * 1e9)]
            common = {"per_second": None, "foreign_s": 0.0, "idle": True, "span_ns": span}
            return {"total_ns": taken, "wall_s": sum(taken) / 1e9, **common, **stages}
        return {"peak_mb": 1.0, "finite": True}

    def _take(self, rule: StopRule) -> list[int]:
        durations = self._durations[self._name]
        here = self._done % len(durations)
        clock = Clock(*[*durations[here:], *durations[:here]] * 1000)
        taken = [end - start for start, end in collect(clock.step, rule, clock)]
        self._done += len(taken)
        self.seconds += sum(taken) / 1e9
        return taken

    def close(self) -> None: ...


# -- a run ---------------------------------------------------------------------------------------------------


def config(**changes: Any) -> BenchConfig:
    values: dict[str, Any] = {
        "bundle": fake_bundle(),
        "preset": "fast",
        "iterations": 6,
        "duration_s": 0.01,
        "rounds": 3,
        "threads": 1,
    }
    return BenchConfig(**{**values, **changes})


def measured(report: Report, name: str) -> dict[str, Any]:
    return next(dict(row) for row in report.rows if f"{row['runtime']}:{row['precision']}" == name)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


# -- reports -------------------------------------------------------------------------------------------------


def report_row(runtime: str = "openvino", precision: str = "fp32", p50: float = 10.0, **changes: Any) -> dict[str, Any]:
    forward, whole = summarise([p50] * 30).to_json(), summarise([p50 + 5] * 30).to_json()
    return {
        "runtime": runtime,
        "precision": precision,
        "executed": precision,
        "valid": True,
        "reasons": [],
        "advice": [],
        "enough_samples": None,
        "forward_ms": forward,
        "end_to_end_ms": whole,
        "stages_ms": dict.fromkeys(("decode", "preprocess", "network", "postprocess"), forward),
        "frames_per_second": {"forward": 100.0, "end_to_end": 66.7},
        "load_ms": 123.4,
        "first_inference_ms": 20.0,
        "memory_mb": {"before_load": 50.0, "after_load": 100.0, "peak": 150.0},
        "ratio": {"baseline": "openvino:fp32", "forward": p50 / 10, "end_to_end": 1.0},
        **changes,
    }


def report_skipped(runtime: str = "torch", reason: str = "no weights") -> dict[str, Any]:
    return {"runtime": runtime, "precision": "fp32", "valid": False, "skipped": {"reason": reason, "fix": "export"}}


def report_of(*rows: dict[str, Any], **settings: Any) -> Report:
    values = {"scenario": "single", "streams": 1, "threads": 2, "input_sha256": "ab", "baseline": "openvino:fp32"}
    return Report(
        rows=rows,
        environment={"cpu": {"model": "Example 9000"}, "hnx": "0", "os": "Linux", "python": "3"},
        settings={**values, **settings},
        bundle={"name": "hybridnets_c3_384x640", "untrained": True},
        created="2020-01-01T00:00:00+00:00",
    )
