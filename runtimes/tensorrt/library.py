"""The installed TensorRT, and what it can do: asked of its members, never of its version number.

Versions 8.6, 10 and 11 each removed calls that their predecessors needed, and renumbered enumerations. So every call
that some supported version lacks has one flag here, and numbers are never written down
(`tests/data/tensorrt/api.json` lists the members of each version; a test turns each flag on where it must be off).
"""

from __future__ import annotations

import importlib
import re
import threading
from collections import deque
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import Any

from hybridnets.errors import ExitCode, HnxError, first_line
from runtimes.tensorrt.config import Flavor
from runtimes.tensorrt.driver import CudaState

__all__ = ["Capabilities", "Library", "Log", "load", "needed_cuda"]

# flavour -> names under which the bindings may be importable, best first; the bare bindings wheels want their library
# wheel imported before them
_MODULES = {
    "trt": (("tensorrt",),),
    "rtx": (("tensorrt_rtx",), ("tensorrt_rtx_libs", "tensorrt_rtx_bindings")),
}
_NAMES = {"trt": "TensorRT", "rtx": "TensorRT for RTX"}
_INSTALL = {
    "trt": 'pip install -e ".[tensorrt]" (on a Jetson: sudo apt install python3-libnvinfer; see docs/tensorrt.md)',
    "rtx": "pip install tensorrt-rtx",
}
_KEPT_LINES = 400


@dataclass(frozen=True)
class Capabilities:
    """What differs between versions; True where the installed one has it.

    Attributes:
        explicit_batch: the network flag that 8.x requires and 11 no longer knows.
        precision_flags: FP16 and INT8 builder flags (weakly typed); without them the file's types decide.
        progress_monitor: a build reports its steps and can be cancelled (10 and later).
        optimization_level: builder_optimization_level (8.6 and later).
        hardware_compatibility, same_cc: plans for other GPUs (8.6 and later; 10.13 and later).
        version_compatible: plans for later versions, and the runtime's permission they need (8.6 and later).
        node_names: parser errors name the node (10 and later), not only its number.
    """

    explicit_batch: bool
    precision_flags: bool
    progress_monitor: bool
    optimization_level: bool
    hardware_compatibility: bool
    same_cc: bool
    version_compatible: bool
    node_names: bool

    @classmethod
    def of(cls, trt: Any) -> Capabilities:
        """Ask a TensorRT module."""
        config = trt.IBuilderConfig
        return cls(
            explicit_batch=hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH"),
            precision_flags=hasattr(trt.BuilderFlag, "FP16"),
            progress_monitor=hasattr(config, "progress_monitor"),
            optimization_level=hasattr(config, "builder_optimization_level"),
            hardware_compatibility=hasattr(config, "hardware_compatibility_level"),
            same_cc=hasattr(getattr(trt, "HardwareCompatibilityLevel", None), "SAME_COMPUTE_CAPABILITY"),
            version_compatible=hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"),
            node_names=hasattr(trt.ParserError, "node_name"),
        )


