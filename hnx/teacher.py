"""A bundle that labels frames for `hnx data pseudo`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.pseudo.teacher import PseudoLabels

__all__ = ["BundleTeacher"]


class BundleTeacher:
    """An exported network: masks of its segmentation classes, and boxes.

    Args:
        path: of the bundle.
        conf: lowest score of a box.

    Raises:
        HnxError: it cannot be opened, or no runtime can run it.
    """

    def __init__(self, path: Path, conf: float) -> None:
        import hnx

        self._model = hnx.load(path, conf=conf)
        self.name = path.name
        self.classes: tuple[str, ...] = tuple(self._model.bundle.seg_classes)

    def label(self, frame: NDArray[np.uint8]) -> PseudoLabels:
        """Masks and boxes of a uint8 (h, w, 3) BGR frame, at frame size."""
        found = self._model(frame)
        bundle = self._model.bundle
        masks = {name: found.mask(index).astype(np.uint8) for index, name in enumerate(bundle.seg_classes)}
        if not bundle.classes:
            return PseudoLabels(masks)
        rows = zip(found.detections.boxes.tolist(), found.detections.classes.tolist(), strict=True)
        return PseudoLabels(masks, tuple((x1, y1, x2, y2, bundle.classes[n]) for (x1, y1, x2, y2), n in rows))
