"""A plan loaded by TensorRT: checked before, described by names after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridnets.errors import ExitCode, HnxError, from_os_error
from runtimes.tensorrt.driver import CudaState
from runtimes.tensorrt.library import Library
from runtimes.tensorrt.network import DTYPES
from runtimes.tensorrt.plan import Here, Sidecar, TensorForm, check

__all__ = ["Engine", "load_engine"]

# types that numpy holds; bf16 and fp8 outputs would need a conversion nobody asked for
_NUMPY = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")


@dataclass(frozen=True)
class Engine:
    """A loaded plan.

    Attributes:
        engine, runtime: TensorRT's objects; the runtime must outlive the engine.
        inputs, outputs: tensors on the device, in the plan's order.
    """

    engine: Any
    runtime: Any
    library: Library
    inputs: tuple[TensorForm, ...]
    outputs: tuple[TensorForm, ...]

    def context(self) -> Any:
        """A new execution context, with activation memory of its own.

        Raises:
            HnxError: the GPU has not enough memory for it.
        """
        context = self.engine.create_execution_context()
        if context is None:
            raise HnxError(
                "No memory on the GPU for the network's activations",
                why=self.library.log.why("TensorRT does not say why"),
                fix="close other programs, or use fewer streams",
            )
        return context


def load_engine(library: Library, state: CudaState, gpu: int, plan: Path, sidecar: Sidecar) -> Engine:
    """Load a plan. CUDA is asked, and version, GPU and hash are compared, before TensorRT sees a byte.

    Raises:
        HnxError: no usable device (exit code 4), a plan for another machine (4), a damaged one (1).
    """
    library.guard(state, building=False)
    check(plan, sidecar, Here(library.flavor, library.version, state.gpu(gpu)))
    library.log.clear()
    runtime = library.make("Runtime")
    if sidecar.version_compatible and library.can.version_compatible:
        runtime.engine_host_code_allowed = True  # such plans carry a runtime of their own; the hash was compared above
    if sidecar.dla_core is not None:
        runtime.DLA_core = sidecar.dla_core
    try:
        content = plan.read_bytes()
    except OSError as error:
        raise from_os_error(f"Cannot read {plan}", error) from error
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise HnxError(
            f"{library.name} {library.version} refuses {plan.name}",
            why=library.log.why("it does not say why"),
            fix=f"build it again on this machine: {sidecar.command}",
            code=ExitCode.NOTHING_RAN,
        )
    inputs, outputs = _tensors(library, engine, plan)
    return Engine(engine, runtime, library, inputs, outputs)


def _tensors(library: Library, engine: Any, plan: Path) -> tuple[tuple[TensorForm, ...], tuple[TensorForm, ...]]:
    """Inputs and outputs by name; indices of bindings are gone since 10."""
    trt = library.trt
    found: dict[str, list[TensorForm]] = {"input": [], "output": []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        mode = "input" if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else "output"
        kind = engine.get_tensor_dtype(name).name
        dtype = DTYPES.get(kind, kind.lower())
        if dtype not in _NUMPY or engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise HnxError(
                f"Plan {plan.name} has a tensor hnx cannot serve: {name} ({dtype})",
                why="images go in and float32 results come out of HybridNets, in device memory",
                fix="export the network with hnx export and build it again",
            )
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        found[mode].append(TensorForm(str(name), mode, dtype, shape))
    return tuple(found["input"]), tuple(found["output"])
