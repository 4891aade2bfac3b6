"""INT8 networks as they are written, in PyTorch: what the Q/DQ pairs of a file mean without any runtime's kernels."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import NDArray

from runtimes.base import Arrays, Execution, Probe, Runtime

__all__ = ["SimulatedRuntime"]


class SimulatedRuntime(Runtime):
    """The stored Q/DQ network in float32 arithmetic, every pair rounding and clipping as it stands in the file.

    It is no row of the registry, since nobody deploys it: it is slow, and there to be compared with.
    """

    name = "torch-simulated"
    extra = "export"
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32", "int8": "int8"}

    _graph: Any = None

    @classmethod
    def probe(cls) -> Probe:
        """See `Runtime.probe`."""
        import onnx
        import torch

        return Probe(version=f"{torch.__version__} with onnx {onnx.__version__}", precisions={"fp32": "", "int8": ""})

    def _open(self) -> Execution:
        import onnx
        import torch

        from runtimes.torch_graph import TorchGraph

        torch.set_num_threads(self.options.thread_count)
        model = onnx.load(str(self.model_path))
        self._graph = TorchGraph(model)
        pairs = sum(node.op_type == "DequantizeLinear" for node in model.graph.node)
        return Execution(
            precision="int8" if pairs else "fp32",
            device="CPU",
            threads=torch.get_num_threads(),
            library=f"torch {torch.__version__}",
            details={"simulated": True, "pairs": pairs},
        )

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = self._graph(inputs)
        return found

    def _close(self) -> None:
        self._graph = None
