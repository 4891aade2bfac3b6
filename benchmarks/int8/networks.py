"""The networks of the tables: stored variants of bundles, and files that others made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hybridnets.bundle import Bundle, Variant
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import Execution, Runtime, RuntimeOptions
from runtimes.onnxruntime import OnnxRuntime
from runtimes.opening import open_runtime
from runtimes.openvino import OpenVinoRuntime
from runtimes.simulated import SimulatedRuntime

__all__ = ["SIMULATED", "Network", "int8_files", "open_network", "with_file"]

SIMULATED = SimulatedRuntime.name
_PLACEMENTS = ("openvino", "onnxruntime", "tensorrt-weak")


@dataclass(frozen=True)
class Network:
    """One row.

    Attributes:
        name: of the row.
        bundle: preprocessing, classes and files.
        runtime: of the registry, or `SIMULATED`.
        precision: as in `RuntimeOptions`.
        baseline: name of the row that drops refer to; empty for a row without.
    """

    name: str
    bundle: Bundle
    runtime: str
    precision: str
    baseline: str = ""


class _AsWritten(OpenVinoRuntime):
    """What an INT8 file leaves in float is computed in FP32, as ONNX Runtime does it, whatever the CPU has."""

    @staticmethod
    def beside_int8(capabilities: Sequence[str]) -> str:
        """See `OpenVinoRuntime.beside_int8`."""
        return "fp32"


class _AnyKernels(OnnxRuntime):
    """What a file says, whether in integer kernels or not: it makes none of OpenVINO's pairs, which have a scale for
    each channel before a convolution and one behind it. `details` counts what ran."""

    def _open(self) -> Execution:
        return replace(super()._open(), precision=self.options.precision)


def open_network(network: Network, threads: int, *, as_written: bool = False) -> Runtime:
    """The row's runtime, open.

    Args:
        as_written: OpenVINO computes what an INT8 file leaves in float in FP32. Otherwise it takes BF16 where the CPU
            has it, which alone moved mAP50 by a tenth of a point, and is no property of the file. ONNX Runtime may
            compute all of it in float.

    Raises:
        HnxError: it cannot run here.
    """
    options = RuntimeOptions(network.precision, threads)
    if as_written and network.runtime == OpenVinoRuntime.name:
        return _AsWritten(network.bundle, options).open()
    if as_written and network.runtime == OnnxRuntime.name:
        return _AnyKernels(network.bundle, options).open()
    if network.runtime == SIMULATED:
        return SimulatedRuntime(network.bundle, options).open()
    return open_runtime(network.runtime, network.bundle, options)


def with_file(bundle: Bundle, path: Path) -> Bundle:
    """A bundle whose INT8 network, for every runtime, is a file of another maker: ONNX or OpenVINO IR.

    It must have the bundle's own input and outputs under their names; runtimes refuse others.

    Raises:
        HnxError: there is no such file.
    """
    if not path.is_file():
        raise HnxError(f"There is no network {path}", why="no such file", fix="check the path")
    floats = tuple(variant for variant in bundle.variants if variant.precision != "int8")
    # a bare file's own folder would be put before a relative name
    return replace(bundle, variants=(*floats, Variant("int8", str(path.resolve()))))


def int8_files(bundle: Bundle) -> dict[str, Path]:
    """Whose placement it is -> the stored Q/DQ network.

    TensorRT's is the weakly typed one; the strongly typed one holds the same pairs in an FP16 graph.

    Raises:
        HnxError: the bundle stores none (exit code 4).
    """
    found = {
        variant.runtimes[0]: bundle.file(variant.file)
        for variant in bundle.variants
        if variant.precision == "int8" and variant.runtimes and variant.runtimes[0] in _PLACEMENTS
    }
    if not found:
        raise HnxError(
            f"Bundle {bundle.name} stores no INT8 network",
            why=f"none is made for {' or '.join(_PLACEMENTS)}",
            fix=f"hnx quantize {bundle.path}",
            code=ExitCode.NOTHING_RAN,
        )
    return found
