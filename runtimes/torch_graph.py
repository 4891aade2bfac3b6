"""An ONNX graph run by PyTorch in float32, operator by operator, with pairs of QuantizeLinear and DequantizeLinear
computed as they are written.

Runtimes turn pairs into integer kernels, each in its own way. This is what the file says, without any of that: a third
opinion on what INT8 costs, for comparisons and not for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import HnxError

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["TorchGraph"]

Operator = Callable[..., Any]


class TorchGraph:
    """A graph that is ready to run.

    Args:
        model: float32 with or without pairs, batch of any size.

    Raises:
        HnxError: it holds an operator that no export of ours has.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx
        import torch

        graph = model.graph
        self._constants = {
            tensor.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor))) for tensor in graph.initializer
        }
        self.inputs = [value.name for value in graph.input if value.name not in self._constants]
        self.outputs = [value.name for value in graph.output]
        self._steps: list[tuple[Operator, Sequence[str], Sequence[str]]] = []
        for node in graph.node:
            made = _OPERATORS.get(node.op_type)
            if made is None:
                raise HnxError(
                    f"PyTorch cannot run node {node.name or node.output[0]}",
                    why=f"its operator {node.op_type} is none of an export by `hnx export`",
                    fix="name a network that hnx exported, without steps of postprocessing in it",
                )
            attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
            self._steps.append((made(attributes), list(node.input), list(node.output)))
        self._last = {name: number for number, (_, names, _) in enumerate(self._steps) for name in names}

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Name to array of every output."""
        import torch

        values: dict[str, torch.Tensor] = {name: torch.from_numpy(inputs[name]) for name in self.inputs}
        kept = {*self.outputs}
        with torch.inference_mode():
            for number, (operator, names, outputs) in enumerate(self._steps):
                arguments = [None if not name else values.get(name, self._constants.get(name)) for name in names]
                result = operator(*arguments)
                found = result if isinstance(result, tuple) else (result,)
                values.update(zip(outputs, found, strict=True))
                for name in {*names}:
                    if self._last[name] == number and name not in kept:
                        values.pop(name, None)  # a map of c3 has 35 MB
        return {name: values[name].numpy() for name in self.outputs}


# -- operators: attributes to a function of tensors ------------------------------------------------------------


def _padded(x: torch.Tensor, pads: Sequence[int], value: float = 0.0) -> tuple[torch.Tensor, list[int]]:
    """The tensor and the padding that a convolution or pooling of PyTorch is told: the same on both sides, or none."""
    from torch.nn.functional import pad

    half = len(pads) // 2
    before, after = list(pads[:half]), list(pads[half:])
    if before == after:
        return x, before
    sides = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    return pad(x, sides, value=value), [0] * half


def _convolution(attributes: Mapping[str, Any]) -> Operator:
    from torch.nn.functional import conv2d

    shape = attributes.get("kernel_shape", [1, 1])
    pads, strides = attributes.get("pads", [0, 0, 0, 0]), attributes.get("strides", [1, 1])
    dilations, group = attributes.get("dilations", [1] * len(shape)), attributes.get("group", 1)

    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        x, padding = _padded(x, pads)
        return conv2d(x, weight, bias, strides, padding, dilations, group)

    return run


def _max_pool(attributes: Mapping[str, Any]) -> Operator:
    from torch.nn.functional import max_pool2d

    shape, pads = attributes["kernel_shape"], attributes.get("pads", [0, 0, 0, 0])
    strides, ceil = attributes.get("strides", [1, 1]), bool(attributes.get("ceil_mode", 0))

    def run(x: torch.Tensor) -> torch.Tensor:
        x, padding = _padded(x, pads, float("-inf"))
        return max_pool2d(x, shape, strides, padding, ceil_mode=ceil)

    return run


def _average_pool(attributes: Mapping[str, Any]) -> Operator:
    from torch.nn.functional import avg_pool2d

    shape, strides = attributes["kernel_shape"], attributes.get("strides", [1, 1])
    counted = bool(attributes.get("count_include_pad", 0))

    def run(x: torch.Tensor) -> torch.Tensor:
        x, padding = _padded(x, attributes.get("pads", [0, 0, 0, 0]))
        return avg_pool2d(x, shape, strides, padding, count_include_pad=counted)

    return run


def _resize(attributes: Mapping[str, Any]) -> Operator:
    from torch.nn.functional import interpolate

    mode = attributes.get("mode", b"nearest").decode()
    where = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    if (mode, where) not in (("linear", "align_corners"), ("linear", "half_pixel"), ("nearest", "asymmetric")):
        raise HnxError(
            f"PyTorch cannot enlarge by {mode} with {where}", why="no export of ours does", fix="name one that is ours"
        )
    words: dict[str, Any] = {"mode": "nearest"}
    if mode == "linear":
        words = {"mode": "bilinear", "align_corners": where == "align_corners"}

    def run(x: torch.Tensor, _: Any, scales: torch.Tensor | None, sizes: torch.Tensor | None = None) -> torch.Tensor:
        if sizes is not None:
            size = [int(value) for value in sizes[2:]]
        else:
            assert scales is not None
            size = [round(side * float(scale)) for side, scale in zip(x.shape[2:], scales[2:], strict=True)]
        return interpolate(x, size, **words)

    return run


def _split(attributes: Mapping[str, Any]) -> Operator:
    import torch

    axis = attributes.get("axis", 0)

    def run(x: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.split(x, [int(size) for size in sizes], axis)

    return run


def _reshape(_: Mapping[str, Any]) -> Operator:
    def run(x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        return x.reshape([x.shape[axis] if size == 0 else int(size) for axis, size in enumerate(shape.tolist())])

    return run


def _per_channel(value: torch.Tensor, x: torch.Tensor, axis: int) -> torch.Tensor:
    """A scale or zero point in the form that multiplies `x`."""
    return value.reshape([-1 if index == axis % x.ndim else 1 for index in range(x.ndim)]) if value.ndim else value


def _quantize(attributes: Mapping[str, Any]) -> Operator:
    import torch

    axis = attributes.get("axis", 1)

    def run(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        limits = torch.iinfo(zero.dtype)
        rounded = torch.round(x / _per_channel(scale, x, axis)) + _per_channel(zero, x, axis)  # half to even, as ONNX
        return rounded.clamp(limits.min, limits.max)  # whole numbers, still in float32

    return run


def _dequantize(attributes: Mapping[str, Any]) -> Operator:
    axis = attributes.get("axis", 1)

    def run(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        return (x.float() - _per_channel(zero, x, axis)) * _per_channel(scale, x, axis)

    return run


def _concat(attributes: Mapping[str, Any]) -> Operator:
    import torch

    return lambda *parts: torch.cat(parts, attributes["axis"])


def _clip(_: Mapping[str, Any]) -> Operator:
    return lambda x, low=None, high=None: x.clamp(low, high)


def _hard_sigmoid(attributes: Mapping[str, Any]) -> Operator:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return lambda x: (alpha * x + beta).clamp(0, 1)


def _plain(function: Operator) -> Callable[[Mapping[str, Any]], Operator]:
    """An operator without attributes."""
    return lambda _: function


_OPERATORS: dict[str, Callable[[Mapping[str, Any]], Operator]] = {
    "Add": _plain(lambda a, b: a + b),
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _convolution,
    "DequantizeLinear": _dequantize,
    "Flatten": lambda attributes: lambda x: x.flatten(attributes.get("axis", 1)),
    "GlobalAveragePool": _plain(lambda x: x.mean(dim=(2, 3), keepdim=True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(lambda x: x * (x / 6 + 0.5).clamp(0, 1)),
    "Max": _plain(lambda a, b: a.maximum(b)),
    "MaxPool": _max_pool,
    "Mul": _plain(lambda a, b: a * b),
    "QuantizeLinear": _quantize,
    "Relu": _plain(lambda x: x.relu()),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _plain(lambda x: x.sigmoid()),
    "Split": _split,
    "Transpose": lambda attributes: lambda x: x.permute(attributes["perm"]),
}
