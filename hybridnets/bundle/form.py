"""What a bundle's graph does beside the network: the part of pre- and postprocessing that was put into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hybridnets.errors import ExitCode, HnxError, did_you_mean

__all__ = ["UNFUSED", "DetectionForm", "GraphForm", "InputForm", "NmsForm", "SegmentationForm"]

InputForm = Literal["float32", "uint8"]
SegmentationForm = Literal["logits", "classmap", "lowres"]
DetectionForm = Literal["raw", "decoded", "nms"]

LOWRES_FACTOR = 4  # the last enlargement of the segmentation head
# TensorRT's TopK takes no more
MOST_CANDIDATES = 3840


@dataclass(frozen=True)
class NmsForm:
    """Settings of a suppression inside the graph; it cannot be asked for others afterwards.

    Attributes:
        conf: boxes need a score strictly above it, in [0, 1].
        iou: overlap above which the weaker box of a class is dropped, in [0, 1].
        candidates: boxes that are looked at, the best by score.
        boxes: rows of the output.

    Raises:
        HnxError: a value is out of range (exit code 2).
    """

    conf: float = 0.25
    iou: float = 0.3
    # a frame of busy traffic has some 500 anchors above 0.25 around 75 boxes
    candidates: int = 1024
    boxes: int = 300

    def __post_init__(self) -> None:
        for name, value in (("confidence", self.conf), ("IoU", self.iou)):
            if not 0.0 <= value <= 1.0:
                raise _usage(f"A {name} threshold of {value}", "thresholds lie between 0 and 1", "for example 0.25")
        if not 1 <= self.boxes <= self.candidates <= MOST_CANDIDATES:
            raise _usage(
                f"Suppression of {self.candidates} candidates to {self.boxes} boxes",
                f"there are at least as many candidates as boxes, and 1 to {MOST_CANDIDATES} of each",
                "for example 1024 candidates and 300 boxes",
            )


@dataclass(frozen=True)
class GraphForm:
    """The form of a graph's input and outputs.

    Attributes:
        input: `float32`: (N, 3, H, W) RGB, normalised. `uint8`: (N, H, W, 3) BGR, the letterboxed canvas.
        segmentation: `logits`: float32 (N, C, H, W). `classmap`: uint8, what the logits say: multiclass (N, H, W), the
            number of the class; binary (N, H, W) and multilabel (N, C, H, W), 0 or 1. `lowres`: float32
            (N, C, H/4, W/4), logits before the last enlargement.
        detection: `raw`: outputs `regression` and `classification`. `decoded`: `boxes` float32 (N, A, 4) x1, y1, x2,
            y2 in input pixels, and `classification`. `nms`: `detections` float32 (1, K, 6) x1, y1, x2, y2, score,
            class, best first; rows with a score of 0 are empty.
        nms: settings where `detection` is `nms`, else None.

    Raises:
        HnxError: an unknown word, or settings that contradict each other (exit code 2).
    """

    input: InputForm = "float32"
    segmentation: SegmentationForm = "logits"
    detection: DetectionForm = "raw"
    nms: NmsForm | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("input", self.input, get_args(InputForm)),
            ("segmentation", self.segmentation, get_args(SegmentationForm)),
            ("detection", self.detection, get_args(DetectionForm)),
        ):
            if value not in allowed:
                raise _usage(
                    f"Unknown form of {name} {value!r}", did_you_mean(str(value), allowed), "choose one of these"
                )
        if (self.detection == "nms") != (self.nms is not None):
            raise _usage(
                "Thresholds and suppression in the graph belong together", "one of them is missing", "use --nms"
            )

    @property
    def fused(self) -> bool:
        """The graph does anything beside the network."""
        return self != UNFUSED

    @property
    def detection_roles(self) -> tuple[str, ...]:
        """Roles of the outputs of a detection head."""
        return {
            "raw": ("regression", "classification"),
            "decoded": ("boxes", "classification"),
            "nms": ("detections",),
        }[self.detection]

    def thresholds(self, conf: float | None = None, iou: float | None = None) -> tuple[float, float]:
        """Score and overlap thresholds: those asked for, else those of a suppression in the graph, else 0.25 and 0.3.

        Raises:
            HnxError: outside [0, 1], or not to be had from a graph that suppresses boxes itself (exit code 2).
        """
        graph = self.nms or NmsForm()
        chosen = NmsForm(graph.conf if conf is None else conf, graph.iou if iou is None else iou)
        if self.nms is not None and (chosen.conf < graph.conf or chosen.iou != graph.iou):
            raise _usage(
                f"Boxes above {chosen.conf:g} with an IoU of {chosen.iou:g} cannot be had from this bundle",
                f"its graph suppresses boxes itself, with thresholds {graph.conf:g} and {graph.iou:g}",
                f"use --conf {graph.conf:g} (or more) --iou {graph.iou:g}, or export without --nms",
            )
        return chosen.conf, chosen.iou

    def size(self, shape: tuple[int | str, ...]) -> tuple[int, int]:
        """(height, width) of an input of this form and shape.

        Raises:
            ValueError: it has not four dimensions, or height and width are free.
        """
        sides = shape[1:3] if self.input == "uint8" else shape[2:4]
        if len(shape) != 4 or not all(isinstance(side, int) for side in sides):
            raise ValueError(f"the input is not {'N x H x W x 3' if self.input == 'uint8' else 'N x 3 x H x W'}")
        return int(sides[0]), int(sides[1])

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        found: dict[str, Any] = {
            "input": self.input,
            "segmentation": self.segmentation,
            "detection": self.detection,
        }
        if self.nms is not None:
            found["nms"] = {
                "conf": self.nms.conf,
                "iou": self.nms.iou,
                "candidates": self.nms.candidates,
                "boxes": self.nms.boxes,
            }
        return found

    @classmethod
    def from_json(cls, value: Any) -> GraphForm:
        """Of a manifest, which anybody may have written; a manifest without it (None) has the unfused form.

        Raises:
            HnxError, ValueError: anything but what `to_json` writes.
        """
        if value is None:
            return UNFUSED
        fields = _group(value, "pipeline", {"input", "segmentation", "detection"}, {"nms"})
        nms = None
        if "nms" in fields:
            numbers = _group(fields["nms"], "pipeline.nms", {"conf", "iou", "candidates", "boxes"}, set())
            for name, kinds in (("conf", (int, float)), ("iou", (int, float)), ("candidates", int), ("boxes", int)):
                number = numbers[name]
                if isinstance(number, bool) or not isinstance(number, kinds) or not abs(number) < 1e9:
                    raise ValueError(f"pipeline.nms.{name} is no number")
            nms = NmsForm(float(numbers["conf"]), float(numbers["iou"]), numbers["candidates"], numbers["boxes"])
        return cls(fields["input"], fields["segmentation"], fields["detection"], nms)


UNFUSED = GraphForm()


def _usage(what: str, why: str, fix: str) -> HnxError:
    return HnxError(what, why=why, fix=fix, code=ExitCode.USAGE)


def _group(value: Any, name: str, needed: set[str], optional: set[str]) -> Mapping[str, Any]:
    """A group of keys, refused when one is missing or unknown: what it means cannot be guessed."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no group of keys")
    if missing := needed - value.keys():
        raise ValueError(f"{name} has no {', '.join(sorted(missing))}")
    if unknown := value.keys() - needed - optional:
        raise ValueError(f"{name} has a key that this hnx does not know: {str(sorted(map(str, unknown))[0])[:40]}")
    return value
