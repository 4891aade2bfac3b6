"""The teacher's own predictions as labels, so that agreement is told in the measures of an evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from hybridnets.anchors import make_anchors
from hybridnets.errors import HnxError
from hybridnets.network.model import HybridNets
from hybridnets.postprocess import Postprocessor
from hybridnets.training.data import collate, item_of
from hybridnets.training.distill.frames import FrameLabels, FrameReader, FrameSplit
from hybridnets.training.normaliser import Normaliser

__all__ = ["CONF", "IOU", "label_frames"]

CONF, IOU = 0.25, 0.3  # what `hnx infer` shows


@torch.inference_mode()
def label_frames(
    teacher: HybridNets,
    split: FrameSplit,
    target: tuple[int, int],
    normaliser: Normaliser,
    device: torch.device,
    note: Callable[[str], None],
) -> dict[str, FrameLabels]:
    """What the teacher sees in each frame; frames that cannot be read are named and left out.

    Args:
        teacher: in eval mode, on the device.
        target: (height, width) of the input.

    Raises:
        HnxError: none of them can be read.
    """
    project = split.project
    reader = FrameReader(split, target)
    anchors = make_anchors(target[1], target[0], project.anchors)
    postprocessor = Postprocessor(anchors, target, project.seg_mode, conf=CONF, iou=IOU)
    # a binary target has an axis for its one class
    plane = (None,) if project.seg_mode == "binary" else ...
    found: dict[str, FrameLabels] = {}
    first: HnxError | None = None
    for name in split.names:
        try:
            batch = collate([item_of(reader.read(name))]).to(device)
        except HnxError as error:
            first = first or error
            note(f"frame {name} is left out: {error.what}: {error.why}")
            continue
        outputs = teacher(normaliser(batch.images))
        regression, classification, segmentation = (x[0].float().cpu().numpy() for x in outputs)
        seen = postprocessor.detect(regression, classification)
        boxes = np.concatenate([seen.boxes, seen.classes[:, None].astype(np.float64)], axis=1, dtype=np.float64)
        found[name] = FrameLabels(boxes, postprocessor.input_map(segmentation)[plane])
    if not found:
        raise HnxError(
            f"None of {len(split)} frames can be read", why="" if first is None else f"{first.what}: {first.why}"
        )
    return found
