"""ONNX Runtime's TensorRT provider: TensorRT builds when the network is loaded, CUDA runs what it does not take."""

from __future__ import annotations

from typing import ClassVar

from runtimes.onnxruntime_cuda import OnnxRuntimeCuda
from runtimes.onnxruntime_profile import Placement

__all__ = ["OnnxRuntimeTensorRt"]


class OnnxRuntimeTensorRt(OnnxRuntimeCuda):
    """FP32, and FP16 by TensorRT's flag from the float32 network.

    Loading builds an engine, which takes minutes; with `RuntimeOptions.cache_dir` it is kept for the next time. The
    runtime `tensorrt` runs plans that `hnx build-trt` made, and needs no ONNX Runtime.
    """

    name = "onnxruntime-tensorrt"
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32", "fp16": "fp32"}
    provider = "TensorrtExecutionProvider"
    tf32 = True  # TensorRT's default, and the provider has no option against it

    def _providers(self) -> list[tuple[str, dict[str, str]]]:
        options = {"device_id": "0", "trt_fp16_enable": "1" if self.options.precision == "fp16" else "0"}
        if self.options.cache_dir is not None:
            folder = self.options.cache_dir / self.name
            folder.mkdir(parents=True, exist_ok=True)
            options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
        return [(self.provider, options), *super()._providers()]

    def _executed(self, placement: Placement) -> str:
        # TensorRT's subgraphs are single nodes in the profile; what they compute in is what the flag allows
        return self.options.precision
