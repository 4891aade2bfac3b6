"""OpenVINO's networks before they are compiled: what is said otherwise computes the same, and everything else stays."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

import runtimes.openvino
from hybridnets.bundle import open_bundle
from runtimes.base import Execution, RuntimeOptions
from runtimes.cpu import cpu_flags
from runtimes.opening import open_runtime
from runtimes.openvino_graph import LEAST_SWISH, MOST_MAPS, positions, prepare

ov = pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif("avx2" not in cpu_flags(), reason="what OpenVINO does on other processors was not seen")
AVX2 = {"avx2"}
Array = NDArray[Any]


def read(nodes: list[onnx.NodeProto], shape: tuple[int | str, ...], constants: dict[str, Array] | None = None) -> Any:
    """A network of `x` to `y`, as OpenVINO reads it."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ov.Core().read_model(model.SerializeToString())


def run(model: Any, value: Array) -> Array:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled.create_infer_request().infer({0: value})["y"])


def kinds(model: Any) -> Counter[str]:
    return Counter(node.get_type_name() for node in model.get_ops())


def resize(scale: tuple[float, float], **settings: str) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    wanted = {"mode": "linear", "coordinate_transformation_mode": "align_corners", **settings}
    constants: dict[str, Array] = {"scales": np.array([1, 1, *scale], np.float32)}
    return [helper.make_node("Resize", ["x", "", "scales"], ["y"], name="enlarge", **wanted)], constants


def swish(value: str = "x", gate: str = "x", turned: bool = False) -> list[onnx.NodeProto]:
    factors = [value, "s"]
    return [
        helper.make_node("Sigmoid", [gate], ["s"], name="sigmoid"),
        helper.make_node("Mul", factors[::-1] if turned else factors, ["y"], name="swish"),
    ]


LARGE = (1, 8, 128, 128)
assert np.prod(LARGE) == LEAST_SWISH


@pytest.mark.parametrize(("size", "larger"), [(96, 384), (64, 256), (160, 640), (2, 4), (2, 64), (7, 21), (500, 1001)])
def test_positions_are_those_of_pytorch(size: int, larger: int) -> None:
    values = np.random.default_rng(size).standard_normal((1, 1, 1, size)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values), size=(1, larger), mode="bilinear", align_corners=True
    ).numpy()[0, 0, 0]
    left, share = positions(size, larger)
    assert left.min() >= 0
    assert left.max() <= size - 2
    line = values[0, 0, 0]
    np.testing.assert_allclose((1 - share) * line[left] + share * line[left + 1], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("maps", [1, 3, MOST_MAPS])
@pytest.mark.parametrize(("shape", "scale"), [((9, 13), (4.0, 4.0)), ((2, 2), (2.0, 8.0)), ((31, 17), (2.0, 3.0))])
def test_an_enlargement_of_few_maps_is_gathered(maps: int, shape: tuple[int, int], scale: tuple[float, float]) -> None:
    nodes, constants = resize(scale)
    value = np.random.default_rng(1).standard_normal((1, maps, *shape)).astype(np.float32)
    model = read(nodes, value.shape, constants)
    assert prepare(model, AVX2, "fp32") == {"enlargements": 1}
    assert kinds(model)["Interpolate"] == 0
    assert model.outputs[0].get_names() == {"y"}
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(value),
        size=[round(a * b) for a, b in zip(shape, scale, strict=True)],
        mode="bilinear",
        align_corners=True,
    )
    np.testing.assert_allclose(run(model, value), expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "scale", "settings"),
    [
        ((1, MOST_MAPS + 1, 8, 8), (2.0, 2.0), {}),
        ((MOST_MAPS, 2, 8, 8), (2.0, 2.0), {}),
        ((1, 3, 8, 8), (0.5, 0.5), {}),
        ((1, 3, 8, 8), (2.0, 1.0), {}),
        ((1, 3, 1, 8), (2.0, 2.0), {}),
        ((1, 3, 8, 8), (2.0, 2.0), {"coordinate_transformation_mode": "half_pixel"}),
        ((1, 3, 8, 8), (2.0, 2.0), {"mode": "nearest"}),
        ((1, 3, 8, 8), (2.0, 2.0), {"mode": "cubic"}),
    ],
)
def test_other_resizes_stay(shape: tuple[int, ...], scale: tuple[float, float], settings: dict[str, str]) -> None:
    nodes, constants = resize(scale, **settings)
    model = read(nodes, shape, constants)
    before = kinds(model)
    assert prepare(model, AVX2, "fp32") == {}
    assert kinds(model) == before


