"""Under which conditions predictions are scored, and which outputs a network has to be scored for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hybridnets.config import SegMode
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from hybridnets.bundle import Bundle, GraphForm

__all__ = ["PROTOCOLS", "Heads", "Protocol"]


@dataclass(frozen=True)
class Protocol:
    """Thresholds of the postprocessing, and where segmentation is scored.

    Attributes:
        name: for reports.
        conf: boxes need a score strictly above it, in [0, 1].
        iou: overlap above which the weaker box of a class is dropped, in [0, 1].
        at: `input` scores the network's own map, padding included; `frame` the masks at frame size as `hnx infer`
            delivers them, against masks that were never resized. Boxes are always scored in frame pixels.

    Raises:
        HnxError: a threshold is outside [0, 1], or `at` is unknown (exit code 2).
    """

    name: str
    conf: float
    iou: float
    at: Literal["input", "frame"]

    def __post_init__(self) -> None:
        if not (0.0 <= self.conf <= 1.0 and 0.0 <= self.iou <= 1.0):
            raise HnxError(
                f"Protocol {self.name} with conf {self.conf} and iou {self.iou}",
                why="thresholds lie between 0 and 1",
                fix="for example conf 0.25, iou 0.3",
                code=ExitCode.USAGE,
            )
        if self.at not in ("input", "frame"):
            raise HnxError(
                f"Protocol {self.name} scores at {self.at!r}", fix="use 'input' or 'frame'", code=ExitCode.USAGE
            )

    def within(self, form: GraphForm) -> Protocol:
        """This protocol, or, for a graph that suppresses boxes itself, with the thresholds that it has."""
        return self if form.nms is None else replace(self, conf=form.nms.conf, iou=form.nms.iou)


PROTOCOLS: dict[str, Protocol] = {
    # what the HybridNets paper's tables were made with: P is tiny at such a low confidence, and meant to be
    "paper": Protocol("paper", 0.001, 0.6, "input"),
    # what a deployment delivers: the defaults of `hnx infer`
    "deploy": Protocol("deploy", 0.25, 0.3, "frame"),
}


@dataclass(frozen=True)
class Heads:
    """The outputs that are scored, by the names of their classes.

    Attributes:
        classes: detection classes; empty without a detection head.
        seg_classes: segmentation classes without the background; empty without a segmentation head.
        seg_mode: how the classes share the pixels.
    """

    classes: tuple[str, ...] = ()
    seg_classes: tuple[str, ...] = ()
    seg_mode: SegMode = "multiclass"

    @classmethod
    def for_bundle(cls, bundle: Bundle) -> Heads:
        """Those that a bundle has."""
        return cls(
            tuple(bundle.classes) if bundle.detects else (),
            tuple(bundle.seg_classes) if bundle.segments else (),
            bundle.seg_mode,
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of what is counted: the background first, unless the mode is binary or there is no such head."""
        if not self.seg_classes or self.seg_mode == "binary":
            return self.seg_classes
        return ("background", *self.seg_classes)
