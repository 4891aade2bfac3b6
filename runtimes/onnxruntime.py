"""ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from hybridnets.errors import HnxError
from runtimes.base import Arrays, Execution, Probe, Runtime

__all__ = ["OnnxRuntime"]

_PROVIDER = "CPUExecutionProvider"
# kinds of convolutions in an optimised graph -> what they compute in
_CONVOLUTIONS = {"QLinearConv": "int8", "Conv": "fp32", "FusedConv": "fp32", "NhwcFusedConv": "fp32"}


class OnnxRuntime(Runtime):
    """FP32, and INT8 of Q/DQ variants, through the CPU execution provider; threads may share `session.run`."""

    name = "onnxruntime"
    extra = "onnxruntime"
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32", "int8": "int8"}

    _session: Any = None

    @classmethod
    def probe(cls) -> Probe:
        """See `Runtime.probe`."""
        import onnxruntime as ort

        return Probe(version=ort.__version__, precisions={"fp32": "", "int8": ""})

    def _open(self) -> Execution:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self.options.thread_count
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors only: its warnings name internals a user cannot act on
        counts = {}
        if self.options.precision == "int8":
            with tempfile.TemporaryDirectory() as folder:
                options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
                self._session = ort.InferenceSession(str(self.model_path), options, providers=[_PROVIDER])
                counts = _count_convolutions(Path(options.optimized_model_filepath).read_bytes())
        else:
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
        # as with TensorRT: blocks may be kept in float, and the counts say how many
        executed = "int8" if counts.get("int8") else ""
        return Execution(
            precision=executed or {"tensor(float)": "fp32", "tensor(uint8)": "fp32"}.get(kind, kind),
            device="CPU",
            threads=self._session.get_session_options().intra_op_num_threads,
            library=f"onnxruntime {ort.__version__}",
            details={"provider": provider, **({"convolutions": counts} if counts else {})},
        )

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
        results = self._session.run(self._names, dict(inputs))
        return dict(zip(self._names, results, strict=True))

    def _close(self) -> None:
        self._session = None


def _count_convolutions(model: bytes) -> dict[str, int]:
    """Precision to number of convolutions in a serialised graph, by their operators.

    Devices have no onnx package: NodeProto.op_type (field 4, a text) is looked for in the bytes as it is encoded.
    """
    counts = dict.fromkeys(_CONVOLUTIONS.values(), 0)
    for name, precision in _CONVOLUTIONS.items():
        counts[precision] += model.count(bytes([4 << 3 | 2, len(name)]) + name.encode())
    return counts