@pytest.mark.parametrize("turned", [False, True])
def test_swish_is_written_out(turned: bool) -> None:
    model = read(swish(turned=turned), LARGE)
    assert prepare(model, AVX2, "fp32") == {"swish": 1}
    assert model.outputs[0].get_names() == {"y"}
    values = np.linspace(-30, 30, int(np.prod(LARGE)), dtype=np.float32).reshape(LARGE)
    # both ends of the range: exp(-x) leaves float32 at -88
    values.flat[:8] = [-3e38, -1e4, -104, -89, 0, 89, 1e4, 3e38]
    x = values.astype(np.float64)
    with np.errstate(over="ignore"):
        expected = x / (1 + np.exp(-x))
    result = run(model, values)
    assert np.isfinite(result).all()
    assert np.abs(result[x < -88]).max() <= 1  # 0, but for the lowest number of all
    usual = np.abs(x) < 88
    assert (np.abs(result - expected)[usual] <= 3e-7 * np.maximum(1, np.abs(x[usual]))).all()
    np.testing.assert_allclose(result[x > 88], x[x > 88], rtol=1e-7)


def test_swish_stays_written_out() -> None:
    """OpenVINO knows several forms of Swish and puts its own function in their place: not of this one."""
    weights = np.random.default_rng(0).standard_normal((8, 8, 1, 1)).astype(np.float32)
    conv = helper.make_node("Conv", ["x", "w"], ["c"], name="conv")
    model = read([conv, *swish("c", "c")], LARGE, {"w": weights})
    prepare(model, AVX2, "fp32")
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = [op.get_rt_info()["layerType"].astype(str) for op in compiled.get_runtime_model().get_ops()]
    assert set(found) - {"Input", "Const", "Output", "Reorder"} == {"Convolution", "Subgraph"}


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        (swish(), (1, 8, 128, 127)),  # too small to pay
        ([helper.make_node("Relu", ["x"], ["g"]), *swish("x", "g")], LARGE),  # the gate of another tensor
        ([helper.make_node("Sigmoid", ["x"], ["y"])], LARGE),
        ([helper.make_node("HardSwish", ["x"], ["y"])], LARGE),
    ],
)
def test_what_is_no_large_swish_stays(nodes: list[onnx.NodeProto], shape: tuple[int, ...]) -> None:
    model = read(nodes, shape)
    before = kinds(model)
    assert prepare(model, AVX2, "fp32") == {}
    assert kinds(model) == before


@pytest.mark.parametrize(
    ("flags", "precision", "expected"),
    [
        (set(), "fp32", {}),
        ({"asimd"}, "fp32", {}),
        ({"avx2"}, "fp32", {"enlargements": 1, "swish": 1}),
        ({"avx2"}, "int8", {"enlargements": 1, "swish": 1}),
        ({"avx2", "avx_vnni"}, "int8", {"enlargements": 1}),
        ({"avx2", "avx_vnni"}, "fp32", {"enlargements": 1, "swish": 1}),
        ({"avx2"}, "bf16", {"enlargements": 1}),
        ({"avx2", "avx512f", "amx_bf16"}, "fp32", {"enlargements": 1}),
    ],
)
def test_what_pays_depends_on_instruction_sets_and_precision(
    flags: set[str], precision: str, expected: dict[str, int]
) -> None:
    nodes, constants = resize((8.0, 8.0))
    nodes[0].output[0] = "c"
    model = read([*nodes, *swish("c", "c")], (1, 4, 32, 32), constants)
    assert prepare(model, flags, precision) == expected


