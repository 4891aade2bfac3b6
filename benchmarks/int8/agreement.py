"""One Q/DQ file in several runtimes: do they lose the same? Their kernels differ, what the file says does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy.quick import score, tasks
from benchmarks.int8.networks import SIMULATED, Network, int8_files, open_network, with_file
from hybridnets.bundle import Bundle
from hybridnets.dataset import Sample

__all__ = ["LIMIT", "Agreement", "agree"]

# points that two runtimes' figures of one file may differ by
LIMIT = 0.3
RUNTIMES = ("onnxruntime", "openvino", SIMULATED)


@dataclass(frozen=True)
class Agreement:
    """Figures of one file.

    Attributes:
        placement: whose runtime it was made for.
        file: its name.
        figures: runtime to task to points.
        executed: runtime to how many convolutions it ran in which precision, as far as it tells.
    """

    placement: str
    file: str
    figures: dict[str, dict[str, float]]
    executed: dict[str, Any]

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

    Raises:
        HnxError: the bundle stores none, or a runtime refuses one.
    """
    found = []
    for placement, path in int8_files(bundle).items():
        figures, executed = {}, {}
        shared = with_file(bundle, Path(path))
        for name in runtimes:
            on_step(f"{placement}'s network in {name}")
            with open_network(Network(name, shared, name, "int8"), threads) as runtime:
                figures[name] = tasks(score(runtime, samples))
                executed[name] = dict(runtime.execution.details).get("convolutions", runtime.execution.library)
        found.append(Agreement(placement, path.name, figures, executed))
    return found
