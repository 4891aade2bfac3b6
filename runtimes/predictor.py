"""Frames in, boxes and masks out: preprocessing, one runtime and postprocessing in a row."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from hybridnets.bundle import Bundle, open_bundle
from hybridnets.cache import compiled_folder
from hybridnets.errors import ExitCode, HnxError
from hybridnets.postprocess import Prediction
from hybridnets.preprocess import Letterbox
from runtimes.base import Context, Runtime, RuntimeOptions
from runtimes.opening import open_runtime

__all__ = ["Pipeline", "Predictor", "load", "user_cache"]


def user_cache() -> Path | None:
    """Folder for networks that OpenVINO compiled; None where `HNX_CACHE` is `off`, or this user has no place."""
    return compiled_folder("openvino")


class Pipeline:
    """The three stages of one frame, with buffers of their own: one for each thread.

    The stages can be called one by one (to time or to overlap them) or all at once.
    """

    def __init__(
        self, runtime: Runtime, *, conf: float | None = None, iou: float | None = None, context: Context | None = None
    ) -> None:
        bundle = runtime.bundle
        self._preprocess = bundle.preprocessor()
        self._context = context or runtime.context()
        self._postprocess = bundle.postprocessor(conf=conf, iou=iou)
        self._input = bundle.input.name
        self._roles = {spec.name: role for role, spec in bundle.outputs.items()}

    def preprocess(self, frame: NDArray[Any]) -> tuple[NDArray[Any], Letterbox]:
        """Network input, in the form that the bundle's graph takes, and geometry; overwritten by the next call."""
        return self._preprocess(frame)

    def network(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Raw outputs by role; overwritten by the next call."""
        results = self._context.infer({self._input: tensor})
        return {self._roles[name]: array for name, array in results.items() if name in self._roles}

    def postprocess(self, outputs: dict[str, NDArray[Any]], box: Letterbox) -> Prediction:
        """Boxes and masks at frame size."""
        return self._postprocess(outputs, box)

    def __call__(self, frame: NDArray[Any]) -> Prediction:
        """All three."""
        tensor, box = self.preprocess(frame)
        return self.postprocess(self.network(tensor), box)


class Predictor:
    """A loaded deployment.

    >>> import cv2, hnx                                                         # doctest: +SKIP
    >>> model = hnx.load("exports/hybridnets_c3_384x640", runtime="openvino")   # doctest: +SKIP
    >>> result = model(cv2.imread("road.jpg"))                                  # doctest: +SKIP
    >>> result.detections.boxes, result.mask(0)                                 # doctest: +SKIP

    Attributes:
        bundle: what was loaded.
        runtime: the open runtime; `runtime.execution` says what really runs.
    """

    def __init__(self, runtime: Runtime, *, conf: float | None = None, iou: float | None = None) -> None:
        self.runtime = runtime
        self.bundle: Bundle = runtime.bundle
        self._conf, self._iou = conf, iou
        self._pipeline = self.pipeline()

    def pipeline(self) -> Pipeline:
        """A further pipeline for another thread."""
        return Pipeline(self.runtime, conf=self._conf, iou=self._iou)

    def __call__(self, frame: NDArray[Any]) -> Prediction:
        """Boxes and masks of one frame.

        Args:
            frame: uint8 (h, w, 3) BGR as cv2.imread gives it; grey, BGRA and 16-bit arrays are converted.

        Raises:
            HnxError: the array is no image.
        """
        return self._pipeline(frame)

    def close(self) -> None:
        """Free the network."""
        self.runtime.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_types(
    bundle: object, runtime: object, precision: object, threads: object, thresholds: Mapping[str, object]
) -> None:
    """Refuse what the annotations of `load` exclude: not everybody has a type checker.

    Raises:
        HnxError: names the argument (exit code 2).
    """
    wrong: list[tuple[str, object, str]] = []
    if not isinstance(bundle, Bundle | str | os.PathLike):
        wrong.append(("bundle", bundle, "a folder of `hnx export`, an ONNX file, or an open bundle"))
    if not isinstance(runtime, str):
        wrong.append(("runtime", runtime, "a name, such as 'auto' or 'openvino'"))
    if not isinstance(precision, str):
        wrong.append(("precision", precision, "a name, such as 'fp32' or 'int8'"))
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int)):
        wrong.append(("threads", threads, "a whole number, or None for all"))
    wrong += [
        (name, value, "a number from 0 to 1, or None for the bundle's")
        for name, value in thresholds.items()
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real))
    ]
    for name, value, meaning in wrong:
        raise HnxError(
            f"hnx.load got {name}={value!r}",
            why=f"it is {meaning}, not of type {type(value).__name__}",
            fix=f"give another {name}, or leave it out" if name != "bundle" else "give its path",
            code=ExitCode.USAGE,
        )


def load(
    bundle: Bundle | Path | str,
    runtime: str = "auto",
    *,
    precision: str = "fp32",
    threads: int | None = None,
    conf: float | None = None,
    iou: float | None = None,
) -> Predictor:
    """Open a bundle for inference.

    Args:
        bundle: folder written by `hnx export`, or an ONNX file.
        runtime: a runtime's name, or `auto` for the first of the registry that runs here.
        precision: fp32, bf16, fp16 or int8, as far as the runtime and the device have it; `tuned` for what `hnx tune`
            kept in the bundle for this machine.
        threads: CPU threads; default all.
        conf: boxes need a score above it; default what the graph suppresses with, else 0.25.
        iou: overlap above which the weaker box of a class is dropped; default the graph's, else 0.3.

    Raises:
        HnxError: says what is wrong and what to do.
    """
    _check_types(bundle, runtime, precision, threads, {"conf": conf, "iou": iou})
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle, weights=False)
    options = RuntimeOptions(precision=precision, threads=threads, cache_dir=user_cache())
    return Predictor(open_runtime(runtime, opened, options), conf=conf, iou=iou)
