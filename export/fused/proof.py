"""Proof that a graph with fused steps delivers what the same steps deliver outside of it.

A copy of the graph also returns the network's own outputs. Those are held against PyTorch, with the tolerance of every
export: that proves all that stands before them, the normalisation of a uint8 input too. From the same outputs the fused
ones are computed in numpy (`hybridnets.fused`), and what the graph made of them has to be equal up to rounding. Boxes
are also looked at on outputs as a trained network gives them on a busy street, since untrained weights find none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.fused.graph import FusedGraph
from export.fused.synthetic import boxes_alone, busy_street
from export.graph import save
from export.proof import Proof, Reference, Worst, open_session, proof_inputs, readable_errors, within
from hybridnets.bundle import GraphForm
from hybridnets.config import SegMode
from hybridnets.enlarge import Enlarger
from hybridnets.errors import HnxError
from hybridnets.fused import class_maps, decoded, suppressed
from hybridnets.preprocess import Preprocessor

if TYPE_CHECKING:
    import onnx

    from hybridnets.network.model import HybridNets

__all__ = ["FusedProof", "prove_fused"]

# of the larger of a box's coordinates and a pixel: exp differs by some units in the last place between libraries
_BOX_TOLERANCE = 1e-5
# two boxes may overlap by the threshold to the last bit, and a pixel may have two classes
_LEAST_MATCHED = 0.98


@dataclass
class FusedProof:
    """Holds fused outputs against the same computed from the network's own, and keeps the worst.

    Attributes:
        form: of the graph.
        anchors: float32 (1, A, 4) y1, x1, y2, x2; None without a detection head.
        target: (height, width) of the input.
        seg_mode: how logits are read.
        classes: of the detection head.
        tolerance: of logits, relative.
    """

    form: GraphForm
    anchors: NDArray[np.float32] | None
    target: tuple[int, int]
    seg_mode: SegMode
    classes: int
    tolerance: float

    def __post_init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self._enlarger: Enlarger | None = None

    def add(self, outputs: Mapping[str, NDArray[Any]], raw: Mapping[str, NDArray[np.float32]]) -> None:
        """Compare what one run made: the graph's outputs, and the raw ones they were made of, both by role.

        Raises:
            HnxError: they differ by more than rounding.
        """
        if "boxes" in outputs:
            self._boxes(outputs["boxes"], raw)
        if "detections" in outputs:
            self._detections(outputs["detections"], raw)
        if "segmentation" in outputs and self.form.segmentation == "classmap":
            self._map(outputs["segmentation"], raw)
        if "segmentation" in outputs and self.form.segmentation == "lowres":
            self._lowres(outputs["segmentation"], raw)

    def _keep(self, role: str, total: dict[str, float], largest: dict[str, float]) -> None:
        known = self.found.setdefault(role, {})
        for name, value in total.items():
            known[name] = known.get(name, 0) + value
        for name, value in largest.items():
            known[name] = max(known.get(name, 0.0), value)

    def _boxes(self, boxes: NDArray[np.float32], raw: Mapping[str, NDArray[np.float32]]) -> None:
        assert self.anchors is not None
        expected = decoded(raw["regression"], self.anchors, self.target)
        largest = _distance(boxes, expected)
        self._keep("boxes", {"boxes": boxes.shape[0] * boxes.shape[1]}, {"largest_relative": float(largest.max())})
        if not largest.max() <= _BOX_TOLERANCE:
            raise _differs("boxes", f"relative difference {largest.max():.1e} of a coordinate")

    def _detections(self, rows: NDArray[np.float32], raw: Mapping[str, NDArray[np.float32]]) -> None:
        assert self.anchors is not None
        assert self.form.nms is not None
        settings = self.form.nms
        expected = suppressed(raw["regression"], raw["classification"], self.anchors, self.target, settings)[0]
        expected, found = expected[expected[:, 4] > 0], rows[0][rows[0, :, 4] > 0]
        matched = sum(_has(found, row) for row in expected)
        count = max(len(expected), len(found))
        self._keep("detections", {"boxes": count, "matched": matched}, {})
        if matched < _LEAST_MATCHED * count:
            raise _differs("detections", f"{len(found)} boxes, {len(expected)} outside the graph, {matched} equal")

    def _map(self, found: NDArray[np.uint8], raw: Mapping[str, NDArray[np.float32]]) -> None:
        logits = raw["segmentation"]
        self._same_classes(found, class_maps(logits, self.seg_mode), logits)

    def _lowres(self, found: NDArray[np.float32], raw: Mapping[str, NDArray[np.float32]]) -> None:
        """Enlarged outside, the logits are those of the network, and so are the classes."""
        logits = raw["segmentation"]
        if self._enlarger is None:
            source = (found.shape[-2], found.shape[-1])
            self._enlarger = Enlarger(source, self.target, 0, 0, self.target)
        wide = np.stack([self._enlarger(image) for image in found])
        scale = float(np.abs(logits).max()) or 1.0
        largest = float(np.abs(wide - logits).max()) / scale
        self._keep("segmentation", {}, {"largest_relative": largest})
        if not largest <= self.tolerance:
            raise _differs("segmentation", f"relative difference {largest:.1e} of a logit")
        self._same_classes(class_maps(wide, self.seg_mode), class_maps(logits, self.seg_mode), logits)

    def _same_classes(self, found: NDArray[np.uint8], expected: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        """Other classes only where two logits are equal, or one is zero, up to rounding."""
        most = logits.shape[1] - 1 if self.seg_mode == "multiclass" else 1
        if found.max(initial=0) > most:
            raise _differs("segmentation", f"class {found.max()} where {most} is the last")
        different = found != expected
        margin = 0.0
        if different.any():
            if self.seg_mode == "multiclass":
                values = [np.take_along_axis(logits, index[:, None], axis=1)[:, 0] for index in (expected, found)]
                gap = values[0] - values[1]
            else:
                gap = np.abs(logits if self.seg_mode == "multilabel" else logits[:, 0])
            margin = float(gap[different].max()) / (float(np.abs(logits).max()) or 1.0)
        self._keep(
            "segmentation",
            {"pixels": found.size, "different": int(np.count_nonzero(different))},
            {"largest_margin": margin},
        )
        if not margin <= self.tolerance:
            raise _differs("segmentation", f"another class where the logits differ by {margin:.1e} of the largest")


def _differs(role: str, why: str) -> HnxError:
    return HnxError(
        f"The graph's {role} are not what is computed outside of it",
        why=why,
        fix="nothing was written; leave the fused step out, and report this",
    )


def _distance(boxes: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    """(...,) largest difference of a box's coordinates, in parts of the largest one; 0 for infinite ones that agree."""
    first, second = boxes.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where(first == second, 0.0, np.abs(first - second))
    reach = np.maximum(np.abs(second).max(axis=-1, keepdims=True), 1.0)
    return np.asarray((apart / reach).max(axis=-1))


