"""OpenVINO on the CPU, with the executed precision read from its own execution graph."""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridnets.bundle import Bundle
from hybridnets.errors import HnxError, first_line
from runtimes.base import Arrays, Execution, Probe, Runtime
from runtimes.compiled import CompiledStore, Kept
from runtimes.cpu import cpu_flags
from runtimes.openvino_graph import VERSION, prepare

__all__ = ["OpenVinoRuntime", "save_prepared"]

# our name -> (OpenVINO's element type, the capability a CPU reports when it has it natively)
_TYPES = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16")}
_NEEDS = {"bf16": "AVX512-BF16 or AMX-BF16", "fp16": "AVX512-FP16 or AMX-FP16"}
# whatever is between int8 convolutions runs in the hint's type; unsigned int8 is the form kernels without AMX take
_NAMES = {kind: name for name, (kind, _) in _TYPES.items()} | {"i8": "int8", "u8": "int8"}


def _openvino() -> Any:
    """The library, imported without its telemetry.

    On import it would fork a process that tells Google Analytics of it (and leave files in ~/intel): on a machine
    without internet that process hangs for 3 s, beside whatever is measured. Where the package openvino_telemetry is
    missing OpenVINO puts a stub of its own in its place, so that is what it gets to see; nobody's settings change.
    """
    hidden = "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes an import of it an ImportError
    try:
        import openvino as ov
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]
    return ov


@functools.lru_cache(maxsize=1)
def _core(ov: Any) -> Any:
    """The only Core of this process, kept to its end.

    Its CPU plugin gives the thread that makes it another stack for signal handlers, and unmaps that stack when it is
    destroyed. Where another thread drops the last reference the first one is left with a stack that is not there, and
    its next signal, a Ctrl-C, is a segmentation fault (seen with OpenVINO 2026.4).
    """
    return ov.Core()


