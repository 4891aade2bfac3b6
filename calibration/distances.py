"""How far two networks of the same outputs are apart when they run on the same inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration.graph import network_outputs, only_network
from hybridnets.difference import Difference, difference

if TYPE_CHECKING:
    import onnx

__all__ = ["worst_distances"]


def worst_distances(
    reference: onnx.ModelProto, other: onnx.ModelProto, inputs: Iterable[NDArray[Any]], *, optimised: bool
) -> dict[str, Difference]:
    """The worst difference of each of the network's own outputs, both in ONNX Runtime; empty without an input.

    Args:
        inputs: tensors as the network takes them.
        optimised: with basic optimisations. Further ones fuse pairs to integer kernels, which round in other places;
            where roundings are written as casts, even the basic ones would take them out again.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if optimised else levels.ORT_DISABLE_ALL
    outputs = network_outputs(reference)
    first, second = (
        ort.InferenceSession(
            only_network(graph, outputs).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for graph in (reference, other)
    )
    names = list(outputs.values())
    feed = first.get_inputs()[0].name
    worst: dict[str, Difference] = {}
    for tensor in inputs:
        found = zip(outputs, first.run(names, {feed: tensor}), second.run(names, {feed: tensor}), strict=True)
        for name, a, b in found:
            value = difference(np.asarray(b), np.asarray(a))
            if name not in worst or value.rel_l2 > worst[name].rel_l2:
                worst[name] = value
    return worst
