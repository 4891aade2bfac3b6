"""The whole way from a tensor to boxes, against the original network's lists."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hybridnets.anchors import make_anchors
from hybridnets.config import ModelConfig
from hybridnets.postprocess import Detections, Postprocessor
from tests import parity

INDEX = json.loads((parity.DATA / "postprocess" / "index.json").read_text())


def matched_share(found: Detections, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> float:
    """Share of the reference boxes with a partner of their class within 0.05 pixels and 0.001 of the score."""
    free = np.ones(len(found), bool)
    hits = 0
    for box, score, kind in zip(boxes, scores, classes, strict=True):
        near = free & (np.abs(found.scores - score) <= 1e-3) & (found.classes == kind)
        near[near] = np.abs(found.boxes[near] - box).max(axis=1) <= 0.05
        if near.any():
            free[np.flatnonzero(near)[0]] = False
            hits += 1
    return hits / max(1, len(scores))


@pytest.mark.parametrize("fixture", list(INDEX))
def test_boxes_of_the_network(fixture: str) -> None:
    meta = parity.data("forward/index.json")[fixture]
    _, _, height, width = meta["input"]["shape"]
    model = parity.model(ModelConfig(meta["compound_coef"]))
    with torch.inference_mode():
        outputs = model(torch.from_numpy(parity.leaves_image(f"input/{fixture}", 1, height, width)))
    reference = np.load(parity.DATA / "postprocess" / f"{fixture}.npz")
    anchors = make_anchors(width, height)
    for name in ("0.25_0.3", "0.001_0.6", "0.5_0.5"):
        expected, (conf, iou) = INDEX[fixture][name], map(float, name.split("_"))
        post = Postprocessor(anchors, (height, width), conf=conf, iou=iou)
        found = post.detect(outputs.regression.numpy(), outputs.classification.numpy())
        kept = expected["images"][0]["kept"]
        assert abs(len(found) - kept) <= max(2, 0.002 * kept)
        arrays = (reference[f"{name}/0/{key}"] for key in ("boxes", "scores", "classes"))
        assert matched_share(found, *arrays) >= 0.995
