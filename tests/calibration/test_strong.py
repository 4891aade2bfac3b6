"""The strongly typed INT8 network is run, and refused when it is not what the weakly typed one is."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from calibration.half import HalfModel, half_distances, raise_opset, to_half
from calibration.qdq import insert_qdq
from calibration.ranges import measure_ranges
from calibration.strong import prove_strong
from hybridnets.difference import Difference
from hybridnets.errors import HnxError
from tests.calibration.nets import frames, mbconv_net

INPUTS = frames(2, seed=2)


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    return mbconv_net()


@pytest.fixture(scope="module")
def weak(net: onnx.ModelProto) -> onnx.ModelProto:
    return insert_qdq(net, measure_ranges(net, lambda: iter(frames())), "tensorrt")


@pytest.fixture(scope="module")
def distances(net: onnx.ModelProto, weak: onnx.ModelProto) -> dict[str, Difference]:
    # nothing of it is FP16, so nothing is rounded
    return half_distances(net, HalfModel(weak, {}, True), INPUTS)


@pytest.fixture
def strong(weak: onnx.ModelProto) -> HalfModel:
    return to_half(raise_opset(weak), {})


def spoil(model: onnx.ModelProto, value: float) -> None:
    """All FP16 weights of convolutions."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16 and len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), value, np.float16), tensor.name))


def test_its_own_distance_is_given(net: onnx.ModelProto, strong: HalfModel, distances: dict[str, Difference]) -> None:
    found = prove_strong(net, strong, distances, INPUTS)
    assert set(found) == set(distances) == {"regression", "segmentation"}
    for name, value in found.items():
        assert 0 < value.rel_l2 < 0.2
        assert value != distances[name]


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_another_network_is_refused(
    net: onnx.ModelProto, strong: HalfModel, distances: dict[str, Difference], value: float
) -> None:
    spoil(strong.model, value)
    with pytest.raises(HnxError, match="is not the weakly typed one: output") as caught:
        prove_strong(net, strong, distances, INPUTS)
    assert "that of the weakly typed one" in caught.value.why


def test_a_weak_file_that_is_not_finite_allows_nothing(net: onnx.ModelProto, strong: HalfModel) -> None:
    spoil(strong.model, float("nan"))
    endless = Difference(math.inf, math.inf, 0.0)
    with pytest.raises(HnxError, match="is not the weakly typed one"):
        prove_strong(net, strong, {"regression": endless, "segmentation": endless}, INPUTS)
