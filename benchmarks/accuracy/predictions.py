"""What one row predicts on named images, computed again in a process of its own: for pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.accuracy.config import EvalConfig
from benchmarks.accuracy.engine import IMAGE_TIMEOUT_S, LOAD_TIMEOUT_S, open_row, start_child
from benchmarks.children import Worker
from hybridnets.files import temporary_directory
from hybridnets.postprocess import Detections, Prediction
from hybridnets.preprocess import Letterbox

__all__ = ["predictor"]


def predictor(
    config: EvalConfig, runtime: str, precision: str, *, start: Callable[[], Worker] = start_child
) -> Callable[[Sequence[str]], Iterator[Prediction]]:
    """A function from names of images to their predictions in frame pixels, one at a time in memory.

    Its process starts with the first and ends with the last, or when the caller stops asking.
    """

    def predict(names: Sequence[str]) -> Iterator[Prediction]:
        worker = start()
        try:
            open_row(worker, config, runtime, precision)
            with temporary_directory("hnx-eval-") as folder:
                path = folder / "prediction.npz"
                for name in names:
                    reply = worker.call("predict", LOAD_TIMEOUT_S + IMAGE_TIMEOUT_S, name=name, path=str(path))
                    yield _read(path, tuple(reply["frame"]), tuple(reply["target"]))
        finally:
            worker.close()

    return predict


def _read(path: Path, frame: tuple[int, int], target: tuple[int, int]) -> Prediction:
    with np.load(path, allow_pickle=False) as arrays:
        found = Detections(arrays["boxes"], arrays["scores"], arrays["classes"])
        masks = arrays["masks"]
    return Prediction(found, masks if masks.size else None, Letterbox.fit(frame, target))
