"""A graph told block by block: nodes, multiply-accumulates, bytes and parameters, before and after rewrites."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.rewrites import REWRITES, PassReport, apply_rewrites
from export.rewrites.editing import infer_shapes, opset_of
from export.rewrites.statistics import Statistics, node_statistics
from hybridnets.blocks import OTHER, PIPELINE, BlockNames, sort_blocks
from hybridnets.errors import ExitCode, HnxError, first_line, from_os_error
from hybridnets.onnx_header import OnnxHeader, TensorSpec, read_onnx_header

if TYPE_CHECKING:
    import onnx

    from hybridnets.bundle import Bundle

__all__ = [
    "PARTS",
    "BlockStatistics",
    "Inspection",
    "inspect_bundle",
    "inspect_file",
    "inspect_model",
    "load_model",
    "trace_bundle",
]

SCHEMA_VERSION = 1

# first word of a block -> part of the network
PARTS = {
    "encoder": "backbone",
    "bifpn": "BiFPN",
    "regressor": "heads",
    "classifier": "heads",
    "decoder": "decoder",
    "segmentation-head": "decoder",
    PIPELINE: PIPELINE,
}

# Other exporters wrap the network: /model/encoder/... is /encoder/...
_WRAPPED = re.compile(r"^/?(?:[^/]+/)*?(?=(?:encoder|bifpn|bifpndecoder|regressor|classifier|segmentation_head)/)")
# more groups than this are no overview
_MOST_GROUPS = 24
_DEEPEST = 4


@dataclass(frozen=True)
class BlockStatistics:
    """One block of the network before and after rewriting."""

    name: str
    before: Statistics
    after: Statistics

    def to_json(self) -> dict[str, Any]:
        """As it stands in a report."""
        return {"name": self.name, "before": self.before.to_json(), "after": self.after.to_json()}


@dataclass(frozen=True)
class Inspection:
    """What a graph consists of.

    Attributes:
        source: where it is from, for a heading.
        opset: of its standard operators.
        inputs, outputs: its tensors.
        grouping: what a block is: "blocks" of HybridNets, else "names" (first parts of the nodes' paths) or "sizes"
            (height x width of what a node makes).
        blocks: in the order of the network.
        passes: what each rewrite did, in the order in which they ran.
        notes: what limits the figures.
    """

    source: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    grouping: str
    blocks: tuple[BlockStatistics, ...]
    passes: tuple[PassReport, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> BlockStatistics:
        """All blocks together."""
        return _together("total", self.blocks)

    def parts(self) -> tuple[BlockStatistics, ...]:
        """Backbone, BiFPN, heads and decoder; nothing for a network that is none of ours."""
        if self.grouping != "blocks":
            return ()
        groups: dict[str, list[BlockStatistics]] = {}
        for block in self.blocks:
            groups.setdefault(PARTS.get(block.name.partition("/")[0], OTHER), []).append(block)
        return tuple(_together(name, members) for name, members in groups.items())

    def to_json(self) -> dict[str, Any]:
        """Everything, for a report."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "opset": self.opset,
            "inputs": [_spec(spec) for spec in self.inputs],
            "outputs": [_spec(spec) for spec in self.outputs],
            "grouping": self.grouping,
            "blocks": [block.to_json() for block in self.blocks],
            "parts": [part.to_json() for part in self.parts()],
            "total": self.total.to_json(),
            "rewrites": [report.to_json() for report in self.passes],
            "notes": list(self.notes),
        }


def _together(name: str, blocks: Sequence[BlockStatistics]) -> BlockStatistics:
    zero = Statistics()
    return BlockStatistics(name, sum((b.before for b in blocks), zero), sum((b.after for b in blocks), zero))


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def inspect_bundle(
    bundle: Bundle, rewrites: Sequence[str] | None = None, on_step: Callable[[str], None] = lambda _: None
) -> Inspection:
    """The FP32 network of a bundle.

    What was rewritten at the export cannot be undone in the file: the network is traced anew from the bundle's weights
    where that is possible. Where it is not, the file stands for both, and a note says what the export did.

    Args:
        rewrites: names; None takes those of the export, or all where the export rewrote nothing.
        on_step: told what happens next, for a status line.

    Raises:
        HnxError: a damaged file, or an unknown rewrite.
    """
    path = bundle.file(bundle.variant("fp32", "onnxruntime").file)
    done = _rewrites_done(bundle.manifest)
    if not any(places for _, places in done):
        return inspect_file(path, rewrites)
    names = tuple(name for name, _ in done if name in REWRITES) if rewrites is None else tuple(rewrites)
    on_step("tracing the network without rewrites")
    try:
        model = trace_bundle(bundle)
    except (HnxError, ImportError) as error:
        found = inspect_file(path, names)
        reason = f"{error.what}: {error.why}" if isinstance(error, HnxError) else str(error)
        listed = ", ".join(name for name, places in done if places)
        note = f"the file was rewritten at its export ({listed}); the network before that is not shown: {reason}"
        return _with_notes(found, note)
    on_step("rewriting")
    fused = partial(_fused, bundle) if bundle.form.fused else None
    return inspect_model(model, names, source=str(bundle.path), finish=fused)


