"""Our clock against OpenVINO's own: `python -m benchmarks.crosscheck BUNDLE`.

`hnx bench` and OpenVINO's benchmark_app measure the same network with the same precision and input type, in turns, in
processes of their own, both with all threads and one stream. A tool whose figures differ from the vendor's measures
something else. benchmark_app gets the network as our runtime hands it to OpenVINO (`runtimes.openvino_graph`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.statistics import percentile
from hybridnets.bundle import open_bundle
from hybridnets.errors import HnxError
from hybridnets.files import temporary_directory
from runtimes.openvino import save_prepared

__all__ = ["main", "measure_hnx", "measure_vendor", "read_vendor"]


def measure_hnx(bundle: Path, iterations: int) -> float:
    """p50 of OpenVINO forward-only FP32 in ms, by `hnx bench`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "bench.json"
        settings = ["--runtime", "openvino:fp32", "--fast", "--iterations", str(iterations), "--max-time", "600"]
        _run([sys.executable, "-m", "hnx", "bench", str(bundle), *settings, "--json", str(report)])
        row = json.loads(report.read_text())["rows"][0]
    if "skipped" in row:
        raise HnxError("hnx bench did not run openvino:fp32", why=row["skipped"]["reason"], fix=row["skipped"]["fix"])
    return float(row["forward_ms"]["p50"])


def measure_vendor(network: Path, iterations: int) -> float:
    """Median latency in ms, by benchmark_app: one synchronous request, float32 inputs, the latency hint.

    Raises:
        HnxError: benchmark_app is not installed or fails.
    """
    program = shutil.which("benchmark_app", path=str(Path(sys.executable).parent)) or shutil.which("benchmark_app")
    if program is None:
        raise HnxError("benchmark_app was not found", why="it comes with openvino", fix='pip install -e ".[openvino]"')
    with tempfile.TemporaryDirectory() as folder:
        settings = ["-d", "CPU", "-api", "sync", "-hint", "latency", "-infer_precision", "f32", "-ip", "f32"]
        output = ["-report_type", "no_counters", "-json_stats", "-report_folder", folder]
        _run([program, "-m", str(network), *settings, "-niter", str(iterations), *output])
        return read_vendor(json.loads(next(Path(folder).glob("*.json")).read_text()))


def read_vendor(report: dict[str, Any]) -> float:
    """Median latency in ms of a benchmark_app report; it prints ms or us as it likes, the report says which."""
    results = report["execution_results"]
    for unit, factor in (("ms", 1.0), ("us", 0.001)):
        if f"latency ({unit})" in results:
            return float(results[f"latency ({unit})"]) * factor
    raise HnxError("This benchmark_app report has no median", why=", ".join(results), fix="update openvino")


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        raise HnxError(f"{Path(command[0]).name} failed", why=lines[-1][:300] if lines else "", fix="run it by hand")


def main(arguments: list[str] | None = None) -> int:
    """Measure in turns (ours, theirs, theirs, ours, ...) and print both and the median ratio of the rounds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crosscheck", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=8, help="pairs of measurements (default: 8)")
    parser.add_argument("--iterations", type=int, default=60, help="inferences of each (default: 60)")
    options = parser.parse_args(arguments)
    bundle = open_bundle(options.bundle)
    ratios = []
    with temporary_directory("hnx-crosscheck-") as folder:
        network = folder / "network.xml"
        save_prepared(bundle, network)
        sides = {"hnx": (measure_hnx, bundle.path), "benchmark_app": (measure_vendor, network)}
        for index in range(options.rounds):
            pair: dict[str, float] = {}
            for name in sides if index % 2 == 0 else reversed(sides):
                measure, path = sides[name]
                pair[name] = measure(path, options.iterations)
            ratios.append(pair["hnx"] / pair["benchmark_app"])
            figures = ", ".join(f"{name} {pair[name]:.2f} ms" for name in sides)
            print(f"round {index + 1}: {figures}, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio of {len(ratios)} rounds: {percentile(ratios, 50):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
