"""One Q/DQ file in several runtimes: do they lose the same? Their kernels differ, what the file says does not.

Equal to the last bit they cannot be. A value on the edge of two steps of INT8 falls to either side by the float noise
of a fused kernel, and a step is 1/127 of a range: the outputs of two runtimes without any error of their own are 0.07
(relative L2, classification of the shipped network) from each other, and 0.10 from the float network. So the
difference of two runtimes' figures comes with its interval, which narrows with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accuracy.metrics import Accumulator
from benchmarks.accuracy.quick import score, tasks
from benchmarks.int8.networks import SIMULATED, Network, int8_files, open_network, with_file
from benchmarks.int8.table import Loss, loss
from hybridnets.bundle import Bundle
from hybridnets.dataset import Sample

__all__ = ["LIMIT", "Agreement", "agree"]

# points that two runtimes' figures of one file may differ by
LIMIT = 0.3
FLOAT = "float32"
RUNTIMES = ("onnxruntime", "openvino", SIMULATED)


@dataclass(frozen=True)
class Agreement:
    """Figures of one file.

    Attributes:
        placement: whose runtime it was made for.
        file: its name.
        figures: runtime to task to points.
        executed: runtime to how many convolutions it ran in which precision, as far as it tells.
        differences: runtime to what it lost against the simulated network; empty where that did not run.
        lost: what the simulated network lost against float32: the file's own loss, without any runtime's kernels.
    """

    placement: str
    file: str
    figures: dict[str, dict[str, float]]
    executed: dict[str, Any]
    differences: dict[str, Loss] = field(default_factory=dict)
    lost: Loss | None = None

    @property
    def spread(self) -> dict[str, float]:
        """Task to the largest difference between two runtimes, in points."""
        rows = list(self.figures.values())
        return {task: max(row[task] for row in rows) - min(row[task] for row in rows) for task in rows[0]}

    def to_json(self) -> dict[str, Any]:
        """As it stands in a report."""
        return {
            "placement": self.placement,
            "file": self.file,
            "points": self.figures,
            "spread": self.spread,
            "executed": self.executed,
            "lost_against_simulated": {name: asdict(lost) for name, lost in self.differences.items()},
            "lost_against_float": None if self.lost is None else asdict(self.lost),
        }


def agree(
    bundle: Bundle,
    samples: Sequence[Sample],
    threads: int,
    *,
    runtimes: Sequence[str] = RUNTIMES,
    on_step: Callable[[str], None] = lambda _: None,
) -> list[Agreement]:
    """Score every stored INT8 network, whosever placement it has, in all of the runtimes.

    What a file leaves in float is computed in FP32 by all of them.

    Raises:
        HnxError: the bundle stores none, or a runtime refuses one.
    """
    with open_network(Network(FLOAT, bundle, RUNTIMES[0], "fp32"), threads) as runtime:
        on_step(f"{FLOAT} in {runtime.name}")
        unrounded = score(runtime, samples)
    found = []
    for placement, path in int8_files(bundle).items():
        executed: dict[str, Any] = {}
        scored: dict[str, Accumulator] = {}
        shared = with_file(bundle, Path(path))
        for name in runtimes:
            on_step(f"{placement}'s network in {name}")
            with open_network(Network(name, shared, name, "int8"), threads, as_written=True) as runtime:
                scored[name] = score(runtime, samples)
                executed[name] = dict(runtime.execution.details).get("convolutions", runtime.execution.library)
        others = [name for name in scored if name != SIMULATED and SIMULATED in scored]
        differences = {name: loss(SIMULATED, name, scored) for name in others}
        figures = {name: tasks(accumulator) for name, accumulator in scored.items()}
        lost = loss(FLOAT, SIMULATED, {FLOAT: unrounded, **scored}) if SIMULATED in scored else None
        found.append(Agreement(placement, path.name, figures, executed, differences, lost))
    return found
