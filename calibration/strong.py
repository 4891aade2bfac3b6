"""The strongly typed INT8 network held against FP32: its FP16 roundings may add little to what INT8 costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from calibration.half import TOLERANCE, HalfModel, half_distances
from hybridnets.difference import Difference
from hybridnets.errors import HnxError

if TYPE_CHECKING:
    import onnx

__all__ = ["prove_strong"]

# a value beside the edge between two steps of INT8 may fall on the other side when it is rounded to FP16 first, so the
# two files are never equally far from FP32; weights of zeros put an output at 1
_FACTOR = 2.0


def prove_strong(
    reference: onnx.ModelProto,
    strong: HalfModel,
    weak: Mapping[str, Difference],
    inputs: Iterable[NDArray[Any]],
) -> dict[str, Difference]:
    """Run the FP32 network and the roundings of the strongly typed one on the same inputs.

    Args:
        weak: how far the weakly typed file, which has the same pairs, is from `reference` on these inputs.

    Returns:
        The worst difference of each of the network's own outputs.

    Raises:
        HnxError: an output is not finite, or more than twice as far from FP32 as the weakly typed one's with what FP16
            may cost; or nothing could be run.
    """
    found = half_distances(reference, strong, inputs)
    for name, value in found.items():
        limit = _FACTOR * (weak[name].rel_l2 + TOLERANCE)
        if not (math.isfinite(value.rel_l2) and value.rel_l2 <= limit):
            raise HnxError(
                f"The strongly typed INT8 network is not the weakly typed one: output {name!r} differs",
                why=f"relative L2 to FP32 is {value.rel_l2:.2e}, that of the weakly typed one {weak[name].rel_l2:.2e}; "
                f"the limit is {limit:.2e}",
                fix="nothing was written; leave tensorrt out of --for, and report this",
            )
    return found
