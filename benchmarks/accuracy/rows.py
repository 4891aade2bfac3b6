"""One row of an evaluation: what is known of it while it runs, and its JSON afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.accuracy.metrics import Accumulator
from benchmarks.accuracy.store import Chunk
from hybridnets.errors import HnxError, printable

__all__ = ["EvalRow", "inputs_json"]

# of each kind of trouble with images; the counts are whole
SHOWN = 1000


@dataclass
class EvalRow:
    """One row.

    Attributes:
        accumulator: everything that was scored.
        network: file, SHA-256 and rewrites of what a tuned row runs; None for the precisions of the bundle's files.
        execution: what really ran, once it was opened.
        skipped: reason and fix, once it was given up.
        failed: it could run and then did not: unlike a row that cannot run here, that is somebody's fault.
        broken: name to reason of the images that could not be read.
        nonfinite: images for which the network gave infinite values or NaN.
        dropped: name to a sentence for each label box that cannot be a truth.
        inputs: name to SHA-256 of the tensor that the network got.
        resumed: images that an earlier run had scored.
        restarts: how often its process died and was started again.
        seconds: that this run took for it.
    """

    runtime: str
    precision: str
    accumulator: Accumulator
    network: dict[str, str] | None = None
    execution: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] | None = None
    failed: bool = False
    broken: dict[str, str] = field(default_factory=dict)
    nonfinite: list[str] = field(default_factory=list)
    dropped: dict[str, Sequence[str]] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    resumed: int = 0
    restarts: int = 0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """`runtime:precision`."""
        return f"{self.runtime}:{self.precision}"

    @property
    def live(self) -> bool:
        """It was not given up."""
        return self.skipped is None

    @property
    def done(self) -> int:
        """Images that are settled, broken ones too."""
        return len(self.inputs) + len(self.broken)

    def skip(self, reason: str, fix: str) -> None:
        """It cannot run here."""
        self.skipped = {"reason": reason, "fix": fix}

    def fail(self, error: HnxError, during: str) -> None:
        """It was tried and did not work."""
        reason = ": ".join(filter(None, [error.what, error.why]))
        self.skip(f"{reason} (while {during})", error.fix)
        self.failed = True

    def add(self, chunk: Chunk) -> None:
        """Take in scored images."""
        for record in chunk.records:
            self.accumulator.add(record)
            self.inputs[record.name] = record.input_sha256
        self.broken.update(chunk.broken)
        self.nonfinite += chunk.nonfinite
        self.dropped.update(chunk.dropped)

    @property
    def input_sha256(self) -> str:
        """Hex SHA-256 over the names and inputs of all images, in the order of the names."""
        digest = hashlib.sha256()
        for name in sorted(self.inputs):
            digest.update(f"{name!r} {self.inputs[name]}\n".encode())
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As it stands in the report, apart from intervals and drops, which need the other rows."""
        head: dict[str, Any] = {"runtime": self.runtime, "precision": self.precision}
        if self.network is not None:
            head["network"] = self.network
        if not self.live:
            return {**head, "skipped": {**(self.skipped or {}), "failed": self.failed}}
        metrics = self.accumulator.metrics()
        return {
            **head,
            "executed": self.execution["precision"],
            "images": len(self.inputs),
            "labels": metrics.labels,
            "metrics": metrics.to_json(),
            "input_sha256": self.input_sha256,
            "execution": {key: value for key, value in self.execution.items() if key != "precision"},
            "nonfinite": {"count": len(self.nonfinite), "images": shown(sorted(self.nonfinite))},
            "resumed_images": self.resumed,
            "restarts": self.restarts,
            "seconds": round(self.seconds, 1),
        }


def shown(names: Iterable[str]) -> list[str]:
    """The first 1000, as text that JSON and terminals can show."""
    return [printable(name) for name, _ in zip(names, range(SHOWN), strict=False)]


def inputs_json(rows: Sequence[EvalRow]) -> dict[str, Any]:
    """Whether all rows saw the same bytes: {"identical", "sha256", "differing"}.

    A row that lacks an image which another one has differs, too; `sha256` is None then.
    """
    live = [row for row in rows if row.live]
    if not live:
        return {"identical": True, "sha256": None, "differing": []}
    first: Mapping[str, str] = live[0].inputs
    differing: set[str] = set()
    for row in live[1:]:
        if row.inputs != first:
            names = first.keys() | row.inputs.keys()
            differing |= {name for name in names if first.get(name) != row.inputs.get(name)}
    return {
        "identical": not differing,
        "sha256": None if differing else live[0].input_sha256,
        "differing": shown(sorted(differing)),
    }
