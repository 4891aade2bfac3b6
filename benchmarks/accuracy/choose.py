"""Which frames are worth looking at: the worst of a row, and those that changed most against the baseline.

A frame's score is the mean of its parts: F1 of the boxes at confidence 0.25 and IoU 0.5, and the IoU of every
segmentation class but the background. Every part lies in 0..1 and weighs the same.

* Worst: the lowest scores, perfect frames left out.
* Most changed: the largest mean of |part of the candidate - part of the baseline|. The amounts are added before any
  part can make up for another: a frame that loses a lane and gains a box has changed.

Equal frames follow in the order of their names, so a second run chooses the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from benchmarks.accuracy.records import ImageRecord

__all__ = ["VISIBLE", "WORKING_CONF", "Choice", "FrameFigures", "choose", "frame_figures"]

# what `hnx infer` draws; the boxes of the paper protocol go down to 0.001, and nobody could read such a picture
WORKING_CONF = 0.25
# two decimals are shown: what does not show there is no change
VISIBLE = 0.005
Kind = Literal["worst", "changed"]


@dataclass(frozen=True)
class FrameFigures:
    """What one row made of one frame, at `WORKING_CONF`.

    Attributes:
        name: of the frame.
        found, missed, false: label boxes with a match (IoU of at least 0.5, same class), those without, and
            predicted boxes without one.
        parts: name to value in 0..1: F1 with a detection head, then the IoU of every segmentation class. F1 and
            IoU are 1 where label and prediction are both empty.
    """

    name: str
    found: int
    missed: int
    false: int
    parts: dict[str, float]

    @property
    def score(self) -> float:
        """Mean of the parts; 1 without any."""
        return sum(self.parts.values()) / len(self.parts) if self.parts else 1.0

    def change(self, baseline: FrameFigures) -> float:
        """Mean of the absolute differences of the parts."""
        if not self.parts:
            return 0.0
        return sum(abs(value - baseline.parts[part]) for part, value in self.parts.items()) / len(self.parts)


@dataclass(frozen=True)
class Choice:
    """A frame to be shown.

    Attributes:
        kind: why: one of the worst, or one of the most changed.
        rank: from 1 on.
        candidate, baseline: figures of both rows; no baseline for a row on its own.
    """

    kind: Kind
    rank: int
    candidate: FrameFigures
    baseline: FrameFigures | None

    @property
    def name(self) -> str:
        """Of the frame."""
        return self.candidate.name

    @property
    def reason(self) -> str:
        """Why the frame was chosen, in words."""
        return _worst_reason(self.candidate) if self.kind == "worst" else _changed_reason(self)


def frame_figures(record: ImageRecord, *, boxes: bool, seg_classes: Sequence[str]) -> FrameFigures:
    """Figures of one image.

    Args:
        record: of the image.
        boxes: the row has a detection head.
        seg_classes: names of the segmentation classes without the background; empty without that head.
    """
    found = missed = false = 0
    parts: dict[str, float] = {}
    if boxes:
        hits = record.hits[record.scores > WORKING_CONF]
        found = int((hits > 0).sum())
        false = len(hits) - found
        missed = len(record.labels) - found
        total = 2 * found + false + missed
        parts["F1"] = 2 * found / total if total else 1.0
    # multiclass and multilabel records start with the background, binary ones do not
    counts = record.seg[len(record.seg) - len(seg_classes) :]
    for name, (tp, fp, fn, _) in zip(seg_classes, counts.tolist(), strict=True):
        parts[f"{name} IoU"] = tp / (tp + fp + fn) if tp + fp + fn else 1.0
    return FrameFigures(record.name, found, missed, false, parts)


def choose(
    candidate: Iterable[FrameFigures], baseline: Iterable[FrameFigures] | None, count: int
) -> tuple[Choice, ...]:
    """The `count` worst frames, then the `count` most changed ones; fewer where no more are imperfect or changed.

    Args:
        candidate: figures of every scored frame.
        baseline: the same of the baseline, None without one. Frames that only one of both has are never "changed".
        count: of each kind, at least 0.
    """
    frames = list(candidate)
    others = {} if baseline is None else {figures.name: figures for figures in baseline}
    imperfect = [figures for figures in frames if figures.score < 1]
    worst = sorted(imperfect, key=lambda figures: (figures.score, figures.name))[:count]
    pairs = [(figures, others[figures.name]) for figures in frames if figures.name in others]
    moved = [(figures.change(other), figures, other) for figures, other in pairs]
    changed = sorted((row for row in moved if row[0] > 0), key=lambda row: (-row[0], row[1].name))[:count]
    return (
        *(Choice("worst", rank, frame, others.get(frame.name)) for rank, frame in enumerate(worst, start=1)),
        *(Choice("changed", rank, frame, other) for rank, (_, frame, other) in enumerate(changed, start=1)),
    )


def _worst_reason(figures: FrameFigures) -> str:
    words = [f"score {figures.score:.2f}"]
    if "F1" in figures.parts:
        words.append(f"{figures.missed} of {figures.found + figures.missed} boxes missed, {figures.false} false")
    words += [f"{part} {value:.2f}" for part, value in figures.parts.items() if part != "F1"]
    return "; ".join(words)


def _changed_reason(choice: Choice) -> str:
    new, old = choice.candidate, choice.baseline
    if old is None:
        return ""
    steps = [(value - old.parts[part], part) for part, value in new.parts.items()]
    shown = sorted((step for step in steps if abs(step[0]) >= VISIBLE), key=lambda step: -abs(step[0]))
    if not shown:
        return f"changed by {new.change(old):.4f} only"
    down, up = any(step < 0 for step, _ in shown), any(step > 0 for step, _ in shown)
    verdict = "worse and better" if down and up else "worse" if down else "better"
    return f"{verdict}: " + ", ".join(f"{part} {old.parts[part]:.2f} to {new.parts[part]:.2f}" for _, part in shown)
