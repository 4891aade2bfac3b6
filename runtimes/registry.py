"""All runtimes, as data. To add one: write `runtimes/<name>.py` with one class, add one row here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from hybridnets.errors import ExitCode, HnxError, did_you_mean, first_line
from runtimes.base import Probe, Runtime

__all__ = [
    "REGISTRY",
    "RuntimeEntry",
    "entry",
    "names",
    "parse_runtimes",
    "probe",
    "runtime_class",
]


@dataclass(frozen=True)
class RuntimeEntry:
    """One row.

    Attributes:
        name: as typed by users.
        module, attribute: where the class is; imported only when chosen.
        extra: of setup.cfg, for the install command.
        packages: distributions that provide the library, the first is the one to install.
        precisions: those the runtime knows, best known first (a test pins them to the class).
        aliases: other spellings users type.
        gpu: it runs on an NVIDIA GPU.
    """

    name: str
    module: str
    attribute: str
    extra: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    gpu: bool = False


# In order of preference for `--runtime auto`: the fastest on a CPU first; a GPU is chosen by name.
REGISTRY: tuple[RuntimeEntry, ...] = (
    RuntimeEntry(
        "openvino",
        "runtimes.openvino",
        "OpenVinoRuntime",
        "openvino",
        ("openvino",),
        ("fp32", "bf16", "fp16", "int8"),
        ("ov",),
    ),
    RuntimeEntry(
        "onnxruntime",
        "runtimes.onnxruntime",
        "OnnxRuntime",
        "onnxruntime",
        ("onnxruntime", "onnxruntime-gpu"),
        ("fp32", "int8"),
        ("ort", "onnx"),
    ),
    RuntimeEntry("torch", "runtimes.torch", "TorchRuntime", "torch", ("torch",), ("fp32", "bf16"), ("pytorch",)),
    RuntimeEntry(
        "opencv-dnn",
        "runtimes.opencv_dnn",
        "OpenCvRuntime",
        "",
        ("opencv-python-headless", "opencv-python"),
        ("fp32",),
        ("opencv", "cv2", "dnn"),
    ),
    RuntimeEntry(
        "tensorrt",
        "runtimes.tensorrt.runtime",
        "TensorRtRuntime",
        "tensorrt",
        ("tensorrt", "tensorrt-rtx"),
        ("fp16", "int8", "fp32"),
        ("trt",),
        gpu=True,
    ),
    RuntimeEntry(
        "onnxruntime-cuda",
        "runtimes.onnxruntime_cuda",
        "OnnxRuntimeCuda",
        "cuda",
        ("onnxruntime-gpu",),
        ("fp32", "fp16"),
        ("ort-cuda",),
        gpu=True,
    ),
    RuntimeEntry(
        "onnxruntime-tensorrt",
        "runtimes.onnxruntime_tensorrt",
        "OnnxRuntimeTensorRt",
        "cuda",
        ("onnxruntime-gpu",),
        ("fp32", "fp16"),
        ("ort-tensorrt", "ort-trt"),
        gpu=True,
    ),
    RuntimeEntry(
        "torch-cuda",
        "runtimes.torch_cuda",
        "TorchCudaRuntime",
        "torch",
        ("torch",),
        ("fp32", "fp16", "bf16"),
        ("pytorch-cuda",),
        gpu=True,
    ),
)


def names() -> list[str]:
    """All runtime names, in order of preference."""
    return [row.name for row in REGISTRY]


def entry(word: str) -> RuntimeEntry:
    """The row of a name or alias.

    Raises:
        HnxError: unknown, with a suggestion (exit code 2).
    """
    lowered = word.strip().lower()
    for row in REGISTRY:
        if lowered == row.name or lowered in row.aliases:
            return row
    name, colon, precision = lowered.partition(":")
    if colon and name in names():
        raise HnxError(
            f"{word!r} is more than a runtime",
            why=f"{precision!r} is a precision",
            fix=f"name {name} alone; where one can be chosen it is an option of its own: --precision {precision}",
            code=ExitCode.USAGE,
        )
    raise HnxError(
        f"Unknown runtime {word!r}", why=did_you_mean(lowered, names()), fix="choose one of these", code=ExitCode.USAGE
    )


def parse_runtimes(text: str) -> list[tuple[RuntimeEntry, str | None]]:
    """`all`, or `name[:precision],...` as (row, precision or None for every one).

    Raises:
        HnxError: an unknown runtime or precision (exit code 2).
    """
    from runtimes.base import parse_precision

    if text.strip().lower() == "all":
        return [(row, None) for row in REGISTRY]
    chosen: list[tuple[RuntimeEntry, str | None]] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, precision = item.partition(":")
        pair = (entry(name), parse_precision(precision) if precision else None)
        if pair not in chosen:
            chosen.append(pair)
    if not chosen:
        raise HnxError(
            "No runtime is named",
            why=did_you_mean(text, names()),
            fix="for example --runtime all",
            code=ExitCode.USAGE,
        )
    return chosen


def runtime_class(row: RuntimeEntry) -> type[Runtime]:
    """Import the class of a row (its module imports the library only inside methods)."""
    cls = getattr(importlib.import_module(row.module), row.attribute)
    if not issubclass(cls, Runtime):
        raise TypeError(f"{row.module}.{row.attribute} is not a Runtime")
    return cls


def probe(row: RuntimeEntry) -> Probe:
    """Whether a row can run here; a library that is broken in any way is a reason, never an exception."""
    try:
        return runtime_class(row).probe()
    except ImportError as error:
        return Probe(reason=f"{row.packages[0]} could not be imported: {first_line(error)}", fix=install_command(row))
    except (Exception, SystemExit) as error:
        return Probe(
            reason=f"{row.packages[0]} is installed but broken: {first_line(error)}",
            fix=f"pip install --force-reinstall {row.packages[0]}",
        )


def install_command(row: RuntimeEntry) -> str:
    """What to type to get the library."""
    return f'pip install -e ".[{row.extra}]"' if row.extra else f"pip install {row.packages[0]}"


def installed_version(row: RuntimeEntry) -> str:
    """Version of the installed distribution, without importing it; empty when none is."""
    for package in row.packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""
