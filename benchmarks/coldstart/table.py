"""What the samples of all starts come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.coldstart.samples import Sample
from benchmarks.coldstart.worker import SPANS
from benchmarks.statistics import percentile

__all__ = ["Ratio", "Row", "rows", "text"]


@dataclass(frozen=True)
class Ratio:
    """Time of one kind of start over that of another.

    Attributes:
        paired: median over the rounds of the ratio of their medians.
        spread: lowest and highest of these ratios.
    """

    paired: float
    spread: tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One kind of start.

    Attributes:
        spans_ms: median of each span.
        inference_ms, whole_ms, process_ms: medians; see `Sample`.
        ratios: name of a plain start to the ratio of `inference_ms`.
        whole_ratios: the same of `whole_ms`, with the imports.
        cpu_ratios: the same of CPU time, without the imports.
    """

    name: str
    spans_ms: dict[str, float]
    inference_ms: float
    whole_ms: float
    process_ms: float
    ratios: dict[str, Ratio]
    whole_ratios: dict[str, Ratio]
    cpu_ratios: dict[str, Ratio]


def rows(samples: Mapping[str, Sequence[Sequence[Sample]]], bases: Sequence[str]) -> list[Row]:
    """A row for each kind of start.

    Args:
        samples: name to samples by round.
        bases: names of what the others are compared with.
    """

    def ratio(name: str, base: str, value: Callable[[Sample], float]) -> Ratio:
        each = [
            percentile([value(s) for s in mine], 50) / percentile([value(s) for s in theirs], 50)
            for mine, theirs in zip(samples[name], samples[base], strict=True)
        ]
        return Ratio(percentile(each, 50), (min(each), max(each)))

    found = []
    for name, rounds in samples.items():
        every = [sample for taken in rounds for sample in taken]
        found.append(
            Row(
                name=name,
                spans_ms={span: percentile([s.spans_ms[span] for s in every], 50) for span in SPANS},
                inference_ms=percentile([s.inference_ms for s in every], 50),
                whole_ms=percentile([s.whole_ms for s in every], 50),
                process_ms=percentile([s.process_ms for s in every], 50),
                ratios={base: ratio(name, base, lambda s: s.inference_ms) for base in bases},
                whole_ratios={base: ratio(name, base, lambda s: s.whole_ms) for base in bases},
                cpu_ratios={base: ratio(name, base, lambda s: s.cpu_ms) for base in bases},
            )
        )
    return found


def text(found: Sequence[Row], bases: Sequence[str]) -> str:
    """The table; times in ms."""
    heads = "".join(f"  {f'to {base} (low to high)':>28}" for base in bases)
    spans = "".join(f"{span:>9}" for span in SPANS)
    lines = [f"{'p50, ms':12}{spans}{'all':>9}{heads}{'with imports':>15}{'CPU':>14}"]
    for row in found:
        cells = "".join(
            f"  {f'{r.paired:.3f} ({r.spread[0]:.3f} to {r.spread[1]:.3f})':>28}" for r in row.ratios.values()
        )
        whole, cpu = (
            ", ".join(f"{r.paired:.3f}" for r in kind.values()) for kind in (row.whole_ratios, row.cpu_ratios)
        )
        spent = "".join(f"{row.spans_ms[span]:9.1f}" for span in SPANS)
        lines.append(f"{row.name:12}{spent}{row.whole_ms:9.1f}{cells}{whole:>15}{cpu:>14}")
    return "\n".join(lines)
