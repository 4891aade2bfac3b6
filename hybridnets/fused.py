"""What a graph of another form computes from the network's own outputs, in numpy: the meaning of every form.

The PyTorch runtime computes with it, and an exported graph is held against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.bundle.form import GraphForm, NmsForm
from hybridnets.config import SegMode
from hybridnets.postprocess import class_map, decode, nms

__all__ = ["apply_form", "class_maps", "decoded", "suppressed"]


def apply_form(
    raw: Mapping[str, NDArray[np.float32]],
    form: GraphForm,
    *,
    anchors: NDArray[np.float32] | None,
    target: tuple[int, int],
    seg_mode: SegMode,
) -> dict[str, NDArray[Any]]:
    """Outputs by role of `form` from the raw ones; logits that are wanted before their enlargement are given so.

    Args:
        anchors: float32 (1, A, 4) y1, x1, y2, x2; None without a detection head.
        target: (height, width) of the input.
    """
    found: dict[str, NDArray[Any]] = {}
    if "regression" in raw:
        if form.detection == "raw" or anchors is None:
            found["regression"], found["classification"] = raw["regression"], raw["classification"]
        elif form.nms is None:
            found["boxes"] = decoded(raw["regression"], anchors, target)
            found["classification"] = raw["classification"]
        else:
            found["detections"] = suppressed(raw["regression"], raw["classification"], anchors, target, form.nms)
    if "segmentation" in raw:
        logits = raw["segmentation"]
        found["segmentation"] = class_maps(logits, seg_mode) if form.segmentation == "classmap" else logits
    return found


def class_maps(logits: NDArray[np.float32], seg_mode: SegMode) -> NDArray[np.uint8]:
    """float32 (N, C, H, W) to uint8: multiclass and binary (N, H, W), multilabel (N, C, H, W)."""
    if seg_mode == "multiclass":
        return np.stack([class_map(image) for image in logits])
    on = (logits >= 0).view(np.uint8)
    return on if seg_mode == "multilabel" else on[:, 0]


def decoded(
    regression: NDArray[np.float32], anchors: NDArray[np.float32], target: tuple[int, int]
) -> NDArray[np.float32]:
    """float32 (N, A, 4) ty, tx, th, tw to x1, y1, x2, y2 in input pixels."""
    rows = anchors.reshape(-1, 4)
    return np.stack([decode(image, rows, target[1], target[0]) for image in regression])


def suppressed(
    regression: NDArray[np.float32],
    classification: NDArray[np.float32],
    anchors: NDArray[np.float32],
    target: tuple[int, int],
    form: NmsForm,
) -> NDArray[np.float32]:
    """float32 (1, K, 6) x1, y1, x2, y2, score, class of one image; see `GraphForm`."""
    places = regression.reshape(-1, 4)
    scores = classification.reshape(len(places), -1)
    best = scores.max(axis=1)
    rows = np.argsort(-best, kind="stable")[: form.candidates]
    rows = np.sort(rows[best[rows] > np.float32(form.conf)])
    result = np.zeros((1, form.boxes, 6), np.float32)
    if len(rows):
        classes = scores[rows].argmax(axis=1)
        boxes = decode(places[rows], anchors.reshape(-1, 4)[rows], target[1], target[0])
        kept = nms(boxes, best[rows], classes, form.iou)[: form.boxes]
        result[0, : len(kept)] = np.concatenate([boxes[kept], best[rows][kept, None], classes[kept, None]], axis=1)
    return result
