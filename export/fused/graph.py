"""Fuse what a `GraphForm` asks for into an exported graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.fused.detection import add_boxes, add_detections
from export.fused.image import take_canvas
from export.fused.segmentation import add_class_map, before_enlargement
from export.rewrites.editing import GraphEditor
from hybridnets.bundle import GraphForm
from hybridnets.bundle.form import LOWRES_FACTOR
from hybridnets.config import SegMode
from hybridnets.errors import HnxError

if TYPE_CHECKING:
    import onnx

__all__ = ["FusedGraph", "fuse"]


@dataclass(frozen=True)
class FusedGraph:
    """A graph with steps of pre- and postprocessing inside.

    Attributes:
        model: the graph that is delivered.
        tapped: the same with the network's own outputs beside: what each step must be held against.
        taps: role (`regression`, `classification`, `segmentation`) to the name of that output in `tapped`.
    """

    model: onnx.ModelProto
    tapped: onnx.ModelProto
    taps: dict[str, str]


def fuse(
    model: onnx.ModelProto,
    form: GraphForm,
    *,
    size: tuple[int, int],
    seg_mode: SegMode,
    mean: Sequence[float],
    std: Sequence[float],
    anchors: NDArray[np.float32] | None,
) -> FusedGraph:
    """A copy of a plain graph (float32 input, raw outputs) in another form.

    Args:
        size: (width, height).
        mean, std: of the RGB channels, for values in 0..1.
        anchors: float32 (1, A, 4) y1, x1, y2, x2; None without a detection head.

    Raises:
        HnxError: the graph is not as the exporter makes it.
    """
    import onnx

    width, height = size
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    plain = {output.name: output for output in model.graph.output}
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    order = [output.name for output in model.graph.output]
    taps = {role: role for role in order if role != "anchors"}
    if "segmentation" in taps and form.segmentation != "logits":
        taps["segmentation"] = _rename(tapped, "segmentation", "segmentation_logits")
    editor = GraphEditor(tapped)
    made: dict[str, onnx.ValueInfoProto] = {}

    def output(name: str, kind: int, *sizes: int) -> None:
        shape = [batch.dim_param or batch.dim_value, *sizes]
        made[name] = onnx.helper.make_tensor_value_info(name, kind, shape)

    if form.input == "uint8":
        take_canvas(editor, size, mean, std)
    if anchors is not None and form.detection == "decoded":
        add_boxes(editor, anchors, size)
        output("boxes", onnx.TensorProto.FLOAT, anchors.shape[1], 4)
    elif anchors is not None and form.nms is not None:
        classes = plain["classification"].type.tensor_type.shape.dim[2].dim_value
        add_detections(editor, anchors, size, form.nms, classes)
        output("detections", onnx.TensorProto.FLOAT, form.nms.boxes, 6)
    if "segmentation" in taps:
        channels = plain["segmentation"].type.tensor_type.shape.dim[1].dim_value
        if form.segmentation == "classmap":
            add_class_map(editor, taps["segmentation"], seg_mode, size)
            kept = (channels,) if seg_mode == "multilabel" else ()
            output("segmentation", onnx.TensorProto.UINT8, *kept, height, width)
        elif form.segmentation == "lowres":
            before_enlargement(editor, taps["segmentation"])
            output("segmentation", onnx.TensorProto.FLOAT, channels, height // LOWRES_FACTOR, width // LOWRES_FACTOR)
    wanted = _order(order, form)
    unknown = [name for name in wanted if name not in made and name not in plain]
    if unknown:
        raise HnxError(f"A fused graph without {', '.join(unknown)}", fix="export without fused steps, and report this")
    outputs = [made.get(name) or plain[name] for name in wanted]
    extra = []
    for role, name in taps.items():
        if name not in wanted:
            value = onnx.ValueInfoProto()
            value.CopyFrom(plain[role])
            value.name = name
            extra.append(value)
    delivered = onnx.ModelProto()
    for target, values in ((tapped, [*outputs, *extra]), (delivered, outputs)):
        if target is delivered:
            delivered.CopyFrom(tapped)
        del target.graph.output[:]
        target.graph.output.extend(values)
        _finish(target, editor if target is tapped else None)
    return FusedGraph(delivered, tapped, taps)


def _finish(model: onnx.ModelProto, editor: GraphEditor | None) -> None:
    import onnx

    editor = GraphEditor(model) if editor is None else editor
    editor.fixed = {value.name for value in model.graph.output}
    editor.finish()
    onnx.checker.check_model(model)


def _order(order: Sequence[str], form: GraphForm) -> list[str]:
    """The outputs in the order that the plain graph has."""
    replaced = {
        "raw": {},
        "decoded": {"regression": "boxes"},
        "nms": {"regression": "detections", "classification": "detections"},
    }[form.detection]
    return list(dict.fromkeys(replaced.get(name, name) for name in order))


def _rename(model: onnx.ModelProto, old: str, new: str) -> str:
    """Another name for a tensor that a node makes, so that the old one is free."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in model.graph.output:
        if value.name == old:
            value.name = new
    return new