def _has(rows: NDArray[np.float32], row: NDArray[np.float32]) -> bool:
    """Whether a box of the same place, score and class is among rows of x1, y1, x2, y2, score, class."""
    alike = (np.abs(rows[:, 4] - row[4]) <= 1e-6) & (rows[:, 5] == row[5])
    return bool((_distance(rows[alike, :4], np.broadcast_to(row[:4], (int(alike.sum()), 4))) <= _BOX_TOLERANCE).any())


def prove_fused(
    fused: FusedGraph,
    path: Path,
    model: HybridNets,
    preprocess: Preprocessor,
    check: FusedProof,
    *,
    dynamic_batch: bool = False,
) -> Proof:
    """Run the tapped graph and the network on the same inputs, and see that the file delivers the same.

    Args:
        path: the file of `fused.model`.
        preprocess: makes inputs in the graph's form.
        check: what collects the fused outputs.

    Raises:
        HnxError: an output differs by more than rounding, or the file does not run.
    """
    reference, worst, described = Reference(model, preprocess), Worst(), []
    boxes = check.anchors is not None and check.form.detection != "raw"
    # of the copy, and before it is saved: saving may put the weights of what it saves into another file
    street = _boxes_part(fused.tapped, check) if boxes else None
    with tempfile.TemporaryDirectory() as folder, readable_errors(path.name):
        beside = Path(folder) / path.name
        save(fused.tapped, beside, external_data=False, metadata={})
        tapped, delivered = open_session(beside), open_session(path)
        names = [spec.name for spec in delivered.get_outputs() if spec.name != "anchors"]
        for text, given in proof_inputs(preprocess, dynamic_batch):
            described.append(text)
            wanted = list(dict.fromkeys([*names, *fused.taps.values()]))
            values = dict(zip(wanted, tapped.run(wanted, {"input": given}), strict=True))
            raw = {role: values[name] for role, name in fused.taps.items()}
            expected = reference(given)
            for role, array in raw.items():
                worst.add(role, array, expected[role])
            check.add({name: values[name] for name in names}, raw)
            for name, array in zip(names, delivered.run(names, {"input": given}), strict=True):
                if array.shape != values[name].shape or not _same(name, array, values[name], check.tolerance):
                    raise _differs(name, "the file delivers other values than its copy with more outputs")
        if street is not None:
            described.append("outputs as on a busy street")
            _prove_boxes(*street, check, Path(folder))
    return within(Proof(worst.outputs, tuple(described), check.tolerance, check.found))


def _same(name: str, found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> bool:
    if name == "detections":  # candidates whose scores differ in the last bit may change places
        return True
    if found.dtype == np.uint8:
        return bool(np.count_nonzero(found != expected) <= (1 - _LEAST_MATCHED) * found.size)
    scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=1.0))
    return bool(np.allclose(found, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def _boxes_part(model: onnx.ModelProto, check: FusedProof) -> tuple[onnx.ModelProto, dict[str, NDArray[np.float32]]]:
    """The boxes' part of a graph alone, and made-up outputs of a network for it."""
    assert check.anchors is not None
    raw = busy_street(check.anchors, check.target, check.classes)
    return boxes_alone(model, raw), raw


def _prove_boxes(
    part: onnx.ModelProto, raw: Mapping[str, NDArray[np.float32]], check: FusedProof, folder: Path
) -> None:
    save(part, folder / "boxes.onnx", external_data=False, metadata={})
    session = open_session(folder / "boxes.onnx")
    names = [spec.name for spec in session.get_outputs()]
    feed = {spec.name: raw[spec.name] for spec in session.get_inputs()}
    check.add(dict(zip(names, session.run(names, feed), strict=True)), raw)
