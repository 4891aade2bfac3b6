"""Latency against stock OpenVINO, and points lost, of our INT8 network and of others beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.bootstrap import Interval, intervals
from benchmarks.accuracy.metrics import Accumulator
from benchmarks.accuracy.quick import drops, score, tasks
from benchmarks.int8.networks import Network, open_network, with_file
from benchmarks.rewrites import Row, rows
from benchmarks.turns import Timing, take_turns
from hybridnets.bundle import Bundle
from hybridnets.data import read_demo_frame
from hybridnets.dataset import Sample
from hybridnets.errors import HnxError
from runtimes.base import Runtime

__all__ = ["FLOAT", "STOCK", "Loss", "loss", "losses", "measure", "networks"]

FLOAT, STOCK = "stock fp32", "stock"
DRAWS = 200


@dataclass(frozen=True)
class Loss:
    """What one row loses.

    Attributes:
        baseline: name of the row that it is compared with.
        points: task to points lost; negative is a gain.
        interval: task to its 95 % interval by resampling the images.
    """

    baseline: str
    points: dict[str, float]
    interval: dict[str, Interval]


def networks(
    stock: Bundle,
    ours: Bundle,
    *,
    half: str,
    nncf: Path | None = None,
    twin: Bundle | None = None,
    also: Sequence[Bundle] = (),
) -> list[Network]:
    """The rows, the one that ratios refer to first.

    Args:
        stock: the network as PyTorch's exporter leaves it.
        ours: the same network as `hnx export` and `hnx quantize` leave it.
        half: the fastest float precision of this CPU.
        nncf: what NNCF made of it, OpenVINO IR.
        twin: another network with an INT8 variant, compared with its own float32.
        also: the first network exported otherwise, for the same input.

    Raises:
        HnxError: a file is missing, a bundle differs in its input, or two of `also` have one name.
    """
    called = [other.name for other in also]
    if len(set(called)) != len(called):
        raise HnxError("Two bundles of one name", why=", ".join(called), fix="give one of them another name")
    for other in (ours, *([twin] if twin is not None else []), *also):
        if other.target != stock.target or (other.mean, other.std) != (stock.mean, stock.std):
            raise HnxError(f"{other.name} and {stock.name} take different inputs", fix="export both at one size")
    found = [
        Network(f"{STOCK} {half}", stock, "openvino", half, FLOAT),
        Network(FLOAT, stock, "openvino", "fp32"),
        Network(f"rewritten {half}", ours, "openvino", half, FLOAT),
        Network("our INT8", ours, "openvino", "int8", FLOAT),
        *(Network(f"{other.name} {half}", other, "openvino", half, FLOAT) for other in also),
    ]
    if nncf is not None:
        found.append(Network("NNCF default INT8", with_file(stock, nncf), "openvino", "int8", FLOAT))
    if twin is not None:
        found += [
            Network("twin fp32", twin, "openvino", "fp32"),
            Network(f"twin {half}", twin, "openvino", half, "twin fp32"),
            Network("twin INT8", twin, "openvino", "int8", "twin fp32"),
        ]
    return found


def measure(
    chosen: Sequence[Network],
    samples: Sequence[Sample],
    threads: int,
    *,
    rounds: int,
    count: int,
    on_step: Callable[[str], None] = lambda _: None,
) -> tuple[list[Row], dict[str, Timing], dict[str, Accumulator]]:
    """Score every network, and then time all of them in turns in one process.

    Args:
        samples: labelled images; without any, nothing is scored.
        rounds, count: of timing, and of samples at each turn.

    Raises:
        HnxError: a network cannot run here.
    """
    with contextlib.ExitStack() as stack:
        opened: dict[str, Runtime] = {}
        for network in chosen:
            on_step(f"loading {network.name}")
            opened[network.name] = stack.enter_context(open_network(network, threads))
        scored = {}
        for name, runtime in opened.items() if samples else ():
            on_step(f"scoring {name}")
            scored[name] = score(runtime, samples)
        on_step("timing in turns")
        runs = {name: _run(runtime) for name, runtime in opened.items()}
        timings = take_turns(runs, rounds=rounds, samples=count)
    return rows(timings, {}), timings, scored


def _run(runtime: Runtime) -> Callable[[], object]:
    bundle = runtime.bundle
    feed = {bundle.input.name: bundle.preprocessor()(read_demo_frame())[0].copy()}
    return lambda: runtime.infer(feed)


def losses(chosen: Sequence[Network], scored: Mapping[str, Accumulator]) -> dict[str, Loss]:
    """Name of a row to its loss, for rows with a baseline.

    Raises:
        HnxError: the labels hold nothing that the network has a task for.
    """
    found = {}
    for network in chosen:
        if not network.baseline:
            continue
        found[network.name] = loss(network.baseline, network.name, scored)
    return found


def loss(baseline: str, name: str, scored: Mapping[str, Accumulator]) -> Loss:
    """What one row loses against another.

    Raises:
        HnxError: the labels hold nothing that the network has a task for.
    """
    pair = {baseline: scored[baseline], name: scored[name]}
    points = drops(tasks(pair[baseline]), tasks(pair[name]))
    spread = intervals(pair, baseline, draws=DRAWS).drops.get(name, {})
    ends = {task: (100 * spread[task][0], 100 * spread[task][1]) for task in points if task in spread}
    return Loss(baseline, points, ends)
