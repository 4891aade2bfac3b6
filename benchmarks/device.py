"""What a GPU's own clock says about a row: copies and compute, and whether it is launched as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.statistics import percentile
from runtimes.base import Runtime

__all__ = ["PARTS", "device_json", "device_lines", "device_samples"]

PARTS = ("upload", "compute", "download")
_SAMPLES = 50


def device_samples(runtime: Runtime, step: Callable[[], Any]) -> dict[str, list[float]]:
    """Part to times in ms of inferences of their own, so that reading the clock is in no other figure.

    Args:
        step: one inference, of the context that was made last.

    Returns:
        Nothing where the runtime has no device to copy to.
    """
    if not runtime.device_times():
        return {}
    samples: dict[str, list[float]] = {part: [] for part in PARTS}
    for _ in range(_SAMPLES):
        step()
        times = runtime.device_times()[-1]
        for part in PARTS:
            samples[part].append(getattr(times, part))
    return samples


def device_json(samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """For the report: part to median and raw samples."""
    return {
        part: {"p50": round(percentile(values, 50), 4), "samples": list(values)}
        for part, values in samples.items()
        if values
    }


def device_lines(rows: Sequence[Mapping[str, Any]], name: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """A line for each row that has such times, and one where a graph could not be captured."""
    lines = []
    for row in rows:
        if times := row.get("device_ms"):
            parts = ", ".join(f"{part} {value['p50']:.3f}" for part, value in times.items())
            lines.append(f"{name(row)} on the device: {parts} (p50)")
        details = (row.get("execution") or {}).get("details") or {}
        if details.get("no_graph_because"):
            lines.append(
                f"{name(row)} is launched kernel by kernel, not as a CUDA graph: {details['no_graph_because']}"
            )
    return lines
