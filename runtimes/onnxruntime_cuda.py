"""ONNX Runtime's CUDA provider: the whole network on an NVIDIA GPU, or an error."""

from __future__ import annotations

import contextlib
import ctypes
import io
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from hybridnets.errors import ExitCode, HnxError, first_line
from runtimes.base import Arrays, Execution, Probe, Runtime
from runtimes.device_times import DeviceTimes
from runtimes.onnxruntime_profile import Placement, read_profile
from runtimes.tensorrt.driver import probe as probe_cuda

__all__ = ["CPU_PROVIDER", "OnnxRuntimeCuda"]

CPU_PROVIDER = "CPUExecutionProvider"
_CUDA_PROVIDER = "CUDAExecutionProvider"
_FALLBACK = "session.disable_cpu_ep_fallback"
# of log levels: nothing short of a crash is printed, since whatever goes wrong here becomes an error of ours
_SILENT, _WARNINGS = 4, 2
# in what ONNX Runtime raises where the GPU cannot have the whole network
_REFUSALS = ("CPU EP", "CUDA failure", "CUDA error")
_INSTALL = 'pip uninstall onnxruntime onnxruntime-gpu, then pip install -e ".[cuda]" (docs/cuda.md)'


class OnnxRuntimeCuda(Runtime):
    """FP32, and FP16 of a variant with half-precision types, bound to buffers on the first GPU.

    ONNX Runtime runs what a GPU cannot on the CPU, without a word and with copies to and fro; where its CUDA provider
    does not start, everything. A row of a benchmark that did so would be a lie, so each way back is closed: the
    session's own option, the Python layer's retry, the list of providers, and the profile of the first run.
    """

    name = "onnxruntime-cuda"
    extra = "cuda"
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32", "fp16": "fp16"}

    provider: ClassVar[str] = _CUDA_PROVIDER
    tf32: ClassVar[bool] = False  # FP32 may be computed with ten bits of mantissa
    _device = ("cuda", 0)

    _session: Any = None
    _contexts: tuple[_Bound, ...] = ()

    @classmethod
    def probe(cls) -> Probe:
        """See `Runtime.probe`."""
        import onnxruntime as ort

        version, built_for = ort.__version__, str(getattr(ort, "cuda_version", "") or "")
        precisions = dict.fromkeys(cls.stored, "")
        state = probe_cuda()
        major = built_for.split(".")[0]
        obstacle = state.obstacle("ONNX Runtime", int(major) * 1000 if major.isdigit() else 0)
        if obstacle is None and cls.provider not in ort.get_available_providers():
            has = ", ".join(name.removesuffix("ExecutionProvider") for name in ort.get_available_providers())
            kind = cls.provider.removesuffix("ExecutionProvider")
            obstacle = f"the installed onnxruntime {version} has no {kind} provider, only {has}", _INSTALL
        if obstacle is not None:
            return Probe(version, precisions, *obstacle, device="GPU")
        return Probe(version, precisions, device=f"GPU: {state.gpus[0].name}")

    def _providers(self) -> list[tuple[str, dict[str, str]]]:
        """In order of preference, with their options; the CPU's is added by ONNX Runtime and must stay idle."""
        return [(_CUDA_PROVIDER, {"device_id": "0", "use_tf32": "0"})]

    def _executed(self, placement: Placement) -> str:
        """What really runs, from the profile of a run."""
        return placement.precision

    def _open(self) -> Execution:
        import onnxruntime as ort

        _preload(ort)
        with tempfile.TemporaryDirectory() as folder:
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            options.log_severity_level = _SILENT
            options.add_session_config_entry(_FALLBACK, "1")
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            self._session = self._start(ort, options)
            # the first run also chooses algorithms; its profile says where every node went, later runs write none
            self._context().infer(self.warm_input())
            placement = read_profile(Path(self._session.end_profiling()))
        self._contexts = ()
        self._check(placement)
        return Execution(
            precision=self._executed(placement),
            device=f"GPU: {probe_cuda().gpu(0).name}",
            threads=1,
            library=f"onnxruntime {ort.__version__}",
            details={
                "provider": self.provider,
                "providers": self._session.get_providers(),
                "nodes": dict(placement.nodes),
                "convolutions": dict(placement.convolutions),
                "io_binding": True,
                "tf32": self.tf32 and self.options.precision == "fp32",
            },
        )

    def _start(self, ort: Any, options: Any) -> Any:
        """A session that has the provider.

        Raises:
            HnxError: the provider does not start, or leaves nodes to the CPU (exit code 4).
        """
        ort.set_default_logger_severity(_SILENT)
        try:
            # without a retry of the Python layer, which would take the CPU and print to standard output
            session = ort.InferenceSession(
                str(self.model_path), options, providers=self._providers(), enable_fallback=0
            )
        except Exception as error:
            text = first_line(error)
            if (missing := _missing_library(ort, self.provider)) or any(word in text for word in _REFUSALS):
                raise self._refused(missing or text) from error
            raise
        finally:
            ort.set_default_logger_severity(_WARNINGS)
        if session.get_providers()[0] != self.provider:
            missing = _missing_library(ort, self.provider)
            raise self._refused(missing or f"it runs on {', '.join(session.get_providers())} instead")
        return session

    def _check(self, placement: Placement) -> None:
        """Refuse a network of which any part runs on the CPU, or none on the provider.

        Raises:
            HnxError: exit code 4.
        """
        if placement.nodes.get(CPU_PROVIDER):
            count, total = placement.nodes[CPU_PROVIDER], sum(placement.nodes.values())
            raise self._refused(f"{count} of {total} nodes would run on the CPU, first {placement.first[CPU_PROVIDER]}")
        if not placement.nodes.get(self.provider):
            raise self._refused(f"none of its nodes is on the {self.provider}")

    def _refused(self, why: str) -> HnxError:
        return HnxError(
            f"{self.name} does not run {self.bundle.name} on the GPU alone",
            why=why,
            fix="install the CUDA and cuDNN this onnxruntime was built with (docs/cuda.md), or use another runtime",
            code=ExitCode.NOTHING_RAN,
        )

    def _context(self) -> _Bound:
        import onnxruntime as ort

        free = any(isinstance(size, str) for spec in self.bundle.outputs.values() for size in spec.shape)
        bound = _Bound(ort, self._session, self._device, free)
        self._contexts = (*self._contexts, bound)
        return bound

    def _infer(self, state: _Bound, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return state.infer(inputs)

    def device_times(self) -> list[DeviceTimes]:
        """See `Runtime.device_times`; by the CPU's clock, each step waited for."""
        return [context.times for context in self._contexts if context.times is not None]

    def _close(self) -> None:
        self._contexts, self._session = (), None


def _preload(ort: Any) -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, where they lie outside the loader's path, as far as they are there."""
    if hasattr(ort, "preload_dlls"):  # 1.21 and later
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            ort.preload_dlls()


def _missing_library(ort: Any, provider: str) -> str:
    """Why a provider's own library does not load; "" where it does.

    ONNX Runtime tells its log, and goes on without the provider.
    """
    name = provider.removesuffix("ExecutionProvider").lower()
    folder = Path(ort.__file__).parent / "capi"
    for path in folder.glob(f"*onnxruntime_providers_{name}.*"):
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            return first_line(error)
    return ""


class _Bound:
    """One thread's buffers on the device.

    Args:
        device: kind and index.
        free: sizes of outputs are not known before a run: their buffers are made anew each time.
    """

    def __init__(self, ort: Any, session: Any, device: tuple[str, int], free: bool) -> None:
        self._ort, self._session, self._device, self._free = ort, session, device, free
        self._names = [spec.name for spec in session.get_outputs()]
        self._inputs: Mapping[str, Any] = {}
        self._shapes: Mapping[str, tuple[int, ...]] = {}
        self._binding: Any = None
        self.times: DeviceTimes | None = None

    def infer(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Named arrays in, named arrays out."""
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            self._bind(inputs)
            self._shapes = shapes
        elif self._free:
            self._bind_outputs()
        start = time.perf_counter_ns()
        for name, array in inputs.items():
            self._inputs[name].update_inplace(array)
        uploaded = time.perf_counter_ns()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        computed = time.perf_counter_ns()
        results = dict(zip(self._names, (value.numpy() for value in self._binding.get_outputs()), strict=True))
        downloaded = time.perf_counter_ns()
        self.times = DeviceTimes((uploaded - start) / 1e6, (computed - uploaded) / 1e6, (downloaded - computed) / 1e6)
        return results

    def _bind(self, inputs: Arrays) -> None:
        """Buffers for new shapes."""
        self._binding = self._session.io_binding()
        self._inputs = {
            name: self._ort.OrtValue.ortvalue_from_numpy(array, *self._device) for name, array in inputs.items()
        }
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        self._bind_outputs()

    def _bind_outputs(self) -> None:
        """Outputs stay on the device; ONNX Runtime makes their buffers in the next run and keeps them."""
        for name in self._names:
            self._binding.bind_output(name, *self._device)
