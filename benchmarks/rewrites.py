"""What each exact rewrite of the graph brings: `python -m benchmarks.rewrites BUNDLE`.

The bundle's network is exported again from its weights: as torch and onnxsim leave it (stock), with the repairs that
every export gets (repaired), with each rewrite alone that finds something to do, and with all of them (all); for
OpenVINO once more as its runtime prepares a network before it is compiled (prepared). All variants are loaded into one
process and take turns, forwards and then backwards, so that a drifting machine slows all alike; what counts is the
ratio to stock. Beside it stands how far each is from PyTorch float32 when it runs in float32.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.dense import dense_variants
from benchmarks.environment import Stopwatch, describe_environment
from benchmarks.exports import export_again
from benchmarks.scripts import exit_code, foreign_cores, is_busy, write_figures
from benchmarks.statistics import paired_ratio, percentile
from benchmarks.turns import Timing, take_turns
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.data import read_demo_frame
from hybridnets.difference import difference
from hybridnets.errors import ExitCode
from runtimes.base import Runtime, RuntimeOptions, available_threads
from runtimes.cpu import has_native
from runtimes.opening import open_runtime

__all__ = [
    "ALL",
    "PREPARED",
    "REPAIRED",
    "STOCK",
    "Row",
    "distances",
    "in_runtime",
    "main",
    "make_stock",
    "make_variants",
    "measure",
    "rows",
]

STOCK, REPAIRED, ALL, PREPARED = "stock", "repaired", "all", "prepared"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Row:
    """One variant against stock.

    Attributes:
        name: of the variant.
        p50_ms: median of all samples.
        ratio: of the medians of all samples.
        paired: median over the rounds of the ratio of their medians.
        spread: lowest and highest of these ratios.
        paired_cpu: as `paired`, of CPU time.
        rel_l2: output -> relative L2 to PyTorch float32, the worst of the inputs; empty when it was not asked for.
    """

    name: str
    p50_ms: float
    ratio: float
    paired: float
    spread: tuple[float, float]
    paired_cpu: float
    rel_l2: dict[str, float]


def make_variants(bundle: Bundle, folder: Path, on_step: Callable[[str], None] = lambda _: None) -> dict[str, Bundle]:
    """Export a bundle's network once for each variant, in the order of the table.

    Raises:
        HnxError: the bundle has no weights, or an export fails.
    """

    def make(name: str, rewrite: str) -> Bundle:
        on_step(f"exporting: {name}")
        return export_again(bundle, folder / name, rewrite)

    everything = make(ALL, "all")
    passes = [entry["name"] for entry in everything.manifest["rewrites"] if entry["places"]]
    repaired = make(REPAIRED, "none")
    stock = _untiled(repaired, folder)
    return {STOCK: stock, REPAIRED: repaired, **{name: make(name, name) for name in passes}, ALL: everything}


def in_runtime(variants: Mapping[str, Bundle], runtime: str) -> dict[str, Bundle]:
    """The variants as a runtime is to run them: as they are exported, and where it changes networks itself (OpenVINO)
    the last one once more, as a user gets it."""
    found = {name: replace(bundle, manifest={}) for name, bundle in variants.items()}  # as files made by others
    return found | ({PREPARED: variants[ALL]} if runtime == "openvino" else {})


def make_stock(bundle: Bundle, folder: Path, on_step: Callable[[str], None] = lambda _: None) -> Bundle:
    """Export a bundle's network as torch and onnxsim leave it, as a bare file.

    Raises:
        HnxError: the bundle has no weights, or the export fails.
    """
    on_step(f"exporting: {STOCK}")
    return _untiled(export_again(bundle, folder / REPAIRED, "none"), folder)


def _untiled(bundle: Bundle, folder: Path) -> Bundle:
    """The same network without the tiles that the exporter puts before global average pools, as a bare file."""
    import onnx

    path = bundle.file(bundle.variant("fp32", "openvino").file)
    model = onnx.load(path)
    tiles = {node.output[0]: node for node in model.graph.node if node.name.endswith("_tiles")}
    kept = [node for node in model.graph.node if node.output[0] not in tiles]
    for node in kept:
        for index, name in enumerate(node.input):
            if name in tiles:
                node.input[index] = tiles[name].input[0]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.checker.check_model(model)
    target = folder / STOCK / path.name
    target.parent.mkdir()
    onnx.save(model, target)
    return open_bundle(target)


def rows(timings: Mapping[str, Timing], rel_l2: Mapping[str, dict[str, float]]) -> list[Row]:
    """A row for each variant; the first is what the others are compared with."""
    base = next(iter(timings.values()))
    reference = _median(base.wall)
    found = []
    for name, timing in timings.items():
        each = [percentile(a, 50) / percentile(b, 50) for a, b in zip(timing.wall, base.wall, strict=True)]
        median = _median(timing.wall)
        found.append(
            Row(
                name=name,
                p50_ms=median,
                ratio=median / reference,
                paired=percentile(each, 50),
                spread=(min(each), max(each)),
                paired_cpu=paired_ratio(timing.cpu, base.cpu) or 0.0,
                rel_l2=rel_l2.get(name, {}),
            )
        )
    return found


def _median(rounds: Sequence[Sequence[float]]) -> float:
    return percentile([sample for samples in rounds for sample in samples], 50)


def measure(
    variants: Mapping[str, Bundle], runtime: str, options: RuntimeOptions, *, rounds: int, samples: int
) -> dict[str, Timing]:
    """Load all variants into one process, and time them in turns on the demo frame."""
    frame = _inputs(next(iter(variants.values())))[0]
    with contextlib.ExitStack() as stack:
        opened: dict[str, Runtime] = {
            name: stack.enter_context(open_runtime(runtime, bundle, options)) for name, bundle in variants.items()
        }
        runs = {name: _run(network, frame) for name, network in opened.items()}
        return take_turns(runs, rounds=rounds, samples=samples)


def _run(runtime: Runtime, tensor: NDArray[np.float32]) -> Callable[[], object]:
    inputs = {runtime.bundle.input.name: tensor}
    return lambda: runtime.infer(inputs)


def _inputs(bundle: Bundle) -> list[NDArray[np.float32]]:
    """A real frame, and normal noise."""
    frame, _ = bundle.preprocessor()(read_demo_frame())
    return [frame.copy(), np.random.default_rng(1).standard_normal(frame.shape, np.float32)]


def distances(
    reference: Bundle, variants: Mapping[str, Bundle], runtime: str, threads: int
) -> dict[str, dict[str, float]]:
    """Relative L2 of each output to PyTorch float32, each variant in float32; the worst of two inputs."""
    options = RuntimeOptions("fp32", threads)
    tensors = _inputs(reference)
    roles = [role for role in reference.outputs if role != "anchors"]
    with open_runtime("torch", reference, options) as network:
        wanted = [
            {role: found[reference.outputs[role].name].copy() for role in roles}
            for found in (network.infer({reference.input.name: tensor}) for tensor in tensors)
        ]
    result = {}
    for name, bundle in variants.items():
        worst = dict.fromkeys(roles, 0.0)
        with open_runtime(runtime, bundle, options) as network:
            for tensor, right in zip(tensors, wanted, strict=True):
                found = network.infer({bundle.input.name: tensor})
                for role in roles:
                    value = difference(found[bundle.outputs[role].name], right[role]).rel_l2
                    worst[role] = max(worst[role], value)
        result[name] = worst
    return result


def _print(found: Sequence[Row], heading: str) -> None:
    print(heading)
    print(
        f"{'variant':24} {'p50 ms':>8} {'ratio':>6} {'paired':>7} {'lowest':>7} {'highest':>7} {'CPU':>6}  relative L2"
    )
    for row in found:
        far = ", ".join(f"{role[:3]} {value:.1e}" for role, value in row.rel_l2.items())
        print(
            f"{row.name:24} {row.p50_ms:8.2f} {row.ratio:6.3f} {row.paired:7.3f} {row.spread[0]:7.3f} "
            f"{row.spread[1]:7.3f} {row.paired_cpu:6.3f}  {far}"
        )


def _main(options: argparse.Namespace) -> int:
    bundle = open_bundle(options.bundle)
    fastest = "bf16" if options.runtime == "openvino" and has_native("bf16") else "fp32"
    precision = options.precision or fastest
    threads = options.threads or available_threads()

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="hnx-rewrites-") as folder:
        variants = make_variants(bundle, Path(folder), tell)
        dense = dense_variants(variants[ALL], Path(folder)) if options.dense else {}
        variants = in_runtime(variants, options.runtime) | dense
        tell("comparing with PyTorch")
        far = distances(bundle, variants, options.runtime, threads)
        tell("measuring")
        watch = Stopwatch()
        settings = RuntimeOptions(precision, threads)
        timings = measure(variants, options.runtime, settings, rounds=options.rounds, samples=options.samples)
        wall, others = watch.stop()
    found = rows(timings, far)
    where = f"{bundle.name}, {options.runtime} {precision}, {threads} thread(s)"
    _print(found, f"{where}, ratios to {STOCK}, {options.rounds} rounds")
    foreign = foreign_cores(wall, others)
    if is_busy(foreign):
        print(f"busy machine: other programs kept {foreign:.1f} cores busy meanwhile; look at paired and CPU")
    if options.json is not None:
        report: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "bundle": bundle.name,
            "runtime": options.runtime,
            "precision": precision,
            "threads": threads,
            "foreign_cores": foreign,
            "environment": describe_environment(),
            "rows": [asdict(row) | {"samples_ms": asdict(timings[row.name])} for row in found],
        }
        write_figures(options.json, report)
    together = next(row for name in (PREPARED, ALL) for row in found if row.name == name)
    if options.check is not None and together.paired > options.check:
        print(f"{together.name}: {together.paired:.3f}, the limit is {options.check:.3f}")
        return int(ExitCode.GATE_FAILED)
    return int(ExitCode.OK)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 3 where the network as users get it stays above the ratio given with --check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rewrites", description=__doc__)
    parser.add_argument("bundle", type=Path, help="a bundle with weights.safetensors")
    parser.add_argument("--rounds", type=int, default=8, help="each goes through all variants twice (default: 8)")
    parser.add_argument("--samples", type=int, default=3, help="inferences at each turn (default: 3)")
    parser.add_argument("--runtime", choices=("openvino", "onnxruntime", "opencv-dnn"), default="openvino")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: bf16 where the CPU has it")
    parser.add_argument("--threads", type=int, help="default: all available")
    parser.add_argument(
        "--dense", action="store_true", help="also with separable convolutions merged, on top of all rewrites"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything, raw samples too")
    parser.add_argument(
        "--check", type=float, metavar="RATIO", help="exit with 3 when `prepared` takes more (`all` outside OpenVINO)"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.samples < 1:
        parser.error("--rounds and --samples count from 1")
    return exit_code(lambda: _main(options))


if __name__ == "__main__":
    sys.exit(main())
