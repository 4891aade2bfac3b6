"""Factors of channels: what they are made of, and that they leave the sum as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.channels import QUIET, channel_reaches, smoothing
from calibration.graph import Graph
from calibration.placement import make_plan, placement
from calibration.ranges import Range, measure_ranges
from tests.calibration.nets import frames, mbconv_net


def test_reaches_are_clipped_by_the_tensors_threshold_and_never_nothing() -> None:
    found = channel_reaches(Range(-9.0, 5.0, 6.4, reaches=(9.0, 3.2, 1e-9)))
    np.testing.assert_allclose(found, [6.4, 3.2, 6.4 * QUIET])


def test_loud_channels_are_divided_and_quiet_ones_multiplied() -> None:
    net = mbconv_net(size=32)
    ranges = measure_ranges(net, lambda: iter(frames(3, size=32)))
    graph = Graph(net)
    plan = make_plan(net, placement("openvino"))
    factors = smoothing(graph, plan, ranges)
    dense = {
        graph.nodes[number].input[0]
        for number in plan.nodes
        if graph.nodes[number].op_type == "Conv" and not graph.is_depthwise(graph.nodes[number])
    }
    assert set(factors) == dense
    for tensor, found in factors.items():
        weights = [
            np.abs(numpy_helper.to_array(graph.constants[node.input[1]])).max(axis=(0, 2, 3))
            for number in plan.nodes
            if (node := graph.nodes[number]).input[0] == tensor and not graph.is_depthwise(node)
        ]
        balance = channel_reaches(ranges[tensor]) / found / (np.max(weights, axis=0) * found)
        # after it every channel reaches as far as its weights do, up to one number of the whole
        np.testing.assert_allclose(balance, balance[0], rtol=1e-5)
        assert np.log(found).mean() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("reaches", [(), (1.0,)])
def test_maps_whose_channels_are_not_known_keep_one_scale(reaches: tuple[float, ...]) -> None:
    net = mbconv_net(size=32)
    ranges = {name: Range(-1.0, 1.0, 1.0, reaches=reaches) for node in net.graph.node for name in node.output}
    assert smoothing(Graph(net), make_plan(net, placement("openvino")), ranges) == {}


def test_maps_and_weights_of_nothing_are_left_alone() -> None:
    net = mbconv_net(size=32)
    empty = {name: Range(0.0, 0.0, 0.0, reaches=(0.0,) * 32) for node in net.graph.node for name in node.output}
    plan = make_plan(net, placement("openvino"))
    assert smoothing(Graph(net), plan, empty) == {}
    for tensor in net.graph.initializer:
        if tensor.name.endswith("_project_conv.weight"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(list(tensor.dims), np.float32), tensor.name))
    ranges = measure_ranges(net, lambda: iter(frames(2, size=32)))
    read = {node.input[0] for node in net.graph.node if "_project_conv" in node.name}
    assert not read & set(smoothing(Graph(net), plan, ranges))