def test_an_open_batch() -> None:
    nodes, constants = resize((8.0, 8.0))
    nodes[0].output[0] = "c"
    model = read([*nodes, *swish("c", "c")], ("N", 4, 32, 32), constants)
    assert prepare(model, AVX2, "fp32") == {"enlargements": 1, "swish": 1}
    value = np.random.default_rng(2).standard_normal((3, 4, 32, 32)).astype(np.float32)
    large = torch.nn.functional.interpolate(
        torch.from_numpy(value), scale_factor=8, mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(run(model, value), torch.nn.functional.silu(large).numpy(), rtol=1e-5, atol=1e-6)


# -- in the runtime --------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU of AVX2, and maps of the small test network count as large."""
    monkeypatch.setattr(runtimes.openvino, "cpu_flags", lambda: frozenset(AVX2))
    monkeypatch.setattr("runtimes.openvino_graph.LEAST_SWISH", 1 << 12)


def outputs(path: Path, options: RuntimeOptions | None = None) -> tuple[dict[str, Array], Execution]:
    with open_runtime("openvino", open_bundle(path), options or RuntimeOptions(threads=1)) as runtime:
        spec = runtime.bundle.input
        noise = np.random.default_rng(0).standard_normal(spec.shape, np.float32)  # type: ignore[arg-type]
        return {name: value.copy() for name, value in runtime.infer({spec.name: noise}).items()}, runtime.execution


def bare(bundle_path: Path, folder: Path) -> Path:
    """The network alone, as if others had made it."""
    return Path(shutil.copy(next(bundle_path.glob("*.onnx")), folder))


@pytest.mark.usefixtures("few")
def test_a_bundle_runs_prepared_and_a_bare_file_as_it_is(bundle_path: Path, tmp_path: Path) -> None:
    ours, execution = outputs(bundle_path)
    assert execution.details["changes"]["enlargements"] == 2
    assert execution.details["changes"]["swish"] > 20
    plain, execution = outputs(bare(bundle_path, tmp_path))
    assert execution.details["changes"] == {}
    assert ours.keys() == plain.keys()
    for name, value in ours.items():
        assert np.linalg.norm(value - plain[name]) <= 2e-6 * np.linalg.norm(plain[name])
    assert not np.array_equal(ours["segmentation"], plain["segmentation"])


@pytest.mark.usefixtures("few")
def test_what_cannot_be_prepared_runs_as_it_is_and_is_not_kept(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> dict[str, int]:
        raise AttributeError("module 'openvino' has no attribute 'opset8'\nand more")

    monkeypatch.setattr(runtimes.openvino, "prepare", fail)
    ours, execution = outputs(bundle_path, RuntimeOptions(threads=1, cache_dir=tmp_path / "cache"))
    assert execution.details["cache"].startswith("not kept: ")
    assert not (tmp_path / "cache").exists()
    assert execution.details["changes"] == "none: module 'openvino' has no attribute 'opset8'"
    plain, _ = outputs(bare(bundle_path, tmp_path))
    assert all(np.array_equal(value, plain[name]) for name, value in ours.items())


@pytest.mark.usefixtures("few")
def test_the_cache_knows_what_was_changed(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = RuntimeOptions(threads=1, cache_dir=tmp_path)
    first, written = outputs(bundle_path, options)
    again, read_back = outputs(bundle_path, options)
    assert (written.details["cache"], read_back.details["cache"]) == ("written", "read")
    assert read_back.details["changes"] == written.details["changes"] != {}
    assert all(np.array_equal(value, again[name]) for name, value in first.items())
    alone, other = outputs(bare(bundle_path, tmp_path), options)
    assert (other.details["cache"], other.details["changes"]) == ("written", {})
    assert not np.array_equal(alone["segmentation"], first["segmentation"])
    monkeypatch.setattr(runtimes.openvino, "VERSION", runtimes.openvino.VERSION + 1)
    assert outputs(bundle_path, options)[1].details["cache"] == "written"
