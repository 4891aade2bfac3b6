"""The `tensorrt` runtime: plans built by `hnx build-trt`, on TensorRT 8.5 to 11 and TensorRT for RTX."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from numpy.typing import NDArray

from hybridnets.bundle import Bundle
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import Arrays, Execution, Probe, Runtime, RuntimeOptions
from runtimes.device_times import DeviceTimes
from runtimes.tensorrt.choose import find_plan
from runtimes.tensorrt.cuda import Device, open_device
from runtimes.tensorrt.driver import probe as probe_cuda
from runtimes.tensorrt.engine import Engine, load_engine
from runtimes.tensorrt.execution import PlanContext
from runtimes.tensorrt.library import load
from runtimes.tensorrt.plan import Here, TensorForm

__all__ = ["TensorRtRuntime"]


class TensorRtRuntime(Runtime):
    """A plan that lies in the bundle; each context has a stream, buffers and a CUDA graph of its own.

    Nothing is built here: a build takes minutes, and a benchmark that hides one measures something else.
    """

    name = "tensorrt"
    extra = "tensorrt"
    # by the network a plan is built from, which is not read here
    stored: ClassVar[dict[str, str]] = {"fp16": "fp32", "int8": "fp32", "fp32": "fp32"}

    _engine: Engine | None = None
    _device: Device | None = None
    _spare: PlanContext | None = None

    def __init__(self, bundle: Bundle, options: RuntimeOptions | None = None) -> None:
        super().__init__(bundle, options)
        self._contexts: list[PlanContext] = []
        self._lock = threading.Lock()

    @classmethod
    def probe(cls) -> Probe:
        """See `Runtime.probe`. Makes no Runtime or Builder: those may end the process."""
        precisions = dict.fromkeys(cls.stored, "")
        state = probe_cuda()
        try:
            library = load("auto")
        except HnxError as error:
            return Probe(precisions=precisions, reason=f"{error.what}: {error.why}", fix=error.fix, device="GPU")
        try:
            library.guard(state, building=False)
        except HnxError as error:
            return Probe(library.version, precisions, f"{error.what}: {error.why}", error.fix, "GPU")
        return Probe(library.version, precisions, device=f"GPU: {state.gpus[0].name}")

    def _open(self) -> Execution:
        try:
            return self._load()
        except BaseException:
            self._close()
            raise

    def _load(self) -> Execution:
        library, state = load("auto"), probe_cuda()
        library.guard(state, building=False)
        gpu = state.gpu(0)
        here = Here(library.flavor, library.version, gpu)
        plan, sidecar = find_plan(self.bundle, self.options.precision, here)
        self._device = open_device(gpu)
        self._device.activate()
        self._engine = load_engine(library, state, gpu.index, plan, sidecar)
        self._check_tensors(self._engine, plan.name)
        # one run tells whether a graph can be captured; the context serves the first thread, memory being scarce
        trial = self._context()
        trial.infer(self.warm_input())
        self._spare = trial
        return Execution(
            precision=sidecar.executed or self.options.precision,
            device=f"{'GPU' if sidecar.dla_core is None else f'DLA {sidecar.dla_core}'}: {gpu.name} ({gpu.sm})",
            threads=1,
            library=f"{library.name} {library.version}",
            details={
                "plan": plan.name,
                "asked": list(sidecar.asked),
                "layers": {kind: dict(counts) for kind, counts in sidecar.summary.items()},
                "layers_from": sidecar.layers_from,
                "typing": sidecar.typing,
                "cuda_graph": trial.graph,
                "no_graph_because": trial.graph_problem,
                "zero_copy": gpu.integrated,
                "memory_from": self._device.library,
            },
        )

    def _check_tensors(self, engine: Engine, plan: str) -> None:
        """The plan must have the bundle's tensors; types of outputs may be narrower, they are widened."""
        outputs = {spec.name: spec.shape for spec in self.bundle.outputs.values()}
        given = {form.name for form in engine.outputs}
        wanted = self.bundle.input
        fits = (
            len(engine.inputs) == 1
            and (engine.inputs[0].name, engine.inputs[0].dtype) == (wanted.name, wanted.dtype)
            and outputs.keys() <= given
            and _fits(engine.inputs[0], wanted.shape)
            and all(_fits(form, outputs[form.name]) for form in engine.outputs if form.name in outputs)
        )
        if not fits:
            has = "; ".join(f"{f.name}: {f.dtype} {f.shape}" for f in (*engine.inputs, *engine.outputs))
            raise HnxError(
                f"Plan {plan} does not fit bundle {self.bundle.name}",
                why=f"it has {has}; the bundle has {wanted} and {', '.join(outputs)}",
                fix=f"build it again: hnx build-trt {self.bundle.path}",
                code=ExitCode.FAILED,
            )

    def _context(self) -> PlanContext:
        if self._engine is None or self._device is None:
            raise HnxError(f"{self.name} is not open", fix="call open(), or use it in a with statement")
        with self._lock:
            context, self._spare = self._spare, None
            if context is None:
                context = PlanContext(self._engine, self._device)
                self._contexts.append(context)
            return context

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
        results: dict[str, NDArray[Any]] = state.infer(inputs)
        wanted = {spec.name: spec.dtype for spec in self.bundle.outputs.values()}
        return {
            name: array if array.dtype == wanted[name] else array.astype(wanted[name])
            for name, array in results.items()
            if name in wanted
        }

    def device_times(self) -> list[DeviceTimes]:
        """See `Runtime.device_times`."""
        return [context.times for context in self._contexts if context.times is not None]

    def _close(self) -> None:
        for context in self._contexts:
            context.close()
        self._contexts, self._spare = [], None
        if self._device is not None:
            with self._device.owning():
                self._engine = None  # TensorRT frees device memory here
            self._device = None


def _fits(form: TensorForm, shape: tuple[int | str, ...]) -> bool:
    """A plan's shape against a bundle's: names and -1 stand for anything."""
    return len(form.shape) == len(shape) and all(
        size < 0 or isinstance(want, str) or size == want for size, want in zip(form.shape, shape, strict=True)
    )
