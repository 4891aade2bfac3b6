"""What OpenVINO's CPU kernels compute slowly, said in operators that they compute fast: the same numbers, to the last
bits of float32.

A network is changed between reading and compiling, in OpenVINO's own terms, because it pays there alone: ONNX Runtime
and OpenCV take the first of these graphs as long as before (1.01), and other runtimes have good kernels for the
operators as they were. Measured with OpenVINO 2026.4 in float32, coefficient 0 at 384x256, two threads of an AMD EPYC
with AVX2.

**Enlargements of few maps.** The kernel that enlarges takes the channels of a pixel together, eight or sixteen at a
time. For the one to three maps of classes most of it is idle, and the result must be put into another order for the
output: 1.9 of 68 ms. An enlargement is two sums, along the width and along the height::

    up(x)[j] = (1 - t[j]) x[i[j]] + t[j] x[i[j] + 1],   i[j] + t[j] = j (n - 1) / (m - 1)

Gathered from the map and added up it takes 0.35 ms.

**Swish.** Fused into convolutions it costs 16 of 68 ms: OpenVINO's function takes an exponential, a division and much
care for both ends of the range. As a kernel of its own that computes ::

    swish(x) = x / (1 + exp(-x))

with the same exponential and nothing else, a large map takes less, although it is written and read once more: 0.94 of
the whole network's time. (A quotient of two polynomials in place of the exponential takes 0.92, but each of its kernels
17 ms to compile and 5 ms to load: 2 s of coefficient 3's first start.) INT8 networks, of which the quantiser moves into
that kernel, too, take 0.94 as well. With AVX512 the fused function handles sixteen numbers at once, in bf16 maps are
half as large, and with products of 8-bit numbers the rest of an INT8 network is faster: nothing was measured there, and
the fused function stays. Enlargements are gathered on every x86: the order of their maps is the same there.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.cpu import INT8_PRODUCTS

__all__ = ["LEAST_SWISH", "MOST_MAPS", "VERSION", "positions", "prepare"]

# of what `prepare` makes: networks compiled from another are of no use
VERSION = 2

# half of what a kernel of AVX2 takes together; ours have one to three
MOST_MAPS = 4
# elements; for smaller maps a kernel of its own costs what the faster function saves, and all cost time to load
LEAST_SWISH = 1 << 17


def prepare(model: Any, flags: Collection[str], precision: str) -> dict[str, int]:
    """Change a network that was read and not compiled yet.

    Args:
        model: an `openvino.Model` as it was read from an ONNX file; changed in place.
        flags: instruction sets of the CPU (`runtimes.cpu.cpu_flags`); without AVX2 nothing is done.
        precision: in which it will run: `fp32`, `bf16`, `fp16` or `int8`.

    Returns:
        What was changed, and in how many places.
    """
    if "avx2" not in flags:
        return {}
    done = {"enlargements": _gather_enlargements(model)}
    measured = precision == "fp32" or (precision == "int8" and not INT8_PRODUCTS & {*flags})
    if measured and "avx512f" not in flags:
        done["swish"] = _write_out_swish(model)
    return {name: count for name, count in done.items() if count}


def _operators() -> Any:
    try:
        return importlib.import_module("openvino.opset8")
    except ImportError:  # the name of 2024
        return importlib.import_module("openvino.runtime.opset8")


def _replace(old: Any, new: Any, name: str) -> None:
    """Let everything that read one output read another, which takes its names over."""
    old.replace(new)
    new.get_node().set_friendly_name(name)


def _shape(output: Any) -> tuple[int, ...]:
    """Sizes, -1 for an open one; empty where not even their number is known."""
    shape = output.get_partial_shape()
    return () if shape.rank.is_dynamic else tuple(size.get_length() if size.is_static else -1 for size in shape)


# -- enlargements ----------------------------------------------------------------------------------------------


def _gather_enlargements(model: Any) -> int:
    count = 0
    for node in model.get_ordered_ops():
        if not _enlarges(node):
            continue
        value = node.input_value(0)
        before, after = _shape(value), _shape(node.output(0))
        name = node.get_friendly_name()
        for axis in (3, 2):  # along the width first, as PyTorch: fewer rows are there to be enlarged
            value = _along(value, axis, before[axis], after[axis])
        _replace(node.output(0), value, name)
        count += 1
    return count


def _enlarges(node: Any) -> bool:
    """Whether a node interpolates linearly between corners that stay corners, for a few maps of float32."""
    if node.get_type_name() != "Interpolate":
        return False
    found = node.get_attributes()
    before, after = _shape(node.input_value(0)), _shape(node.output(0))
    return (
        found.get("mode") in ("linear", "linear_onnx")
        and found.get("coordinate_transformation_mode") == "align_corners"
        and not found.get("antialias")
        and not any((*found.get("pads_begin", ()), *found.get("pads_end", ())))
        and len(before) == len(after) == 4
        and before[:2] == after[:2]
        and 0 < before[1] * abs(before[0]) <= MOST_MAPS  # an open batch is mostly one
        and all(1 < size < larger for size, larger in zip(before[2:], after[2:], strict=True))
        and node.get_output_element_type(0).get_type_name() == "f32"
    )


def positions(size: int, larger: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Index of the left neighbour of each new element, and the share of the right one.

    In float32 and in PyTorch's order of operations, because it is what the results are compared with.
    """
    step = np.float32(size - 1) / np.float32(larger - 1)
    place = np.arange(larger, dtype=np.float32) * step
    left = np.minimum(place.astype(np.int64), size - 2)
    return left, np.minimum(place - left.astype(np.float32), np.float32(1))


def _along(value: Any, axis: int, size: int, larger: int) -> Any:
    """Enlarge along one axis."""
    ops = _operators()
    left, share = positions(size, larger)
    shape = [larger if index == axis else 1 for index in range(4)]
    parts = [
        ops.multiply(ops.gather(value, ops.constant(index), ops.constant(np.int64(axis))), ops.constant(weight))
        for index, weight in ((left, (1 - share).reshape(shape)), (left + 1, share.reshape(shape)))
    ]
    return ops.add(*parts).output(0)


# -- Swish -----------------------------------------------------------------------------------------------------


def _write_out_swish(model: Any) -> int:
    count = 0
    for node in model.get_ordered_ops():
        value = _swish_of(node)
        if value is None or math.prod(_shape(value)[1:] or (0,)) < LEAST_SWISH:  # of one image
            continue
        _replace(node.output(0), _swish(value), node.get_friendly_name())
        count += 1
    return count


def _swish_of(node: Any) -> Any:
    """x where a node is x * sigmoid(x) in float32, else None."""
    if node.get_type_name() != "Multiply" or node.get_output_element_type(0).get_type_name() != "f32":
        return None
    for value, gate in ((0, 1), (1, 0)):
        sigmoid = node.input_value(gate).get_node()
        if sigmoid.get_type_name() == "Sigmoid" and sigmoid.input_value(0) == node.input_value(value):
            return node.input_value(value)
    return None


def _swish(value: Any) -> Any:
    """x / (1 + exp(-x)). The sign is a product: OpenVINO knows the form with a negation and fuses it again."""
    ops = _operators()
    below = ops.exp(ops.multiply(value, ops.constant(np.float32(-1))))
    return ops.divide(value, ops.add(below, ops.constant(np.float32(1)))).output(0)
