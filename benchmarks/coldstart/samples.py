"""Starts in turns, each in a process of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.children import ChildWorker, Worker
from benchmarks.turns import take_turns
from hybridnets.bundle import Bundle
from hybridnets.errors import HnxError

__all__ = ["NEVER", "SEEN", "STOCK", "UPSTREAM", "Sample", "take_samples"]

UPSTREAM, STOCK, NEVER, SEEN = "upstream", "stock", "never seen", "seen"
TIMEOUT_S = 300.0
_WORKER = ("-m", "benchmarks.coldstart.worker")
# as OpenVINO names them
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


@dataclass(frozen=True)
class Sample:
    """One start.

    Attributes:
        spans_ms: by name, `benchmarks.coldstart.worker.SPANS`.
        cpu_ms: CPU time of all threads, without the imports; other programs do not count in it.
        process_ms: from before the process was made to its answer.
        process_cpu_ms: CPU time of the whole process.
    """

    spans_ms: Mapping[str, float]
    cpu_ms: float
    process_ms: float
    process_cpu_ms: float

    @property
    def inference_ms(self) -> float:
        """To the first inference of a process that has its libraries: all spans but the imports."""
        return sum(value for name, value in self.spans_ms.items() if name != "import")

    @property
    def whole_ms(self) -> float:
        """All spans."""
        return sum(self.spans_ms.values())


def take_samples(
    bundle: Bundle,
    plain: Mapping[str, Bundle],
    folder: Path,
    *,
    precision: str,
    threads: int,
    rounds: int,
    start: Callable[[], Worker] = lambda: ChildWorker(_WORKER),
) -> dict[str, list[list[Sample]]]:
    """Name to samples by round: two of each kind of start, one on the way forwards and one backwards.

    Args:
        plain: name to network, for OpenVINO without hnx.
        folder: for caches; it must be empty.

    Raises:
        HnxError: a start failed, or the cache did not do what its row is called after.
    """
    last: dict[str, Sample] = {}
    found: dict[str, list[Sample]] = {name: [] for name in (*plain, NEVER, SEEN)}

    def run(name: str) -> None:
        if name in plain:
            network = plain[name]
            path = network.file(network.variant("fp32", "openvino").file)
            arguments: dict[str, Any] = {"path": str(path.resolve()), "precision": _HINTS[precision]}
            last[name] = _start(start, "plain", "off", {**arguments, "threads": threads})
            return
        cache = folder / name.replace(" ", "-")
        if name == NEVER:
            shutil.rmtree(cache, ignore_errors=True)
        wanted = "read" if name == SEEN and cache.exists() else "written"
        arguments = {"path": str(bundle.path.resolve()), "precision": precision, "cache": str(cache)}
        last[name] = _start(start, "through_hnx", wanted, {**arguments, "threads": threads})

    # what `take_turns` runs once before the rounds fills the cache, and reads every file
    take_turns(
        {name: lambda name=name: run(name) for name in found},  # type: ignore[misc]
        rounds=rounds,
        samples=1,
        wake=False,
        after=lambda name: found[name].append(last[name]),
    )
    return {name: [samples[i : i + 2] for i in range(0, len(samples), 2)] for name, samples in found.items()}


def _start(start: Callable[[], Worker], command: str, cache: str, arguments: dict[str, Any]) -> Sample:
    begun = time.perf_counter_ns()
    worker = start()
    try:
        reply = worker.call(command, TIMEOUT_S, **arguments)
        elapsed = (time.perf_counter_ns() - begun) / 1e6
    finally:
        worker.close()
    if reply["cache"] != cache:
        raise HnxError(
            "The cache of compiled networks does not work here",
            why=f"it should be {cache!r}, it is {reply['cache']!r}",
            fix="free some space where temporary files lie",
        )
    return Sample(reply["spans_ms"], reply["cpu_ms"], elapsed, reply["process_cpu_ms"])
