"""The protobuf walk against the onnx package, and against noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hybridnets.errors import HnxError
from hybridnets.onnx_header import TensorSpec, read_onnx_header


def model_file(path: Path) -> Path:
    """One uint8 input with a free batch, a float16 initializer listed as an input too, one output."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 4, 4, 3])
    scale = helper.make_tensor_value_info("scale", TensorProto.FLOAT16, [1])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT16, ["batch", 4, 4, 3])
    nodes = [
        helper.make_node("Cast", ["image"], ["c"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["c", "scale"], ["out"]),
    ]
    weights = onnx.numpy_helper.from_array(np.ones(1, np.float16), "scale")
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [image, scale], [out], [weights])), path)
    return path


def test_names_types_and_shapes(tmp_path: Path) -> None:
    header = read_onnx_header(model_file(tmp_path / "a.onnx"))
    assert header.inputs == (TensorSpec("image", "uint8", ("batch", 4, 4, 3)),)
    assert header.outputs == (TensorSpec("out", "float16", ("batch", 4, 4, 3)),)
    assert str(header.inputs[0]) == "image: uint8 batchx4x4x3"


def test_files_that_weights_lie_in(tmp_path: Path) -> None:
    model = onnx.load(model_file(tmp_path / "a.onnx"))
    assert read_onnx_header(tmp_path / "a.onnx").external == ()
    onnx.save(model, tmp_path / "b.onnx", save_as_external_data=True, location="b.weights", size_threshold=0)
    assert read_onnx_header(tmp_path / "b.onnx").external == ("b.weights",)


def test_agrees_with_onnx_on_a_real_network(bundle_path: Path) -> None:
    path = bundle_path / "hybridnets_128x256.onnx"
    graph = onnx.load(path).graph
    header = read_onnx_header(path)
    for specs, values in ((header.inputs, graph.input), (header.outputs, graph.output)):
        assert [s.name for s in specs] == [v.name for v in values]
        assert [s.shape for s in specs] == [tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values]


def test_noise_is_an_error_never_a_crash(tmp_path: Path) -> None:
    whole = model_file(tmp_path / "a.onnx").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for i in range(300):
        content = bytearray(whole[: random.integers(0, len(whole) + 1)] if i % 2 else whole)
        for position in random.integers(0, max(1, len(content)), 3):
            if content:
                content[position] = random.integers(0, 256)
        path = tmp_path / "b.onnx"
        path.write_bytes(content)
        try:
            read_onnx_header(path)
        except HnxError:
            refused += 1
    assert refused > 100


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="does not exist"):
        read_onnx_header(tmp_path / "a.onnx")
