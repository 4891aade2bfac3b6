"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import NDArray

from hybridnets.errors import HnxError
from runtimes.base import Arrays, Execution, Probe, Runtime

__all__ = ["OnnxRuntime"]

_PROVIDER = "CPUExecutionProvider"


class OnnxRuntime(Runtime):
    """FP32 through the CPU execution provider; `session.run` may be called from several threads."""

    name = "onnxruntime"
    extra = "onnxruntime"
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32"}

    _session: Any = None

    @classmethod
    def probe(cls) -> Probe:
        """See `Runtime.probe`."""
        import onnxruntime as ort

        return Probe(version=ort.__version__, precisions={"fp32": ""})

    def _open(self) -> Execution:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.options.thread_count
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors only: its warnings name internals a user cannot act on
        self._session = ort.InferenceSession(str(self.model_path), options, providers=[_PROVIDER])
        self._names = [spec.name for spec in self._session.get_outputs()]
        provider = self._session.get_providers()[0]
        if provider != _PROVIDER:
            raise HnxError(
                f"onnxruntime runs on {provider}",
                why=f"{_PROVIDER} was asked for and it fell back in silence",
                fix="reinstall onnxruntime",
            )
        kind = self._session.get_inputs()[0].type
        return Execution(
            precision={"tensor(float)": "fp32", "tensor(uint8)": "fp32"}.get(kind, kind),
            device="CPU",
            threads=self._session.get_session_options().intra_op_num_threads,
            library=f"onnxruntime {ort.__version__}",
            details={"provider": provider},
        )

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
        results = self._session.run(self._names, dict(inputs))
        return dict(zip(self._names, results, strict=True))

    def _close(self) -> None:
        self._session = None
