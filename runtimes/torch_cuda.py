"""PyTorch on an NVIDIA GPU: the network in FP32, FP16 or BF16, channels-last, launched as a CUDA graph."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import first_line
from hybridnets.preprocess import Preprocessor
from runtimes.base import Arrays, Execution, Probe
from runtimes.device_times import DeviceTimes
from runtimes.tensorrt.driver import Gpu
from runtimes.tensorrt.driver import probe as probe_cuda
from runtimes.torch import TorchRuntime, executed

__all__ = ["TorchCudaRuntime"]

_WARM_RUNS = 3  # cuDNN chooses its algorithms in the first, the allocator settles in the second (torch's own example)
_BF16_SINCE = (8, 0)
_INSTALL = "install PyTorch's CUDA build (pytorch.org names the command; on a Jetson NVIDIA's own wheel): docs/cuda.md"


class TorchCudaRuntime(TorchRuntime):
    """The PyTorch network on the first GPU; each context has a stream, pinned buffers and a CUDA graph of its own.

    As `TorchRuntime` it reads `weights.safetensors` and does fused steps of pre- and postprocessing in numpy.
    """

    name = "torch-cuda"
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32", "fp16": "fp32", "bf16": "fp32"}

    _device = "cuda:0"
    _contexts: Sequence[_GpuContext] = ()
    _spare: _GpuContext | None = None

    @classmethod
    def probe(cls) -> Probe:
        """See `Runtime.probe`."""
        import torch

        version, built_for = torch.__version__, str(torch.version.cuda or "")
        precisions = dict.fromkeys(cls.stored, "")
        state = probe_cuda()
        needed = int(built_for.split(".")[0]) * 1000 if built_for else 0
        obstacle = state.obstacle("PyTorch", needed)
        if obstacle is None and not built_for:
            obstacle = f"the installed PyTorch {version} is built without CUDA", _INSTALL
        if obstacle is None:
            obstacle = _unsupported(state.gpus[0], torch.cuda.get_arch_list(), version)
        if obstacle is None and not torch.cuda.is_available():
            obstacle = f"PyTorch {version} finds no device, the driver lists {state.gpus[0].name}", _INSTALL
        if obstacle is not None:
            return Probe(version, precisions, *obstacle, device="GPU")
        gpu = state.gpus[0]
        if gpu.capability < _BF16_SINCE:
            precisions["bf16"] = f"{gpu.name} ({gpu.sm}) has no native bf16, it came with sm_80"
        return Probe(version, precisions, device=f"GPU: {gpu.name}")

    def _open(self) -> Execution:
        import torch

        self._contexts, self._lock = (), threading.Lock()
        # cuDNN measures its algorithms, since shapes are fixed; TF32 is off: ten bits of mantissa are not FP32
        self._settings = contextlib.ExitStack()
        self._settings.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False))
        dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        self._load(self._device, dtypes[self.options.precision])
        torch.cuda.synchronize()  # contexts have streams of their own, which do not wait for the one that loaded it
        # one run tells whether a graph can be captured; the context serves the first thread, memory being scarce
        trial = self._context()
        self._infer(trial, self.warm_input())
        self._spare = trial
        parameter = next(self._model.parameters())
        return Execution(
            precision=executed(parameter),
            device=self._describe(parameter.device),
            threads=1,
            library=f"torch {torch.__version__}",
            details={
                "cuda": torch.version.cuda,
                "memory_format": "channels_last",
                "compiled": self.options.compile,
                "tf32": False,
                "cuda_graph": trial.graph,
                "no_graph_because": trial.graph_problem,
            },
        )

    def _describe(self, device: Any) -> str:
        import torch

        if device.type != "cuda":  # what it says is what runs
            return str(device).upper()
        major, minor = torch.cuda.get_device_capability(device)
        return f"GPU: {torch.cuda.get_device_name(device)} (sm_{major}{minor})"

    def _context(self) -> _GpuContext:
        with self._lock:
            context, self._spare = self._spare, None
            if context is None:
                preprocessor = Preprocessor(self.bundle.target, self.bundle.mean, self.bundle.std)
                context = _GpuContext(self._run, next(self._model.parameters()), preprocessor)
                self._contexts = (*self._contexts, context)
            return context

    def _infer(self, state: _GpuContext, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._named(state.infer(self._image(state.preprocessor, inputs)))

    def device_times(self) -> list[DeviceTimes]:
        """See `Runtime.device_times`."""
        return [context.times for context in self._contexts if context.times is not None]

    def _close(self) -> None:
        import torch

        self._contexts, self._spare = (), None
        self._settings.close()
        super()._close()
        torch.cuda.empty_cache()  # to the driver, for the next runtime; does nothing where CUDA was never used


def _unsupported(gpu: Gpu, built: list[str], version: str) -> tuple[str, str] | None:
    """Why a build of PyTorch has no code for a GPU; None where it has, or does not say what it was built for.

    Machine code (`sm_80`) runs on later minor versions of its generation, intermediate code (`compute_90`) on
    everything later.
    """
    fits = []
    for name in built:
        kind, _, digits = name.rstrip("af").partition("_")
        if not digits.isdigit():
            continue
        capability = int(digits[:-1]), int(digits[-1])
        same = capability[0] == gpu.capability[0]
        fits.append(capability <= gpu.capability and (same or kind == "compute"))
    if not fits or any(fits):
        return None
    return (
        f"the installed PyTorch {version} has no code for {gpu.name} ({gpu.sm}), only for {', '.join(built)}",
        "install a PyTorch that was built for this GPU: docs/cuda.md",
    )


class _GpuContext:
    """One thread's buffers, stream and graph.

    Args:
        run: the network: (n, 3, h, w) of the weights' type to tensors by role.
        parameter: one of its weights, for device and type.
        preprocessor: of the thread that uses this.
    """

    def __init__(self, run: Callable[[Any], dict[str, Any]], parameter: Any, preprocessor: Preprocessor) -> None:
        import torch

        self._run, self.preprocessor = run, preprocessor
        self._device, self._dtype = parameter.device, parameter.dtype
        cuda: Any = torch.cuda
        self._stream = cuda.Stream(self._device)
        self._events = [cuda.Event(enable_timing=True) for _ in range(4)]
        self._graph: Any = None
        self._use_graph = True
        self._input: Any = None
        self.graph_problem = ""
        self.times: DeviceTimes | None = None

    @property
    def graph(self) -> bool:
        """Inferences are launched as a CUDA graph."""
        return self._graph is not None

    def infer(self, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """float32 (n, 3, h, w) to float32 arrays by role, overwritten by the next call."""
        import torch

        start, uploaded, computed, downloaded = self._events
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            if self._input is None or tuple(self._input.shape) != image.shape:
                self._prepare(image.shape)
            np.copyto(self._staging.numpy(), image, casting="no")
            start.record(self._stream)
            self._input.copy_(self._staging, non_blocking=True)
            uploaded.record(self._stream)
            if self._graph is not None:
                self._graph.replay()
            else:
                self._results = self._forward()
            computed.record(self._stream)
            for role, tensor in self._results.items():
                self._outputs[role].copy_(tensor, non_blocking=True)
            downloaded.record(self._stream)
            downloaded.synchronize()
        self.times = DeviceTimes(
            start.elapsed_time(uploaded), uploaded.elapsed_time(computed), computed.elapsed_time(downloaded)
        )
        return {role: tensor.numpy() for role, tensor in self._outputs.items()}

    def _forward(self) -> dict[str, Any]:
        import torch

        results = self._run(self._input.to(self._dtype, memory_format=torch.channels_last))
        return {role: value.float().contiguous() for role, value in results.items()}

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Buffers for a shape, and the graph captured with their addresses."""
        import torch

        self._graph = None
        pinned = self._device.type == "cuda"
        self._staging = torch.empty(shape, pin_memory=pinned)
        self._input = torch.zeros(shape, device=self._device)
        # plain runs first: what libraries set up in them must not be part of the graph
        for _ in range(_WARM_RUNS):
            self._results = self._forward()
        self._stream.synchronize()
        self._outputs = {role: torch.empty(value.shape, pin_memory=pinned) for role, value in self._results.items()}
        if self._use_graph:
            self._capture()

    def _capture(self) -> None:
        """Capture one run; where that fails, plain launches go on and `graph_problem` says why."""
        import torch

        graph = torch.cuda.CUDAGraph()
        try:
            # other threads may go on allocating
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                results = self._forward()
        except RuntimeError as error:  # whatever the network does that a graph cannot hold
            # ending a capture that failed is a failure of its own, and says less
            self.graph_problem, self._use_graph = first_line(error.__context__ or error), False
            self._stream.synchronize()
            return
        self._graph, self._results = graph, results