class Log:
    """What TensorRT says. One logger for a process: a second one given to a new builder is ignored with a warning."""

    def __init__(self, trt: Any) -> None:
        names = {getattr(trt.ILogger, name): name for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")}
        errors: deque[str] = deque(maxlen=_KEPT_LINES)
        warnings: deque[str] = deque(maxlen=_KEPT_LINES)
        self.errors, self.warnings = errors, warnings
        self.layers: list[str] = []
        layers = self.layers

        class _Logger(trt.ILogger):  # type: ignore[misc]  # a class of the library, known when it is imported
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                name = names.get(severity, "ERROR")
                if name in ("INTERNAL_ERROR", "ERROR"):
                    errors.append(msg)
                elif name == "WARNING":
                    warnings.append(msg)
                elif msg.startswith(("Layers:", "Engine Layer Information:")):
                    layers.append(msg)  # of the builder, with ProfilingVerbosity.DETAILED: one message

        self.logger = _Logger()

    def clear(self) -> None:
        """Forget what was said so far."""
        self.errors.clear()
        self.warnings.clear()
        self.layers.clear()

    def why(self, default: str) -> str:
        """The most telling error so far: the first one; later ones are its consequences."""
        return first_line(RuntimeError(self.errors[0])) if self.errors else default


@dataclass(frozen=True)
class Library:
    """An imported TensorRT.

    Attributes:
        trt: the module.
        flavor: `trt` or `rtx`.
        version: of the library.
        can: what it can do.
        log: the process's logger for it.
    """

    trt: Any
    flavor: str
    version: str
    can: Capabilities
    log: Log

    @property
    def name(self) -> str:
        """Name for people."""
        return _NAMES[self.flavor]

    @property
    def typing(self) -> str:
        """`weak`: builder flags choose the precision; `strong`: the types of the file do."""
        return "weak" if self.can.precision_flags else "strong"

    @property
    def builds_without_gpu(self) -> bool:
        """TensorRT for RTX compiles its kernels where the plan is used first."""
        return self.flavor == "rtx"

    def guard(self, state: CudaState, *, building: bool) -> None:
        """Refuse to make a Runtime or Builder where that could end the process.

        TensorRT 11's runtime returns an object without a driver and crashes the process when it is used, so the
        driver is asked first and nothing is made without it.

        Raises:
            HnxError: no usable device (exit code 4).
        """
        if building and self.builds_without_gpu:
            return
        obstacle = state.obstacle(self.name, needed_cuda(self.flavor))
        if obstacle is not None:
            raise HnxError(
                f"{self.name} {self.version} has no usable CUDA device",
                why=obstacle[0],
                fix=obstacle[1],
                code=ExitCode.NOTHING_RAN,
            )

    def make(self, kind: str) -> Any:
        """`Builder` or `Runtime`; call `guard` first.

        Raises:
            HnxError: the library refuses (exit code 4).
        """
        try:
            made = getattr(self.trt, kind)(self.log.logger)
        except TypeError as error:  # pybind11's word for a factory that returned nothing
            if "nullptr" not in str(error):
                raise
            made = None
        if made is None:
            raise HnxError(
                f"{self.name} {self.version} cannot start",
                why=_driver_error(self.log.why("its factory returned nothing, as it does without a usable driver")),
                fix="update the NVIDIA driver, or install the TensorRT package of its CUDA version",
                code=ExitCode.NOTHING_RAN,
            )
        return made


def _driver_error(text: str) -> str:
    """CUDA's error 35 in words."""
    if re.search(r"error:? ?35\b", text):
        return f"the NVIDIA driver is missing or older than this TensorRT needs ({text})"
    return text


_loaded: dict[str, Library] = {}
_lock = threading.Lock()


def load(flavor: Flavor = "auto") -> Library:
    """Import TensorRT, once for a process.

    Raises:
        HnxError: it is not installed or cannot be loaded (exit code 4).
    """
    with _lock:
        reasons = []
        for wanted in ("trt", "rtx") if flavor == "auto" else (flavor,):
            if wanted in _loaded:
                return _loaded[wanted]
            for modules in _MODULES[wanted]:
                try:
                    trt = [importlib.import_module(name) for name in modules][-1]
                except ModuleNotFoundError as error:
                    if error.name not in modules:
                        reasons.append(f"{modules[-1]}: {first_line(error)}")
                except Exception as error:  # a missing libnvinfer is an OSError, a RuntimeError or an ImportError
                    reasons.append(f"{modules[-1]}: {first_line(error)}")
                else:
                    _loaded[wanted] = adopt(trt, wanted)
                    return _loaded[wanted]
        wanted = "rtx" if flavor == "rtx" else "trt"
        raise HnxError(
            f"{_NAMES[wanted]} cannot be loaded" if reasons else f"{_NAMES[wanted]} is not installed",
            why="; ".join(reasons) or f"Python finds no module {_MODULES[wanted][-1][-1].split('_bindings')[0]}",
            fix=_INSTALL[wanted],
            code=ExitCode.NOTHING_RAN,
        )


def adopt(trt: Any, flavor: str) -> Library:
    """A Library around an imported module."""
    return Library(trt, flavor, str(trt.__version__), Capabilities.of(trt), Log(trt))


def needed_cuda(flavor: str) -> int:
    """The oldest driver interface (12000 for CUDA 12.0) the installed wheels need; 0 where the wheels do not say.

    JetPack's packages match its driver by construction.
    """
    pattern = re.compile(r"tensorrt[-_]rtx[-_]cu(\d\d)" if flavor == "rtx" else r"tensorrt[-_]cu(\d\d)", re.IGNORECASE)
    found = (pattern.match(dist.metadata["Name"] or "") for dist in distributions())
    return max((int(match[1]) * 1000 for match in found if match), default=0)
