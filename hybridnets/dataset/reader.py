"""One labelled sample: image, boxes and segmentation target as upstream's validation computes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybridnets.config import check_size
from hybridnets.dataset.labels import boxes_in_input, class_ids, fault_of, read_label
from hybridnets.dataset.layout import Split, check_regular
from hybridnets.dataset.masks import combine, letterbox_mask, read_mask
from hybridnets.errors import HnxError
from hybridnets.preprocess import Letterbox
from hybridnets.sources import read_image

__all__ = ["Sample", "SampleReader"]


@dataclass(frozen=True)
class Sample:
    """One image and its truth.

    Attributes:
        name: of its files, without the ending.
        frame: uint8 (h0, w0, 3) BGR as decoded, EXIF ignored; `hybridnets.preprocess.Preprocessor` makes the input.
        letterbox: where the frame lies in the network's input.
        boxes: float64 (n, 5): x1, y1, x2, y2, class in input pixels, not clipped.
        categories: what the file calls each box.
        target: uint8 at input size: multiclass (H, W), binary (1, H, W), multilabel (C, H, W); see `masks.combine`.
        frame_target: the same at frame size, from the masks without any resize; None unless asked for.
        dropped: a sentence for each box that cannot be a truth (no area, wholly outside) and was left out.
        has_boxes: whether boxes are labelled in this image; without, no box says nothing, and detection is neither
            trained nor scored on it.
    """

    name: str
    frame: NDArray[np.uint8]
    letterbox: Letterbox
    boxes: NDArray[np.float64]
    categories: tuple[str, ...]
    target: NDArray[np.uint8]
    frame_target: NDArray[np.uint8] | None = None
    dropped: tuple[str, ...] = ()
    has_boxes: bool = True


class SampleReader:
    """Reads samples of a split for one input size; holds no state, so it can be sent to other processes.

    Args:
        split: made by `open_split`.
        target: (height, width) of the network's input, multiples of 128.
        frame_target: also give the target at frame size.
    """

    def __init__(self, split: Split, target: tuple[int, int], *, frame_target: bool = False) -> None:
        height, width = target
        check_size(width, height)
        self.split, self.target, self.frame_target = split, (height, width), frame_target

    def read(self, name: str) -> Sample:
        """A sample by its name.

        Raises:
            HnxError: a file is missing or damaged, or a mask's size is not the image's; names the file.
        """
        project = self.split.project
        files = self.split.files(name)
        for path in (files.label, files.image, *files.masks):
            check_regular(path)
        # the quickest first: a broken label costs no decoding
        labels = read_label(files.label, project.traffic_light_color)
        frame = read_image(files.image)
        size = (frame.shape[0], frame.shape[1])
        masks = [_mask_of(path, size, files.image) for path in files.masks]
        place = Letterbox.fit(size, self.target)
        kept, dropped = [], []
        wanted = class_ids(project)
        for label in labels.boxes if labels.has_boxes else ():  # some of them only: of no use
            if label.category not in wanted:
                continue
            if fault := fault_of(label.box, project.dataset.org_img_size):
                dropped.append(f"{files.label}: object {label.index} ({label.category}): {fault}")
            else:
                kept.append(label)
        small = [letterbox_mask(mask, place) for mask in masks]
        return Sample(
            name=name,
            frame=frame,
            letterbox=place,
            boxes=boxes_in_input(kept, project, place),
            categories=tuple(label.category for label in kept),
            target=combine(small, project.seg_list, project.seg_mode),
            frame_target=combine(masks, project.seg_list, project.seg_mode) if self.frame_target else None,
            dropped=tuple(dropped),
            has_boxes=labels.has_boxes,
        )


def _mask_of(path: Path, size: tuple[int, int], image: Path) -> NDArray[np.uint8]:
    mask = read_mask(path)
    if mask.shape != size:
        raise HnxError(
            f"Mask {path} has {mask.shape[1]}x{mask.shape[0]} pixels, image {image} has {size[1]}x{size[0]}",
            why="a mask must cover its image pixel by pixel",
            fix="make the mask again at the image's size; `hnx data check` lists every such file",
        )
    return mask
