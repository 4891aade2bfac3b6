"""The one interface of all runtimes.

A runtime writes four methods (`_open`, `_context`, `_infer`, `_close`) and a `probe`; the checks, the context
manager and the messages live here. Each instance runs one bundle at one precision.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridnets.bundle import Bundle
from hybridnets.errors import ExitCode, HnxError, did_you_mean, first_line
from hybridnets.onnx_header import TensorSpec
from runtimes.device_times import DeviceTimes

__all__ = [
    "PRECISIONS",
    "TUNED",
    "Arrays",
    "Context",
    "Execution",
    "Probe",
    "Runtime",
    "RuntimeOptions",
    "available_threads",
    "parse_precision",
]

Arrays = Mapping[str, NDArray[Any]]

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
# stands for the precision and the threads that `hnx tune` kept in the bundle: see `runtimes.tuned`
TUNED = "tuned"
_ALIASES = {
    "f32": "fp32",
    "float32": "fp32",
    "bfloat16": "bf16",
    "f16": "fp16",
    "half": "fp16",
    "float16": "fp16",
    "i8": "int8",
}


_MOST_THREADS = 1024  # far more than any board has; 100000 took two minutes to fail


def parse_precision(word: str) -> str:
    """Canonical name of a precision, or `tuned`.

    Raises:
        HnxError: unknown, with a suggestion (exit code 2).

    >>> parse_precision("half")
    'fp16'
    """
    name = _ALIASES.get(word.lower(), word.lower())
    if name not in (*PRECISIONS, TUNED):
        raise HnxError(
            f"Unknown precision {word!r}",
            why=did_you_mean(word, [*PRECISIONS, TUNED, *_ALIASES]),
            fix="choose one of these",
            code=ExitCode.USAGE,
        )
    return name


def available_threads() -> int:
    """Cores this process may use (containers and taskset included)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class RuntimeOptions:
    """How to run; None means the runtime's sensible default.

    Attributes:
        precision: arithmetic asked for; `open_runtime` also takes `tuned`.
        threads: CPU threads of one inference; default all available.
        streams: inferences that will run side by side.
        compile: torch only: torch.compile (minutes at first, faster after).
        cache_dir: where compiled models may be kept; None keeps none.
    """

    precision: str = "fp32"
    threads: int | None = None
    streams: int = 1
    compile: bool = False
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", parse_precision(self.precision))
        for name in ("threads", "streams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise HnxError(
                    f"{name} is {value}",
                    why="it counts from 1",
                    fix=f"for example --{name} 2",
                    code=ExitCode.USAGE,
                )
            if value is not None and value > _MOST_THREADS:
                raise HnxError(
                    f"{name} is {value}",
                    why=f"this machine has {available_threads()} cores; more than {_MOST_THREADS} are refused",
                    fix=f"leave --{name} out",
                    code=ExitCode.USAGE,
                )

    @property
    def thread_count(self) -> int:
        """Threads of one inference, the default resolved."""
        return self.threads or available_threads()


@dataclass(frozen=True)
class Probe:
    """Whether a runtime can run on this machine.

    Attributes:
        version: of the library; empty when it is missing.
        precisions: precision to "" when it runs here, else the reason why not.
        reason, fix: why the runtime cannot run at all, and the command that mends it; both empty when it can.
        device: what it would run on.
    """

    version: str = ""
    precisions: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    fix: str = ""
    device: str = "CPU"

    @property
    def available(self) -> bool:
        """It can run here."""
        return not self.reason

    def runnable(self) -> list[str]:
        """The precisions that run here."""
        return [name for name, problem in self.precisions.items() if not problem] if self.available else []


