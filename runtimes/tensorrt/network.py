"""The ONNX file as TensorRT's parser reads it, and what is refused about it before a build of minutes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridnets.errors import ExitCode, HnxError
from runtimes.tensorrt.config import PlanConfig
from runtimes.tensorrt.library import Library
from runtimes.tensorrt.plan import TensorForm

__all__ = ["DTYPES", "Parsed", "check_types", "parse"]

# TensorRT's DataType member -> numpy's name. Not trt.nptype: it fails with numpy >= 1.24 in 8.5, and on bf16 in all.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "BF16": "bfloat16",
    "FP8": "float8",
}
_MATRIX = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_SHOWN, _MOST_TEXT = 3, 400


@dataclass(frozen=True)
class Parsed:
    """A parsed network.

    Attributes:
        network: TensorRT's object.
        inputs, outputs: their forms; -1 for a free batch.
        quantised: QuantizeLinear and DequantizeLinear nodes.
        matrix_types: types the convolutions read, with their number.
        suppressions: NonMaxSuppression nodes.
    """

    network: Any
    inputs: tuple[TensorForm, ...]
    outputs: tuple[TensorForm, ...]
    quantised: int
    matrix_types: Counter[str]
    suppressions: int = 0


def parse(library: Library, builder: Any, onnx: Path) -> Parsed:
    """Parse a file, external weights beside it included.

    Raises:
        HnxError: the parser refuses it; names the node.
    """
    trt, can = library.trt, library.can
    flags = 0
    if can.explicit_batch:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, library.log.logger)
    if not parser.parse_from_file(str(onnx)):  # str: a Path is a TypeError in every version
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise HnxError(
            f"{library.name} {library.version} refuses {onnx.name}",
            why="; ".join(_describe(library, onnx, error) for error in errors[:_SHOWN])
            or library.log.why("its parser does not say why"),
            fix="export the network again; a quantised one must follow the Q/DQ rules of docs/tensorrt.md",
        )
    quantised = suppressions = 0
    types: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = layer.type.name
        if kind in ("QUANTIZE", "DEQUANTIZE"):
            quantised += 1
        elif kind == "NMS":
            suppressions += 1
        elif kind in _MATRIX:
            types[_dtype(layer.get_input(0))] += 1
    inputs = tuple(_form(network.get_input(index), "input") for index in range(network.num_inputs))
    outputs = tuple(_form(network.get_output(index), "output") for index in range(network.num_outputs))
    return Parsed(network, inputs, outputs, quantised, types, suppressions)


def _describe(library: Library, onnx: Path, error: Any) -> str:
    """`node 12 'conv1_quant' (QuantizeLinear): message`."""
    index = int(error.node())
    if library.can.node_names:
        name, operator = str(error.node_name()), str(error.node_operator())
    else:
        name, operator = _from_file(onnx, index)
    label = f"node {index}" + (f" {name!r}" if name else "") + (f" ({operator})" if operator else "")
    # "Invalid Node - name" comes first where the reason stands in the lines after it
    return f"{label}: {' '.join(str(error.desc()).split())[:_MOST_TEXT]}"


def _from_file(onnx: Path, index: int) -> tuple[str, str]:
    """Name and operator of a node that 8.x knows by number only; "" where the onnx package is missing."""
    try:
        import onnx as library

        node = library.load(str(onnx), load_external_data=False).graph.node[index]
    except Exception:  # an aid to an error message must not hide it
        return "", ""
    return str(node.name), str(node.op_type)


def _dtype(tensor: Any) -> str:
    return DTYPES.get(tensor.dtype.name, tensor.dtype.name.lower())


def _form(tensor: Any, mode: str) -> TensorForm:
    return TensorForm(str(tensor.name), mode, _dtype(tensor), tuple(int(size) for size in tensor.shape))


def check_types(config: PlanConfig, library: Library, parsed: Parsed) -> None:
    """Refuse networks that cannot be built, or would silently become something else than what was asked for.

    Raises:
        HnxError: suppression of boxes for RTX, int8 without Q/DQ or the reverse, a strongly typed build of a file in
            other types (exit code 2).
    """
    name = config.onnx.name
    if parsed.suppressions and library.flavor == "rtx":
        raise _usage(
            f"{library.name} {library.version} cannot build {name}",
            "its graph suppresses boxes, for which TensorRT for RTX has no kernels",
            "export it with --decode instead of --nms",
        )
    if config.int8 and not parsed.quantised:
        raise _usage(
            f"--int8, but {name} has no QuantizeLinear nodes",
            "hnx builds INT8 from explicit quantisation, whose scales are in the file",
            "`hnx quantize BUNDLE --for tensorrt` puts such a network into a bundle; then name the bundle",
        )
    if parsed.quantised and not config.int8:
        raise _usage(
            f"{name} holds {parsed.quantised} Q/DQ nodes, and {config.precision} was asked for",
            "TensorRT computes INT8 wherever it finds them",
            "add --int8, or name the network that is not quantised",
        )
    if library.typing == "weak" or not parsed.matrix_types:
        return
    # with --int8 alone the layers without Q/DQ nodes may be of either type
    wanted = "float16" if config.fp16 else "float32" if config.fp32 or not config.int8 else ""
    found = parsed.matrix_types.most_common(1)[0][0]
    if wanted and found != wanted:
        listing = ", ".join(f"{count} in {kind}" for kind, count in parsed.matrix_types.most_common())
        fix = f"name a network whose weights are {wanted}" if wanted == "float16" else "add --fp16"
        raise _usage(
            f"{library.name} {library.version} cannot make {name} {' and '.join(config.asked)}",
            f"it has no precision flags: it computes in the types of the file, here convolutions {listing}",
            "leave --fp32 out" if config.int8 and wanted == "float32" else fix,
        )


def check_shapes(config: PlanConfig, parsed: Parsed) -> None:
    """Refuse batch sizes the network does not have.

    Raises:
        HnxError: exit code 2.
    """
    for form in parsed.inputs:
        if any(size < 0 for size in form.shape[1:]):
            raise _usage(
                f"Input {form.name} has free sizes beside its batch ({form.shape})",
                "hnx builds plans of one image size: they run faster and need no profile",
                "export the network with a fixed size",
            )
        fixed = form.shape[:1]
        if fixed and fixed[0] >= 0 and config.batch not in ((1, 1, 1), (fixed[0],) * 3):
            raise _usage(
                f"Batch sizes {config.batch} for a network whose batch is fixed to {fixed[0]}",
                "it was exported so",
                "leave them out, or export with --dynamic-batch",
            )
        if fixed and fixed[0] < 0 and config.dla_core is not None and config.batch[0] != config.batch[2]:
            raise _usage("A free batch on a DLA core", "it takes fixed shapes only", "give one batch size")


def _usage(what: str, why: str, fix: str) -> HnxError:
    return HnxError(what, why=why, fix=fix, code=ExitCode.USAGE)