class OpenVinoRuntime(Runtime):
    """FP32, BF16 and FP16 arithmetic on the FP32 network, chosen by INFERENCE_PRECISION_HINT; INT8 on its Q/DQ variant.

    Without the hint OpenVINO silently runs FP32 networks in BF16 where the CPU has it, so it is always set, and
    what the convolutions really run is counted afterwards. What is not quantised in an INT8 network runs in BF16 where
    the CPU has it: a network counts as INT8 when any convolution runs so, and the counts say how many do.
    """

    name = "openvino"
    extra = "openvino"
    caches = True
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32", "int8": "int8"}

    _compiled: Any = None
    _counts: Counter[str]
    # what `prepare` changed, or why it could not
    _changes: dict[str, int] | str
    # what a network from the cache reads its weights from: OpenVINO holds no reference of its own
    _blob: Any = None

    @classmethod
    def probe(cls) -> Probe:
        """See `Runtime.probe`."""
        ov = _openvino()
        core = _core(ov)
        capabilities = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        missing = {
            name: "" if capability in capabilities else f"this CPU has no native {name} ({_NEEDS.get(name)})"
            for name, (_, capability) in _TYPES.items()
        }
        # without instructions for it INT8 runs, too, and may be no faster
        missing["int8"] = "" if "INT8" in capabilities else "this CPU runs no int8 in OpenVINO"
        return Probe(
            version=ov.__version__.split("-")[0],
            precisions=missing,
            device=f"CPU: {core.get_property('CPU', 'FULL_DEVICE_NAME').strip()}",
        )

    def _open(self) -> Execution:
        ov = _openvino()
        core = _core(ov)
        streams = self.options.streams
        precision = self.options.precision
        if precision == "int8":
            precision = self.beside_int8(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        config = {
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": _TYPES[precision][0],
            "INFERENCE_NUM_THREADS": self.options.thread_count,
            "NUM_STREAMS": streams,
        }
        cache, cache_ms = self._load(ov, core, config)
        # a port may carry the producing node's name beside the output's, in any order
        wanted = [spec.name for spec in self.bundle.outputs.values()]
        self._ports = {
            name: index
            for index, port in enumerate(self._compiled.outputs)
            for name in wanted
            if name in port.get_names()
        }
        counts = self._counts
        executed = counts.most_common(1)[0][0] if counts else "?"
        name = _NAMES.get(executed, executed)
        if self.options.precision == "int8" and any(_NAMES.get(kind) == "int8" for kind in counts):
            name = "int8"
        return Execution(
            precision=name,
            device=", ".join(self._compiled.get_property("EXECUTION_DEVICES")),
            threads=int(self._compiled.get_property("INFERENCE_NUM_THREADS")),
            library=f"openvino {ov.__version__.split('-')[0]}",
            details={
                "convolutions": dict(counts),
                "precision_hint": self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
                "streams": int(self._compiled.get_property("NUM_STREAMS")),
                "changes": self._changes,
                "cache": cache,
                "cache_ms": cache_ms,
            },
        )

    @staticmethod
    def beside_int8(capabilities: Sequence[str]) -> str:
        """Precision of what an INT8 network leaves in float: the faster one of those that the CPU has."""
        return "bf16" if "BF16" in capabilities else "fp32"

    def _load(self, ov: Any, core: Any, config: dict[str, Any]) -> tuple[str, float]:
        """Take the network from the cache, or compile it and keep it there.

        OpenVINO's own CACHE_DIR finds a network by its path and the time of its last change, writes it in place, and
        grows for ever.

        Returns:
            `off`, `read`, `written` or `not kept: ` and why; ms spent on looking for it in vain and on writing it down.
        """
        start = time.perf_counter_ns()
        store = None if self.options.cache_dir is None else CompiledStore(self.options.cache_dir)
        key = None if store is None else self._key(ov, core, config)
        if store is not None and key is not None and self._import(ov, core, store.read(key), config):
            return "read", 0.0
        spent = time.perf_counter_ns() - start
        self._compiled = self._compile(core, config)
        self._counts = _convolutions(self._compiled)
        if store is None or key is None:
            return "off", 0.0
        if isinstance(self._changes, str):  # for want of memory, it may be: the next start tries again
            return "not kept: the network runs as it is in its file", spent / 1e6
        start = time.perf_counter_ns()
        try:
            exported = self._compiled.export_model()
            # a version of 2024 gives the bytes themselves
            data = exported if isinstance(exported, bytes) else exported.getbuffer()
            problem = store.write(key, {"convolutions": self._counts, "changes": self._changes}, data)
        except Exception as error:  # whatever kinds of errors the library has: the network runs without
            problem = first_line(error)
        spent += time.perf_counter_ns() - start
        return f"not kept: {problem}" if problem else "written", spent / 1e6

    def _compile(self, core: Any, config: dict[str, Any]) -> Any:
        """Compile the network, with what OpenVINO computes slowly said otherwise; files made by others as they are."""
        self._changes = {}
        if _is_prepared(self.bundle):
            try:
                model = core.read_model(str(self.model_path))
                changes = prepare(model, cpu_flags(), self.options.precision)
                compiled = core.compile_model(model, "CPU", config)
            except Exception as error:  # whatever kinds the library has: the file runs as it is, or says why not
                self._changes = f"none: {first_line(error)}"
            else:
                self._changes = changes
                return compiled
        return core.compile_model(str(self.model_path), "CPU", config)

    def _key(self, ov: Any, core: Any, config: dict[str, Any]) -> dict[str, Any] | None:
        """Everything that decides what the network is compiled to; None where its files cannot be read."""
        try:
            digests = self.bundle.network_digests(
                self.bundle.variant(self.stored[self.options.precision], self.name).file
            )
        except HnxError:  # OpenVINO says better what it misses
            return None
        return {
            "network": sorted(digests.values()),
            "library": ov.__version__,
            "device": core.get_property("CPU", "FULL_DEVICE_NAME"),
            "capabilities": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
            "flags": sorted(cpu_flags()),
            "changes": VERSION if _is_prepared(self.bundle) else 0,
            "config": config,
        }

    def _import(self, ov: Any, core: Any, kept: Kept | None, config: dict[str, Any]) -> bool:
        """Load what was kept; False where there is nothing, or OpenVINO does not take it."""
        if kept is None:
            return False
        try:
            compiled = _imported(ov, core, kept.data, config)
            # read back when the same network was compiled by the same library for the same CPU and settings; to read
            # it again takes 40 ms, a tenth of the whole
            counts = Counter({str(kind): int(number) for kind, number in kept.about["convolutions"].items()})
            changes = kept.about["changes"]
            names = {name for port in compiled.outputs for name in port.get_names()}
        except Exception:  # whatever kinds of errors the library has
            return False
        if not {spec.name for spec in self.bundle.outputs.values()} <= names:
            return False
        self._compiled, self._blob, self._counts, self._changes = compiled, kept.data, counts, changes
        return True

    def _context(self) -> Any:
        return _Request(self._compiled.create_infer_request(), self._blob)

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
        # shared memory in both directions: the results are views of the request's own buffers
        results = state.request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        return {name: results[index] for name, index in self._ports.items()}

    def _close(self) -> None:
        self._compiled = self._blob = None


def _is_prepared(bundle: Bundle) -> bool:
    """Networks that `hnx` exported are; files made by others, which have no manifest, run as they are."""
    return bool(bundle.manifest)


def save_prepared(bundle: Bundle, path: Path) -> None:
    """Write the network that is compiled for a bundle in FP32 as OpenVINO's own files, for tools of OpenVINO.

    Args:
        path: ends in `.xml`; the weights lie beside it.
    """
    ov = _openvino()
    model = _core(ov).read_model(str(bundle.file(bundle.variant("fp32", OpenVinoRuntime.name).file)))
    if _is_prepared(bundle):
        prepare(model, cpu_flags(), "fp32")
    ov.save_model(model, str(path), compress_to_fp16=False)


def _convolutions(compiled: Any) -> Counter[str]:
    """How many convolutions run in which type, read from what OpenVINO made of the network."""
    return Counter(
        op.get_rt_info()["runtimePrecision"].astype(str)
        for op in compiled.get_runtime_model().get_ops()
        if op.get_rt_info()["layerType"].astype(str) == "Convolution"
    )


class _Request(NamedTuple):
    """One thread's request, and the memory that it reads weights from: it may outlive the runtime."""

    request: Any
    blob: Any


def _imported(ov: Any, core: Any, blob: NDArray[np.uint8], config: dict[str, Any]) -> Any:
    try:
        # 0.19 s for c3 where a copy of the 52 MB takes 0.24 s
        return core.import_model(ov.Tensor(blob, shared_memory=True), "CPU", config)
    except TypeError:  # a version of 2024 takes bytes alone
        return core.import_model(blob.tobytes(), "CPU", config)