@dataclass(frozen=True)
class Execution:
    """What really runs, read back from the library after it loaded the network."""

    precision: str
    device: str
    threads: int
    library: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Context:
    """One thread's right to run an opened network. Contexts of one runtime may run side by side."""

    def __init__(self, runtime: Runtime, state: Any) -> None:
        self._runtime, self._state = runtime, state

    def infer(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Named arrays in, named arrays out; the results may be overwritten by this context's next call.

        Raises:
            HnxError: the runtime was closed, an input does not fit, or the library failed.
        """
        if not self._runtime._opened:
            raise self._runtime._not_open()
        self._runtime.check_inputs(inputs)
        try:
            return self._runtime._infer(self._state, inputs)
        except (HnxError, MemoryError):
            raise
        except Exception as error:  # whatever kinds of errors the library has
            raise HnxError(
                f"{self._runtime.name} failed while running {self._runtime.bundle.name}",
                why=first_line(error),
                fix="export the bundle again, or use another runtime (`hnx doctor` lists them)",
            ) from error


class Runtime(ABC):
    """Base of all runtimes.

    >>> with OpenVinoRuntime(bundle, RuntimeOptions("bf16")) as runtime:   # doctest: +SKIP
    ...     outputs = runtime.infer({"input": tensor})
    """

    name: ClassVar[str]
    extra: ClassVar[str]  # of setup.cfg
    # precision asked for -> precision of the stored variant that serves it
    stored: ClassVar[Mapping[str, str]] = {"fp32": "fp32"}
    compiles: ClassVar[bool] = False  # it knows RuntimeOptions.compile
    caches: ClassVar[bool] = False  # it keeps what it compiled in RuntimeOptions.cache_dir, and says so in its details

    def __init__(self, bundle: Bundle, options: RuntimeOptions | None = None) -> None:
        """Check the request; nothing is loaded yet.

        Raises:
            HnxError: the precision is not one of this runtime's, or it or the bundle cannot run here (exit code 4).
        """
        self.bundle = bundle
        self.options = options or RuntimeOptions()
        self._opened = self._closed = False
        self._execution: Execution | None = None
        self._default: Context | None = None
        self._specs: dict[str, TensorSpec] = {bundle.input.name: bundle.input}
        precision = self.options.precision
        if precision not in self.stored:
            raise HnxError(
                f"{self.name} does not run {precision}",
                why=f"it runs {', '.join(self.stored)}",
                fix="choose one of these, or another runtime",
                code=ExitCode.USAGE,
            )
        if (refusal := self.refuses(bundle)) is not None:
            raise HnxError(
                f"{self.name} cannot run bundle {bundle.name}",
                why=refusal[0],
                fix=refusal[1],
                code=ExitCode.NOTHING_RAN,
            )
        if self.options.compile and not self.compiles:
            raise HnxError(
                f"{self.name} has nothing to compile",
                why="--compile is torch.compile",
                fix="leave it out, or use --runtime torch",
                code=ExitCode.USAGE,
            )
        probe = self.probe()
        if not probe.available:
            raise HnxError(f"{self.name} cannot run here", why=probe.reason, fix=probe.fix, code=ExitCode.NOTHING_RAN)
        if problem := probe.precisions.get(precision, ""):
            runnable = ", ".join(probe.runnable())
            raise HnxError(
                f"{self.name} cannot run {precision} here",
                why=problem,
                fix=f"use one of: {runnable}",
                code=ExitCode.NOTHING_RAN,
            )

    # -- what a runtime writes -------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def probe(cls) -> Probe:
        """Can it run here? Imports the library at most; loads no network."""

    @classmethod
    def refuses(cls, bundle: Bundle) -> tuple[str, str] | None:
        """Why no precision of this bundle can run here, and what to do about it; None where nothing is in the way.

        Asked where the library is there.
        """
        return None

    @abstractmethod
    def _open(self) -> Execution:
        """Load the network and read back what will really run."""

    def _context(self) -> Any:
        """State of one more thread; None where the library is safe to share."""
        return None

    @abstractmethod
    def _infer(self, state: Any, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; inputs are already checked."""

    @abstractmethod
    def _close(self) -> None:
        """Free the network."""

    # -- what users call -------------------------------------------------------------------------------------

    @property
    def model_path(self) -> Path:
        """The stored ONNX file that serves the precision asked for."""
        return self.bundle.file(self.bundle.variant(self.stored[self.options.precision], self.name).file)

    def open(self) -> Runtime:
        """Load the network; a second call does nothing.

        Raises:
            HnxError: the library refuses the network, or would run something else than what was asked.
        """
        if self._opened:
            return self
        try:
            execution = self._open()
            self._opened = True
            if execution.precision != self.options.precision:
                raise HnxError(
                    f"{self.name} would run {execution.precision}, {self.options.precision} was asked for",
                    why=f"{execution.library} fell back on this device ({execution.device})",
                    fix=f"ask for {execution.precision}, or use a device with {self.options.precision}",
                    code=ExitCode.NOTHING_RAN,
                )
        except BaseException as error:
            self.close()
            if isinstance(error, HnxError | KeyboardInterrupt | SystemExit):
                raise
            raise HnxError(
                f"{self.name} cannot load {self.model_path.name}",
                why=first_line(error),
                fix="export the bundle again, or use another runtime (`hnx doctor` lists them)",
            ) from error
        self._execution = execution
        self._default = self.context()
        return self

    @property
    def execution(self) -> Execution:
        """What really runs.

        Raises:
            HnxError: the runtime is not open.
        """
        if self._execution is None:
            raise self._not_open()
        return self._execution

    def describe(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of the network."""
        return (self.bundle.input,), tuple(self.bundle.outputs.values())

    def context(self) -> Context:
        """A further context for another thread."""
        if not self._opened:
            raise self._not_open()
        return Context(self, self._context())

    def infer(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once on the default context.

        Args:
            inputs: name to array; see `describe`. float32 or uint8, C-contiguous.

        Returns:
            Output name to array. The arrays may be overwritten by the next call: copy what you keep.

        Raises:
            HnxError: an input is missing, unknown, or has another shape or type than the network's.
        """
        if self._default is None:
            raise self._not_open()
        return self._default.infer(inputs)

    def device_times(self) -> list[DeviceTimes]:
        """Copies and compute of the last inference of each context; empty where there is no device to copy to."""
        return []

    def check_inputs(self, inputs: Arrays) -> None:
        """Raise HnxError unless `inputs` fit the network; names the input, the expected and the given form."""
        if inputs.keys() != self._specs.keys():
            expected = "; ".join(map(str, self._specs.values()))
            raise HnxError(
                f"{self.name}: inputs named {', '.join(map(str, inputs)) or 'nothing'}",
                why=f"the network takes {expected}",
                fix="pass exactly these names",
            )
        for name, spec in self._specs.items():
            array = inputs[name]
            fits = array.ndim == len(spec.shape) and all(
                size == want if isinstance(want, int) else size > 0
                for size, want in zip(array.shape, spec.shape, strict=False)
            )
            if not fits or array.dtype != spec.dtype:
                given = f"{array.dtype} {'x'.join(map(str, array.shape))}"
                raise HnxError(
                    f"{self.name}: input {name!r} is {given}",
                    why=f"the network takes {spec}",
                    fix="use the bundle's preprocessor: bundle.preprocessor()(frame)",
                )

    def close(self) -> None:
        """Free the network; a second call does nothing."""
        if self._opened or self._execution is not None:
            self._close()
            self._closed = True
        self._opened, self._execution, self._default = False, None, None

    def _not_open(self) -> HnxError:
        if self._closed:
            return HnxError(
                f"{self.name} is closed, it is not open any more",
                why=f"close() or the end of a with statement freed {self.bundle.name}",
                fix="load it again, or close it later",
            )
        return HnxError(f"{self.name} is not open", fix="call open(), or use it in a with statement")

    def __enter__(self) -> Runtime:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def warm_input(self) -> dict[str, NDArray[Any]]:
        """Zeros of the input's form: enough to load caches, of no use as a measurement of accuracy."""
        spec = self.bundle.input
        shape = [size if isinstance(size, int) else 1 for size in spec.shape]
        return {spec.name: np.zeros(shape, spec.dtype)}
