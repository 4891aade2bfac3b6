"""From a PyTorch network to a tidy ONNX graph."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.repairs import REPAIRS
from hybridnets.anchors import anchor_count
from hybridnets.errors import HnxError, first_line

if TYPE_CHECKING:
    import onnx

    from hybridnets.network.model import HybridNets

__all__ = ["EXTERNAL_DATA_LIMIT", "add_anchor_output", "save", "simplify", "trace", "weight_bytes"]

# protobuf refuses messages of 2 GiB; the graph beside the weights takes about 1 MB
EXTERNAL_DATA_LIMIT = (2 << 30) - (64 << 20)


def trace(
    model: HybridNets, size: tuple[int, int], *, opset: int, outputs: tuple[str, ...], dynamic_batch: bool
) -> onnx.ModelProto:
    """The network as ONNX, with exactly the named outputs: what they do not need is not traced.

    The TorchScript exporter is used on purpose: it writes every opset from 11 to 20 itself, where the newer one
    writes 18 and converts down, which fails for this network's Resize below 13.

    Args:
        size: (width, height).
        outputs: roles, in graph order.

    Raises:
        HnxError: the backbone cannot be written as ONNX of this opset.
    """
    import onnx
    import torch
    from torch.jit._trace import TracerWarning as _TracerWarning

    width, height = size
    wrapped = _deployment(model, outputs)
    axes = {name: {0: "batch"} for name in ("input", *outputs)} if dynamic_batch else None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), _no_graph_dumps():
        warnings.simplefilter("error", _TracerWarning)  # a traced Python value would freeze one input
        for kind, text in ((DeprecationWarning, ".*"), (UserWarning, "Constant folding")):
            warnings.filterwarnings("ignore", text, kind)
        path = Path(folder) / "traced.onnx"
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                wrapped,
                (torch.zeros(2 if dynamic_batch else 1, 3, height, width),),
                str(path),
                opset_version=opset,
                input_names=["input"],
                output_names=list(outputs),
                dynamic_axes=axes,
                dynamo=False,
            )
        except Exception as error:
            if model.config.backbone is None:
                raise
            raise _untraceable(model.config.backbone, opset, error) from error
        proto = onnx.load(path)
    _name_output_shapes(proto, model, size)
    return proto


@contextlib.contextmanager
def _no_graph_dumps() -> Iterator[None]:
    """torch prints the whole graph, a megabyte, when it cannot export it: its own switch for that is stuck at on."""
    import torch

    name = "_jit_onnx_log"
    original = getattr(torch._C, name, None)
    if original is None:
        yield
        return
    setattr(torch._C, name, lambda *_: None)
    try:
        yield
    finally:
        setattr(torch._C, name, original)


def _untraceable(backbone: str, opset: int, error: Exception) -> HnxError:
    """timm has models that no opset can hold, or that decide in Python what to compute."""
    cause: BaseException = error
    while isinstance(cause, SystemError) and cause.__cause__ is not None:  # around what the tracer really says
        cause = cause.__cause__
    return HnxError(
        f"The backbone {backbone} cannot be exported at opset {opset}",
        why=first_line(cause),
        fix="try a higher --opset (17 is the default), or another backbone",
    )


def _name_output_shapes(proto: onnx.ModelProto, model: HybridNets, size: tuple[int, int]) -> None:
    """Write the known sizes over the placeholders that tracing a free batch leaves in the outputs."""
    width, height = size
    anchors = anchor_count(width, height)
    tails = {
        "regression": (anchors, 4),
        "classification": (anchors, model.config.num_classes),
        "segmentation": (model.config.seg_channels, height, width),
    }
    for output in proto.graph.output:
        for dimension, value in zip(output.type.tensor_type.shape.dim[1:], tails[output.name], strict=True):
            dimension.dim_value = value


def _deployment(model: HybridNets, outputs: tuple[str, ...]) -> Any:
    import torch

    class Deployment(torch.nn.Module):
        """Only the heads that were asked for, in the order asked for."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            features = self.model.features(image)
            results = {}
            if "regression" in outputs:
                results["regression"], results["classification"] = self.model.forward_detection(features)
            if "segmentation" in outputs:
                results["segmentation"] = self.model.forward_segmentation(features)
            return tuple(results[name] for name in outputs)

    return Deployment().eval()


def simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and batch norms with onnxsim, then apply the repairs that runtimes need (`export.repairs`).

    onnxsim's own random check is not relied on: the caller proves the saved file against PyTorch.

    Raises:
        HnxError: onnxsim fails.
    """
    import onnx
    import onnxsim

    if weight_bytes(proto) < EXTERNAL_DATA_LIMIT:
        try:
            proto, _ = onnxsim.simplify(proto)
        except Exception as error:
            raise HnxError(
                "onnxsim cannot simplify the exported graph",
                why=str(error)[:300],
                fix="pip install --upgrade onnxsim onnx, and report this",
            ) from error
    for repair in REPAIRS:
        repair(proto)
    proto.graph.name = "hybridnets"
    onnx.checker.check_model(proto)
    return proto


def add_anchor_output(proto: onnx.ModelProto, anchors: NDArray[np.float32]) -> None:
    """Give the graph a fourth output `anchors`, float32 (1, A, 4) y1, x1, y2, x2."""
    import onnx

    proto.graph.initializer.append(onnx.numpy_helper.from_array(anchors, "anchor_boxes"))
    proto.graph.node.append(onnx.helper.make_node("Identity", ["anchor_boxes"], ["anchors"], "anchors"))
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("anchors", onnx.TensorProto.FLOAT, list(anchors.shape))
    )


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of all initializers."""
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer)


def save(proto: onnx.ModelProto, path: Path, *, external_data: bool, metadata: dict[str, str]) -> list[Path]:
    """Write the model, its weights in `<name>.onnx.data` when asked for or when protobuf could not hold them.

    Returns:
        The files written.
    """
    import onnx

    onnx.helper.set_model_props(proto, metadata)
    proto.producer_name, proto.producer_version = "hnx", metadata.get("hnx_version", "")
    if not external_data and weight_bytes(proto) < EXTERNAL_DATA_LIMIT:
        onnx.save(proto, path)
        return [path]
    data = path.with_name(path.name + ".data")
    onnx.save(
        proto, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name, size_threshold=1024
    )
    return [path, data]
