"""The form of a graph: what it means, and what a manifest may say of it."""

from __future__ import annotations

import itertools
import json
from typing import Any, get_args

import pytest

from hybridnets.bundle.form import UNFUSED, DetectionForm, GraphForm, InputForm, NmsForm, SegmentationForm
from hybridnets.errors import ExitCode, HnxError

NMS = {"conf": 0.25, "iou": 0.3, "candidates": 1024, "boxes": 300}
GROUP = {"input": "uint8", "segmentation": "lowres", "detection": "nms", "nms": NMS}


def test_every_form_survives_a_manifest() -> None:
    words = itertools.product(get_args(InputForm), get_args(SegmentationForm), get_args(DetectionForm))
    for image, segmentation, detection in words:
        form = GraphForm(image, segmentation, detection, NmsForm(0.4, 0.5, 2000, 100) if detection == "nms" else None)
        assert GraphForm.from_json(json.loads(json.dumps(form.to_json()))) == form
        assert form.fused == ((image, segmentation, detection) != ("float32", "logits", "raw"))
    assert GraphForm.from_json(None) == UNFUSED


@pytest.mark.parametrize(
    "changes",
    [
        {"input": "uint16"},
        {"input": ["uint8"]},
        {"segmentation": None},
        {"detection": "NMS"},
        {"detection": "raw"},  # with settings of a suppression
        {"nms": None},
        {"nms": {**NMS, "conf": 1.5}},
        {"nms": {**NMS, "conf": -0.1}},
        {"nms": {**NMS, "iou": float("nan")}},
        {"nms": {**NMS, "conf": float("inf")}},
        {"nms": {**NMS, "conf": "0.25"}},
        {"nms": {**NMS, "conf": True}},
        {"nms": {**NMS, "boxes": 0}},
        {"nms": {**NMS, "boxes": 2.5}},
        {"nms": {**NMS, "boxes": 1025}},
        {"nms": {**NMS, "candidates": 10**9}},
        {"nms": {**NMS, "candidates": 10**400}},
        {"nms": {**NMS, "more": 1}},
        {"nms": {"conf": 0.25}},
        {"nms": [0.25, 0.3]},
        {"drawing": "yes"},
    ],
)
def test_tampered_groups_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((HnxError, ValueError)) as caught:
        GraphForm.from_json({**GROUP, **changes})
    assert str(caught.value)


@pytest.mark.parametrize("group", [5, [], "uint8", {}, {"input": "uint8"}, {**GROUP, "detection": "nms", "nms": {}}])
def test_incomplete_groups_are_refused(group: Any) -> None:
    with pytest.raises((HnxError, ValueError)):
        GraphForm.from_json(group)


def test_settings_are_checked_where_they_are_asked_for() -> None:
    for values in ({"conf": 2.0}, {"iou": -1.0}, {"boxes": 0}, {"candidates": 5000}, {"boxes": 500, "candidates": 400}):
        with pytest.raises(HnxError) as caught:
            NmsForm(**values)  # type: ignore[arg-type]
        assert caught.value.code == ExitCode.USAGE
    with pytest.raises(HnxError, match="belong together"):
        GraphForm(detection="nms")
    with pytest.raises(HnxError, match="belong together"):
        GraphForm(nms=NmsForm())
    with pytest.raises(HnxError, match="uint9"):
        GraphForm(input="uint9")  # type: ignore[arg-type]


def test_sizes_of_both_inputs() -> None:
    assert UNFUSED.size((1, 3, 128, 256)) == (128, 256)
    assert GraphForm(input="uint8").size(("batch", 128, 256, 3)) == (128, 256)
    for form, shape in (
        (UNFUSED, (1, 3, "h", 256)),
        (UNFUSED, (3, 128, 256)),
        (GraphForm(input="uint8"), (1, "h", 5, 3)),
    ):
        with pytest.raises(ValueError, match="the input is not"):
            form.size(shape)


def test_thresholds_are_the_graphs_where_it_suppresses() -> None:
    assert UNFUSED.thresholds() == (0.25, 0.3)
    assert UNFUSED.thresholds(0.001, 0.6) == (0.001, 0.6)
    form = GraphForm(detection="nms", nms=NmsForm(0.4, 0.5))
    assert form.thresholds() == (0.4, 0.5)
    assert form.thresholds(0.6) == (0.6, 0.5)
    for asked in ((0.39, 0.5), (0.4, 0.6), (None, 0.45)):
        with pytest.raises(HnxError, match="cannot be had from this bundle") as caught:
            form.thresholds(*asked)
        assert caught.value.code == ExitCode.USAGE
    with pytest.raises(HnxError, match="threshold"):
        UNFUSED.thresholds(iou=1.5)
