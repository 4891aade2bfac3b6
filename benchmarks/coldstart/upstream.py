"""The network as upstream's code comes out of `torch.onnx.export`: what a user compiles who did nothing about it.

Upstream pads in its neck, decoder and heads by what the sides of each map need, read from the map. Traced, that is
arithmetic on shapes before every convolution: 18168 nodes for coefficient 3, where our trace has 2302. The numbers that
come out are the same, because for maps of even sides the arithmetic always gives the paddings that we put in by hand.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridnets.bundle import Bundle, open_bundle
from hybridnets.errors import HnxError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["can_make_upstream", "make_upstream", "pad_by_shape"]

OUTPUTS = ("regression", "classification", "segmentation")


def can_make_upstream(bundle: Bundle) -> bool:
    """It has the weights and all heads of a network that upstream's code could be."""
    whole = bundle.detects and bundle.segments
    return whole and bundle.weights is not None and bundle.model is not None and bundle.model.backbone is None


def make_upstream(bundle: Bundle, path: Path) -> Bundle:
    """Write the bundle's network as a bare ONNX file with upstream's shape arithmetic in it.

    Raises:
        HnxError: the weights cannot be read, or torch is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise HnxError("Upstream's graph is made with PyTorch", why=str(error), fix="name a graph: --stock") from error
    from torch import nn

    from hybridnets.checkpoint import build_model, load_checkpoint

    assert bundle.weights is not None
    model = build_model(load_checkpoint(bundle.file(bundle.weights)), bundle.model).eval()
    pad_by_shape(model)

    class Forward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            features = self.model.features(image)
            return (*self.model.forward_detection(features), self.model.forward_segmentation(features))

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = bundle.target
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about the very thing that is wanted here
        torch.onnx.export(
            Forward().eval(),
            (torch.zeros(1, 3, height, width),),
            str(path),
            opset_version=17,
            input_names=["input"],
            output_names=list(OUTPUTS),
            dynamo=False,
        )
    _name_shapes(path, bundle)
    return open_bundle(path)


def pad_by_shape(model: nn.Module) -> None:
    """Replace convolutions and poolings that know their paddings by some that work them out, in place."""
    from hybridnets.network.layers import Conv, ZeroPadMaxPool

    for name, child in model.named_children():
        if isinstance(child, Conv):
            setattr(model, name, _padded(child.conv))
        elif isinstance(child, ZeroPadMaxPool):
            setattr(model, name, _padded(None))
        else:
            pad_by_shape(child)


def _padded(conv: nn.Conv2d | None) -> nn.Module:
    """A convolution, or a 3x3 pooling with stride 2, behind a border of zeros as wide as its map needs."""
    from torch import nn
    from torch.nn import functional as F

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner: Any = nn.MaxPool2d(3, 2) if conv is None else conv
            self.inner.padding = 0 if conv is None else (0, 0)
            self.kernel, self.stride = (3, 2) if conv is None else (conv.kernel_size[0], conv.stride[0])

        def forward(self, x: Tensor) -> Tensor:
            pads: list[int] = []
            for size in (x.shape[-1], x.shape[-2]):
                extra = (math.ceil(size / self.stride) - 1) * self.stride - size + self.kernel
                pads += [extra // 2, extra - extra // 2]
            return self.inner(F.pad(x, pads))

    return Padded()


def _name_shapes(path: Path, bundle: Bundle) -> None:
    """Write the sizes into the outputs: traced arithmetic leaves names there, which nobody needs to know less about."""
    import onnx

    model = onnx.load(path)
    for output in model.graph.output:
        known = next(spec for role, spec in _unfused(bundle).items() if role == output.name)
        del output.type.tensor_type.shape.dim[:]
        for size in known:
            output.type.tensor_type.shape.dim.add().dim_value = size
    onnx.save(model, path)


def _unfused(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    from hybridnets.anchors import anchor_count

    assert bundle.model is not None
    height, width = bundle.target
    anchors = anchor_count(width, height)
    shapes = ((1, anchors, 4), (1, anchors, bundle.model.num_classes), (1, bundle.model.seg_channels, height, width))
    return dict(zip(OUTPUTS, shapes, strict=True))
