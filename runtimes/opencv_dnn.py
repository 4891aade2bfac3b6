"""OpenCV's DNN module: the runtime that is always there, because pre- and postprocessing need OpenCV anyway."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
from numpy.typing import NDArray

from hybridnets.bundle import Bundle
from runtimes.base import Arrays, Execution, Probe, Runtime

__all__ = ["OpenCvRuntime"]


class OpenCvRuntime(Runtime):
    """FP32 on OpenCV's own CPU backend. A net is not safe to share, so every context reads its own."""

    name = "opencv-dnn"
    extra = ""
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32"}

    _first: Any = None

    @classmethod
    def probe(cls) -> Probe:
        """See `Runtime.probe`."""
        if cv2.dnn.DNN_TARGET_CPU not in cv2.dnn.getAvailableTargets(cv2.dnn.DNN_BACKEND_OPENCV):
            return Probe(
                version=cv2.__version__,
                reason="this OpenCV has no CPU target in its DNN module",
                fix="pip install --force-reinstall opencv-python-headless",
            )
        return Probe(version=cv2.__version__, precisions={"fp32": ""})

    @classmethod
    def refuses(cls, bundle: Bundle) -> tuple[str, str] | None:
        """See `Runtime.refuses`."""
        if bundle.form.nms is None or int(cv2.__version__.split(".")[0]) >= 5:
            return None
        return (
            f"its graph suppresses boxes, and the DNN module of OpenCV {cv2.__version__} has no NonMaxSuppression",
            "export it with --decode instead of --nms, or pip install 'opencv-python-headless>=5'",
        )

    def _read(self) -> Any:
        # backend and target stay at their default, OpenCV's own code on the CPU: OpenCV 5 warns when they are set
        return cv2.dnn.readNetFromONNX(str(self.model_path))

    def _open(self) -> Execution:
        cv2.setNumThreads(self.options.thread_count)  # of the whole process: OpenCV has no setting per net
        self._first = self._read()
        self._types = {spec.name: spec.dtype for spec in self.bundle.outputs.values()}
        return Execution(
            precision="fp32",  # the CPU target has no other arithmetic for float networks
            device="CPU",
            threads=cv2.getNumThreads(),
            library=f"opencv {cv2.__version__}",
            details={"backend": "OpenCV", "target": "CPU"},
        )

    def _context(self) -> Any:
        net, self._first = self._first or self._read(), None
        return net

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
        for name, array in inputs.items():
            state.setInput(array, name)
        names = list(self._types)
        # before 5.0 everything is float32 there; whole numbers are held exactly
        return {
            name: array if array.dtype == self._types[name] else array.astype(self._types[name])
            for name, array in zip(names, state.forward(names), strict=True)
        }

    def _close(self) -> None:
        self._first = None
