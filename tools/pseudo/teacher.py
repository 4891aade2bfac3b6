"""Networks that label frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import ExitCode, HnxError, did_you_mean, first_line

__all__ = ["OnnxTeacher", "PseudoLabels", "Teacher", "parse_outputs"]

# output names of known networks and the classes they mean
_KNOWN = {"da": "road", "drive_area_seg": "road", "ll": "lane", "lane_line_seg": "lane"}


@dataclass(frozen=True)
class PseudoLabels:
    """What a teacher sees in one frame.

    Attributes:
        masks: uint8 (h, w), 0 or 1, at frame size, for each segmentation class.
        boxes: (x1, y1, x2, y2, category) in frame pixels; None from a teacher without boxes.
    """

    masks: Mapping[str, NDArray[np.uint8]]
    boxes: tuple[tuple[float, float, float, float, str], ...] | None = field(default=None)


class Teacher(Protocol):
    """Labels frames."""

    @property
    def name(self) -> str:
        """For the manifest."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Segmentation classes it knows."""

    def label(self, frame: NDArray[np.uint8]) -> PseudoLabels:
        """Labels of a uint8 (h, w, 3) BGR frame."""


def parse_outputs(text: str) -> dict[str, str]:
    """`da=road,ll=lane` to {"da": "road", "ll": "lane"}.

    Raises:
        HnxError: of another form (exit code 2).
    """
    found = {}
    for part in text.split(","):
        output, equals, label = (piece.strip() for piece in part.partition("="))
        if not (output and equals and label):
            raise HnxError(
                f"Cannot read the outputs {text!r}",
                why=f"{part!r} is not OUTPUT=CLASS",
                fix="write them as da=road,ll=lane",
                code=ExitCode.USAGE,
            )
        found[output] = label
    return found


class OnnxTeacher:
    """A segmentation network in ONNX: 1x3xHxW float32, RGB in 0..1, the frame stretched to its size.

    Each output that counts has two channels of logits, background and class, at any resolution (TwinLiteNet, YOLOP and
    their kin have this form). A frame and its mirror image are both looked at and their probabilities averaged: edges
    become steadier. The mean is enlarged to the frame before it is compared with one half, not after.

    Args:
        path: of the .onnx file.
        outputs: output name to class; None for the names of known networks (da, ll, ...).
        mirror: look at the mirror image, too.

    Raises:
        HnxError: ONNX Runtime is missing (exit code 4), or the network has another form.
    """

    def __init__(self, path: Path, outputs: Mapping[str, str] | None = None, *, mirror: bool = True) -> None:
        self.name, self._mirror = path.name, mirror
        if not path.is_file():
            raise HnxError(f"There is no teacher {path}", fix="check the path", code=ExitCode.FAILED)
        try:
            import onnxruntime
        except ImportError as error:
            raise HnxError(
                "Labelling with an ONNX teacher needs ONNX Runtime",
                why=str(error),
                fix='pip install "hnx[onnxruntime]"',
                code=ExitCode.NOTHING_RAN,
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )  # fmt: skip
        except Exception as error:  # its exceptions share no base class
            raise HnxError(
                f"Cannot load teacher {path}", why=first_line(error), fix="check that it is an ONNX network"
            ) from error
        self._input, self._size = self._check_input(path)
        self._outputs = self._check_outputs(path, outputs)

    @property
    def classes(self) -> tuple[str, ...]:
        """Segmentation classes it knows."""
        return tuple(self._outputs.values())

    def label(self, frame: NDArray[np.uint8]) -> PseudoLabels:
        """Masks of a frame; no boxes."""
        small = cv2.cvtColor(cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        views = [small, small[:, ::-1]] if self._mirror else [small]
        found = [self._probabilities(view) for view in views]
        height, width = frame.shape[:2]
        masks = {}
        for output, label in self._outputs.items():
            mean = found[0][output]
            if self._mirror:
                mean = (mean + found[1][output][:, ::-1]) * np.float32(0.5)
            mask = cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
            masks[label] = mask.astype(np.uint8)
        return PseudoLabels(masks)

    def _probabilities(self, image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        tensor = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        arrays = self._session.run(list(self._outputs), {self._input: tensor})
        result = {}
        for output, array in zip(self._outputs, arrays, strict=True):
            difference = np.asarray(array[0, 1] - array[0, 0], np.float32)
            if not np.isfinite(difference).all():
                raise HnxError(f"Output {output} of teacher {self.name} is not finite", fix="check the network")
            # softmax over two channels; beyond +-60 it is 0 or 1 in float32
            result[output] = (1.0 / (1.0 + np.exp(-np.clip(difference, -60, 60)))).astype(np.float32)
        return result

    def _check_input(self, path: Path) -> tuple[str, tuple[int, int]]:
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        sides = [side for side in shape[2:] if isinstance(side, int) and side > 0]
        if len(shape) != 4 or shape[1] != 3 or len(sides) != 2 or inputs[0].type != "tensor(float)":
            told = "; ".join(f"{spec.name} {spec.shape} {spec.type}" for spec in inputs)
            raise HnxError(
                f"Cannot use teacher {path}",
                why=f"it takes {told}, not one float32 1x3xHxW of fixed size",
                fix="export it with a fixed input size",
            )
        return inputs[0].name, (sides[1], sides[0])

    def _check_outputs(self, path: Path, outputs: Mapping[str, str] | None) -> dict[str, str]:
        there = {spec.name: spec.shape for spec in self._session.get_outputs()}
        if outputs is None:
            outputs = {name: _KNOWN[name] for name in there if name in _KNOWN}
        if not outputs:
            raise HnxError(
                f"Cannot tell what the outputs of teacher {path} mean",
                why=f"they are called {', '.join(there)}",
                fix="say it with --outputs NAME=CLASS,...",
                code=ExitCode.USAGE,
            )
        for name in outputs:
            if name not in there:
                raise HnxError(
                    f"Teacher {path} has no output {name!r}", fix=did_you_mean(name, list(there)), code=ExitCode.USAGE
                )
            shape = there[name]
            if len(shape) != 4 or shape[1] != 2:
                raise HnxError(
                    f"Cannot use output {name!r} of teacher {path}",
                    why=f"its shape is {shape}, not 1x2xHxW: logits of background and class",
                    fix="name another one with --outputs",
                )
        return dict(outputs)
