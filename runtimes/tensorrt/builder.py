"""One build, in this process, on every TensorRT from 8.5 to 11 and on TensorRT for RTX."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hybridnets.errors import ExitCode, HnxError
from runtimes.tensorrt.config import PlanConfig
from runtimes.tensorrt.driver import CudaState
from runtimes.tensorrt.layers import Layer, from_inspector, from_log
from runtimes.tensorrt.library import Library
from runtimes.tensorrt.network import Parsed, check_shapes, check_types, parse
from runtimes.tensorrt.plan import TensorForm

__all__ = ["Built", "Report", "build"]

# phase, steps done, steps in all (0 when unknown); False asks the build to stop
Report = Callable[[str, int, int], bool]


@dataclass(frozen=True)
class Built:
    """A finished plan.

    Attributes:
        plan: what TensorRT loads.
        timing_cache: to make the next build on this GPU faster; b"" when TensorRT gives none.
        tensors: inputs and outputs.
        layers, layers_from: what each layer became, and who said so.
        timing_s: parse, build, inspect.
        notes: what the user should know.
    """

    plan: bytes
    timing_cache: bytes
    tensors: tuple[TensorForm, ...]
    layers: tuple[Layer, ...]
    layers_from: str
    timing_s: dict[str, float]
    notes: tuple[str, ...] = field(default=())


def build(
    config: PlanConfig, library: Library, state: CudaState, workspace: int, cache: bytes, report: Report
) -> Built:
    """Parse, configure, build and look at the result. Blocks for seconds to tens of minutes.

    Args:
        workspace: bytes, resolved.
        cache: an earlier timing cache, b"" for none.

    Raises:
        HnxError: no device, an option this TensorRT lacks, a network it refuses, or a failed build.
    """
    library.guard(state, building=True)
    library.log.clear()
    check_options(config, library)
    notes: list[str] = []
    start = time.perf_counter_ns()
    report("starting", 0, 0)
    builder = library.make("Builder")
    report("parsing", 0, 0)
    parsed = parse(library, builder, config.onnx)
    check_types(config, library, parsed)
    check_shapes(config, parsed)
    parsed_at = time.perf_counter_ns()

    settings = builder.create_builder_config()
    _configure(config, library, builder, settings, workspace)
    _set_timing_cache(settings, cache, notes)
    if any(form.shape[0] < 0 for form in parsed.inputs if form.shape):
        settings.add_optimization_profile(_profile(config, builder, parsed))
    if library.can.progress_monitor:
        monitor = _monitor(library.trt, report)
        settings.progress_monitor = monitor
    report("building", 0, 0)
    host = builder.build_serialized_network(parsed.network, settings)
    if host is None:
        raise _failed(config, library)
    plan = bytes(host)
    built_at = time.perf_counter_ns()

    report("inspecting", 0, 0)
    layers, source = _inspect(config, library, state, plan)
    return Built(
        plan=plan,
        timing_cache=_timing_cache(settings),
        tensors=(*parsed.inputs, *parsed.outputs),
        layers=tuple(layers),
        layers_from=source,
        timing_s={
            "parse": (parsed_at - start) / 1e9,
            "build": (built_at - parsed_at) / 1e9,
            "inspect": (time.perf_counter_ns() - built_at) / 1e9,
        },
        notes=(*notes, *_warnings(library)),
    )


def check_options(config: PlanConfig, library: Library) -> None:
    """Refuse options that the installed TensorRT does not have.

    Raises:
        HnxError: exit code 2.
    """
    can = library.can
    if library.flavor == "rtx" and (config.version_compatible or config.compat != "none"):
        # its bindings have the members; 1.7.1 fails at the end of the build for want of libnvinfer_lean, and warns that
        # the hardware level is unsupported
        raise HnxError(
            f"{library.name} builds no plans for other versions or levels of hardware",
            why="a plan built without a GPU runs on every RTX card of sm_75 and later, with the same version",
            fix="leave --version-compatible and --hardware-compat out",
            code=ExitCode.USAGE,
        )
    for asked, possible, option, since in (
        (config.opt_level is not None, can.optimization_level, "--opt-level", "8.6"),
        (config.version_compatible, can.version_compatible, "--version-compatible", "8.6"),
        (config.compat != "none", can.hardware_compatibility, "--hardware-compat", "8.6"),
        (config.compat == "same-cc", can.same_cc, "--hardware-compat same-cc", "10.13"),
    ):
        if asked and not possible:
            raise HnxError(
                f"{library.name} {library.version} does not know {option}",
                why=f"it came with {since}",
                fix="leave it out",
                code=ExitCode.USAGE,
            )


def _configure(config: PlanConfig, library: Library, builder: Any, settings: Any, workspace: int) -> None:
    """Everything but the timing cache, the profile and the monitor. `check_options` has refused what is not there."""
    trt, flag = library.trt, library.trt.BuilderFlag
    settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(workspace))
    settings.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else no layer says its precision
    if library.can.precision_flags:
        if config.int8:
            settings.set_flag(flag.INT8)
        if config.fp16 or (config.int8 and not config.fp32):
            settings.set_flag(flag.FP16)
    if config.precision == "fp32":
        settings.clear_flag(flag.TF32)  # on by default: ten bits of mantissa are not what fp32 says
    if config.opt_level is not None:
        settings.builder_optimization_level = config.opt_level
    if config.version_compatible:
        settings.set_flag(flag.VERSION_COMPATIBLE)
    if config.compat != "none":
        levels = trt.HardwareCompatibilityLevel
        settings.hardware_compatibility_level = (
            levels.AMPERE_PLUS if config.compat == "ampere+" else levels.SAME_COMPUTE_CAPABILITY
        )
    core = config.dla_core
    if core is None:
        return
    cores = builder.num_DLA_cores
    if core >= cores:
        raise HnxError(
            f"There is no device dla:{core}",
            why=f"TensorRT {library.version} sees {cores} DLA core(s) here; Orin Nano, Thor and graphics cards have "
            "none, and TensorRT 10.13 to 11.3 drive none",
            fix="use --device cuda:0",
            code=ExitCode.NOTHING_RAN,
        )
    settings.default_device_type = trt.DeviceType.DLA
    settings.DLA_core = core
    if config.gpu_fallback:
        settings.set_flag(flag.GPU_FALLBACK)


def _set_timing_cache(settings: Any, content: bytes, notes: list[str]) -> None:
    """An earlier cache, or an empty one where TensorRT refuses it (another GPU or version, a damaged file)."""
    try:
        cache = settings.create_timing_cache(content)
    except (RuntimeError, ValueError):
        cache = None
    if cache is None or not settings.set_timing_cache(cache, False):
        if content:
            notes.append("the timing cache is of another GPU or TensorRT, or damaged: starting a new one")
        empty = settings.create_timing_cache(b"")
        if empty is not None:
            settings.set_timing_cache(empty, False)


def _timing_cache(settings: Any) -> bytes:
    cache = settings.get_timing_cache()
    return b"" if cache is None else bytes(cache.serialize())


def _profile(config: PlanConfig, builder: Any, parsed: Parsed) -> Any:
    """One profile: the smallest, usual and largest batch of every input whose batch is free."""
    profile = builder.create_optimization_profile()
    for form in parsed.inputs:
        shapes = [tuple(batch if size < 0 else size for size in form.shape) for batch in config.batch]
        profile.set_shape(form.name, *shapes)
    return profile


def _monitor(trt: Any, report: Report) -> Any:
    """TensorRT's progress, which it may tell from several threads, in our form."""

    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of the library, known when it is imported
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._totals: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._totals[phase_name] = num_steps
            report(phase_name, 0, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            total = self._totals.pop(phase_name, 0)
            report(phase_name, total, total)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return report(phase_name, step + 1, self._totals.get(phase_name, 0))

    return _Monitor()


def _failed(config: PlanConfig, library: Library) -> HnxError:
    """Why a build gave nothing, from the log."""
    why = library.log.why("it does not say why")
    text = " ".join(library.log.errors).lower()
    if "memory" in text:
        fix = "close other programs, or give less scratch memory, for example --workspace 512MiB"
    elif config.dla_core is not None and not config.gpu_fallback:
        fix = "let the GPU run what the DLA cannot: --allow-gpu-fallback"
    else:
        fix = "export the network again with another --opset, or report this with the ONNX file"
    return HnxError(f"{library.name} {library.version} could not build {config.onnx.name}", why=why, fix=fix)


def _warnings(library: Library) -> list[str]:
    """The first few warnings of the build, each once."""
    return list(dict.fromkeys(line.strip()[:300] for line in library.log.warnings))[:5]


def _inspect(config: PlanConfig, library: Library, state: CudaState, plan: bytes) -> tuple[list[Layer], str]:
    """What became of the layers: from the loaded plan where there is a device, else from the builder's log."""
    if not state.problem:
        runtime = library.make("Runtime")
        if config.version_compatible:
            runtime.engine_host_code_allowed = True  # our own plan, built a moment ago
        if config.dla_core is not None:
            runtime.DLA_core = config.dla_core
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is not None:
            inspector = engine.create_engine_inspector()
            layers = from_inspector(inspector.get_engine_information(library.trt.LayerInformationFormat.JSON))
            if any(layer.precision != "none" for layer in layers):
                return layers, "engine inspector"
        elif not library.builds_without_gpu:
            raise HnxError(
                f"{library.name} {library.version} cannot load the plan it has just built",
                why=library.log.why("it does not say why"),
                fix="update the NVIDIA driver and TensorRT together",
            )
    for message in reversed(library.log.layers):
        if layers := from_log(message):
            return layers, "builder log"
    return [], ""