def inspect_file(path: Path, rewrites: Sequence[str] | None = None, shape: Sequence[int] | None = None) -> Inspection:
    """Any ONNX file; None of `rewrites` means all. See `load_model` for `shape` and errors."""
    model = load_model(path, shape)
    try:
        return inspect_model(model, tuple(REWRITES) if rewrites is None else rewrites, source=str(path))
    except (ValueError, TypeError, KeyError, IndexError) as error:  # what ONNX's own checks let through
        raise _unreadable(path, f"its graph contradicts itself: {first_line(error)}") from error


def _fused(bundle: Bundle, model: onnx.ModelProto) -> onnx.ModelProto:
    """A plain graph in the form of a bundle."""
    from export.fused import fuse

    height, width = bundle.target
    return fuse(
        model,
        bundle.form,
        size=(width, height),
        seg_mode=bundle.seg_mode,
        mean=bundle.mean,
        std=bundle.std,
        anchors=bundle.anchors(),
    ).model


def inspect_model(
    model: onnx.ModelProto,
    rewrites: Sequence[str],
    source: str,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None,
) -> Inspection:
    """A model and what rewrites make of it.

    Args:
        finish: makes the delivered graph of the rewritten one.

    Raises:
        HnxError: an unknown rewrite, or a graph whose shapes contradict each other.
    """
    after, passes = apply_rewrites(model, rewrites)
    after = after if finish is None else finish(after)
    header = _header(after)
    grouping, name_groups = _grouping(model, after)
    sums: tuple[dict[str, Statistics], ...] = ({}, {})
    for found, graph, groups in zip(sums, (model, after), name_groups, strict=True):
        for group, value in zip(groups, node_statistics(graph), strict=True):
            found[group] = found.get(group, Statistics()) + value
    names = list(dict.fromkeys((*sums[0], *sums[1])))
    blocks = (
        BlockStatistics(name, sums[0].get(name, Statistics()), sums[1].get(name, Statistics()))
        for name in (sort_blocks(names) if grouping == "blocks" else names)
    )
    return Inspection(
        source, opset_of(model), header.inputs, header.outputs, grouping, tuple(blocks), passes, _notes(model, header)
    )


def load_model(path: Path, shape: Sequence[int] | None = None) -> onnx.ModelProto:
    """Read an ONNX file with its external data.

    Args:
        shape: sizes to give the first input, in place of free ones.

    Raises:
        HnxError: unreadable, no ONNX, its weights are missing, `shape` does not fit (exit code 2), or the package onnx
            is not installed (exit code 4).
    """
    try:
        import onnx
    except ImportError as error:
        raise HnxError(
            "Looking into ONNX files needs the package onnx",
            why=str(error),
            fix='pip install -e ".[export]"',
            code=ExitCode.NOTHING_RAN,
        ) from error
    header = read_onnx_header(path)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        known = {kind for kind in onnx.TensorProto.DataType.values() if kind}
        if odd := [tensor for tensor in model.graph.initializer if tensor.data_type not in known]:
            raise ValueError(f"the tensor {odd[0].name} has the unknown type {odd[0].data_type}")
    except OSError as error:
        raise from_os_error(f"Cannot read {path}", error) from error
    except UnicodeDecodeError as error:  # onnx's own message about a name that is no text
        raise _unreadable(path, "its names are not text") from error
    except MemoryError:
        raise
    except Exception as error:  # of protobuf, or of onnx where external data are missing or lie outside the folder
        raise _unreadable(path, first_line(error)) from error
    if shape is not None:
        _set_shape(model, header.inputs[0], shape, path)
    return model


def _unreadable(path: Path, why: str) -> HnxError:
    return HnxError(f"Cannot read {path}", why=why, fix="export it again, or copy it together with its .data file")


def _set_shape(model: onnx.ModelProto, spec: TensorSpec, shape: Sequence[int], path: Path) -> None:
    fits = len(shape) == len(spec.shape) and all(
        size > 0 and (isinstance(known, str) or known == size) for size, known in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise HnxError(
            f"{path} does not take {'x'.join(map(str, shape))}",
            why=f"its first input is {spec}",
            fix="give a number for each size, and leave those that are fixed",
            code=ExitCode.USAGE,
        )
    value = next(value for value in model.graph.input if value.name == spec.name)
    for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    for other in (*model.graph.value_info, *model.graph.output):  # said for free sizes; inference finds them again
        for dimension in other.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.ClearField("dim_param")


def trace_bundle(bundle: Bundle) -> onnx.ModelProto:
    """The network of a bundle as ONNX without rewrites, traced from its weights.

    Raises:
        HnxError: no weights in the bundle, or they do not fit.
        ImportError: torch or onnxsim is not installed.
    """
    if bundle.weights is None or bundle.model is None:
        raise HnxError("the bundle holds no weights", why="it was exported with --no-weights, or by others")
    for module in ("torch", "onnxsim", "safetensors"):
        __import__(module)
    from export.graph import simplify, trace
    from hybridnets.checkpoint import build_model, load_checkpoint

    model = build_model(load_checkpoint(bundle.file(bundle.weights)), bundle.model).deployed()
    height, width = bundle.target
    path = bundle.file(bundle.variant("fp32", "onnxruntime").file)
    plain = {"boxes": ("regression",), "detections": ("regression", "classification"), "anchors": ()}
    outputs = tuple(name for role in bundle.outputs for name in plain.get(role, (role,)))
    return simplify(
        trace(
            model,
            (width, height),
            opset=opset_of(load_model(path)),
            outputs=outputs,
            dynamic_batch=isinstance(bundle.input.shape[0], str),
        )
    )


def _rewrites_done(manifest: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Names and places of the rewrites of an export; anybody may have written the manifest."""
    found = manifest.get("rewrites")
    return [
        (entry["name"], entry["places"])
        for entry in (found if isinstance(found, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("places"), int)
    ]


def _with_notes(found: Inspection, *notes: str) -> Inspection:
    from dataclasses import replace

    return replace(found, notes=(*notes, *found.notes))


def _header(model: onnx.ModelProto) -> OnnxHeader:
    import onnx

    stored = {tensor.name for tensor in model.graph.initializer}

    def spec(value: onnx.ValueInfoProto) -> TensorSpec:
        kind = value.type.tensor_type
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        shape = (d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim)
        return TensorSpec(value.name, {"float": "float32", "double": "float64"}.get(name, name), tuple(shape))

    graph = model.graph
    return OnnxHeader(tuple(spec(v) for v in graph.input if v.name not in stored), tuple(map(spec, graph.output)))


def _notes(model: onnx.ModelProto, header: OnnxHeader) -> tuple[str, ...]:
    notes = []
    for spec in header.inputs:
        free = [str(size) for index, size in enumerate(spec.shape) if isinstance(size, str) and index]
        if free:
            notes.append(
                f"input {spec.name} is free in {', '.join(free)}: each counts as 1 in MACs and bytes; "
                "give a size with --shape"
            )
    shapes = infer_shapes(model)
    unknown = sum(1 for node in model.graph.node if any(name and name not in shapes for name in node.output))
    if unknown:
        notes.append(f"the results of {unknown} node(s) have no known shape: they count as nothing in MACs and bytes")
    return tuple(notes)


def _grouping(*models: onnx.ModelProto) -> tuple[str, list[list[str]]]:
    """How nodes are grouped, and the group of each node of each model."""
    names = [[_WRAPPED.sub("/", node.name) for node in model.graph.node] for model in models]
    block = BlockNames(name for listed in names for name in listed)
    groups = [[block(name) for name in listed] for listed in names]
    words = {group.partition("/")[0] for group in groups[0]}
    if "bifpn" in words and "encoder" in words:
        return "blocks", groups
    for depth in range(_DEEPEST, 0, -1):
        groups = [[_path(node.name, depth) for node in model.graph.node] for model in models]
        if 1 < len(set(groups[0])) <= _MOST_GROUPS:
            return "names", groups
    return "sizes", [_sizes(model) for model in models]


def _path(name: str, depth: int) -> str:
    """The first parts of a node's path, without its last, which names the operation."""
    parts = [part for part in name.split("/") if part][:-1]
    return "/".join(parts[:depth]) or OTHER


def _sizes(model: onnx.ModelProto) -> list[str]:
    shapes = infer_shapes(model)
    found = []
    for node in model.graph.node:
        shape = shapes.get(node.output[0], ()) if node.output else ()
        known = len(shape) in (3, 4, 5) and all(shape[2:])
        found.append("x".join(map(str, shape[2:])) if known and len(shape) > 2 else OTHER)
    return found
