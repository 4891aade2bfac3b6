"""`hnx build-trt --flavor rtx` with NVIDIA's real builder and parser, which need no GPU (`.ci/trt`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hybridnets.bundle import GraphForm, NmsForm, open_bundle
from hybridnets.files import sha256_file
from tests import fused
from tests.runtimes.tensorrt import networks

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.trt
# the network is exported and quantised for all of them at once
ONE_WORKER = pytest.mark.xdist_group("c3")


@pytest.fixture(autouse=True)
def _rtx() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason=".ci/trt installs TensorRT for RTX", exc_type=ImportError)


def build(*arguments: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    command = [sys.executable, "-m", "hnx"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    words = ["build-trt", *map(str, arguments), "--flavor", "rtx"]
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=300, env=environment)


def sidecar(folder: Path) -> dict:
    """The only sidecar in a folder."""
    (path,) = folder.glob("*.plan.json")
    value = json.loads(path.read_text())
    plan = folder / value["plan"]["file"]
    assert sha256_file(plan) == value["plan"]["sha256"]
    assert plan.stat().st_size == value["plan"]["bytes"]
    return value


def test_fp32_fp16_and_int8_get_what_they_ask_for(tmp_path: Path) -> None:
    for name, onnx, options in (
        ("fp32", networks.convolution(tmp_path / "a.onnx"), []),
        ("fp16", networks.convolution(tmp_path / "b.onnx", np.float16), ["--fp16"]),
        ("int8", networks.quantised(tmp_path / "c.onnx"), ["--int8"]),
    ):
        out = tmp_path / name
        done = build(onnx, *options, "-o", out, "--verbose-layers", cache=tmp_path)
        assert done.returncode == 0, done.stderr
        found = sidecar(out)
        assert found["precision"]["executed"] == name
        assert found["precision"]["asked"] == [name]
        assert found["layers_from"] == "builder log"
        assert found["tensorrt"]["flavor"] == "rtx"
        assert found["tensorrt"]["typing"] == "strong"
        assert found["gpu"]["compute_capability"] is None
        assert found["onnx"]["sha256"] == sha256_file(onnx)
        assert any(layer["precision"] == name for layer in found["layers"])
        assert name in done.stdout
        assert "built" in done.stdout


def test_a_free_batch_becomes_a_profile(tmp_path: Path) -> None:
    onnx = networks.convolution(tmp_path / "a.onnx", batch="N")
    done = build(onnx, "--min-batch", "1", "--opt-batch", "2", "--max-batch", "4", "-o", tmp_path, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    found = sidecar(tmp_path)
    assert found["tensors"][0]["shape"] == [-1, 3, 32, 32]
    assert found["options"]["batch"] == [1, 2, 4]
    assert "--opt-batch 2" in found["command"]


def test_weights_beside_the_network_are_found_and_hashed(tmp_path: Path) -> None:
    import onnx

    path = networks.convolution(tmp_path / "a.onnx")
    data = {"save_as_external_data": True, "location": "a.onnx.data", "size_threshold": 0}
    onnx.save(onnx.load(str(path)), str(path), **data)
    assert (tmp_path / "a.onnx.data").is_file()
    done = build(path, "-o", tmp_path / "out", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sidecar(tmp_path / "out")["onnx"]["sha256"] != sha256_file(path)
    (tmp_path / "a.onnx.data").unlink()
    done = build(path, "-o", tmp_path / "none", cache=tmp_path)
    assert done.returncode == 1
    assert "refuses a.onnx" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "node", "why"),
    [
        ({"zero_point": 5}, "conv1_quant", "Non-zero zero point"),
        ({"scale": -0.5}, "conv1_quant", "scale"),
        ({"zero_point": 7, "asymmetric_node": "encoder/first/quant"}, "encoder/first/quant", "Non-zero zero point"),
        ({"axis": None}, "w_quant", "number of scales"),
        ({"int32_bias": True}, "bias_dequant", "Int32"),
    ],
)
def test_a_broken_qdq_graph_is_refused_with_its_node_named(changes: dict, node: str, why: str, tmp_path: Path) -> None:
    onnx = networks.quantised(tmp_path / "broken.onnx", **changes)
    done = build(onnx, "--int8", "-o", tmp_path, cache=tmp_path)
    assert done.returncode == 1
    assert "refuses broken.onnx" in done.stderr
    assert repr(node) in done.stderr
    assert "uantizeLinear" in done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.plan*"))


def test_requests_the_network_cannot_fulfil_are_usage_errors(tmp_path: Path) -> None:
    plain, half = networks.convolution(tmp_path / "a.onnx"), networks.convolution(tmp_path / "b.onnx", np.float16)
    quantised = networks.quantised(tmp_path / "c.onnx")
    for onnx, options, message in (
        (plain, ["--int8"], "has no QuantizeLinear nodes"),
        (quantised, [], "Q/DQ nodes, and fp32 was asked for"),
        (plain, ["--fp16"], "cannot make a.onnx fp16"),
        (half, [], "cannot make b.onnx fp32"),
        (plain, ["--max-batch", "8"], "whose batch is fixed to 1"),
    ):
        done = build(onnx, *options, "-o", tmp_path / "out", cache=tmp_path)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("detection", ["raw", "decoded"])
@pytest.mark.parametrize("segmentation", ["logits", "classmap", "lowres"])
def test_fused_steps_are_built(segmentation: str, detection: str, tmp_path: Path) -> None:
    import onnx

    form = GraphForm("uint8", segmentation, detection)  # type: ignore[arg-type]
    onnx.save(fused.fused(fused.toy(), form).model, tmp_path / "a.onnx")
    done = build(tmp_path / "a.onnx", "-o", tmp_path, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sidecar(tmp_path)["tensors"][0]["dtype"] == "uint8"


def test_suppression_in_the_graph_is_refused_before_the_build(tmp_path: Path) -> None:
    import onnx

    form = GraphForm(detection="nms", nms=NmsForm())
    onnx.save(fused.fused(fused.toy(), form).model, tmp_path / "a.onnx")
    done = build(tmp_path / "a.onnx", "-o", tmp_path / "out", cache=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "--decode instead of --nms" in done.stderr
    assert not (tmp_path / "out").exists()


def test_not_an_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no protobuf")
    done = build(tmp_path / "a.onnx", "-o", tmp_path, cache=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_the_build_and_leaves_nothing(bundle_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hnx"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path),
        "TMPDIR": str(scratch),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    words = ["build-trt", str(bundle_path), "--flavor", "rtx", "-o", str(tmp_path / "out")]
    process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        deadline = time.monotonic() + 60
        # the build's folder; a file may be there before, with which Python tries whether it can write
        while not any(path.is_dir() for path in scratch.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert not list(scratch.iterdir())


@pytest.fixture(scope="module")
def c3(tmp_path_factory: pytest.TempPathFactory, road_image: Path) -> Path:
    """The c3 network at 640x384 (untrained), exported and quantised by the commands, once."""
    folder = tmp_path_factory.mktemp("c3")
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
    export = ["export", "-w", "untrained", "-c", "3", "--size", "640x384", "--no-weights", "-o", folder]
    bundle = folder / "hybridnets_c3_384x640"
    # one frame: what is shown is that every network is taken, not how well it sees
    quantize = ["quantize", bundle, "--calib", road_image, "--frames", "1", "--method", "max", "--for", "tensorrt,fp16"]
    for words in (export, quantize):
        command = [sys.executable, "-m", "hnx", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stderr
    return bundle


def quantised_convolutions(path: Path) -> int:
    """Convolutions whose image comes from a DequantizeLinear node."""
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    pairs = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    return sum(node.op_type == "Conv" and node.input[0] in pairs for node in nodes)


@ONE_WORKER
def test_the_real_network_in_fp32(c3: Path, tmp_path: Path) -> None:
    done = build(c3, "-o", tmp_path, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    found = sidecar(tmp_path)
    assert found["precision"]["executed"] == "fp32"
    assert found["precision"]["layers"]["correlation"]["fp32"] > 200
    assert [t["name"] for t in found["tensors"]] == ["input", "regression", "classification", "segmentation"]
    assert found["tensors"][0]["shape"] == [1, 3, 384, 640]


@ONE_WORKER
def test_the_real_network_in_fp16(c3: Path, tmp_path: Path) -> None:
    done = build(c3, "--fp16", "-o", tmp_path, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    found = sidecar(tmp_path)
    assert found["onnx"]["file"] == open_bundle(c3).variant("fp16", "tensorrt-strong").file
    assert found["precision"]["executed"] == "fp16"
    assert found["precision"]["layers"]["correlation"]["fp16"] > 200
    assert [t["dtype"] for t in found["tensors"]] == ["float32"] * 4


@ONE_WORKER
def test_the_real_network_in_int8(c3: Path, tmp_path: Path) -> None:
    """What `hnx quantize` wrote for strongly typed versions: every convolution that it quantised runs INT8."""
    done = build(c3, "--int8", "-o", tmp_path, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    found = sidecar(tmp_path)
    file = open_bundle(c3).variant("int8", "tensorrt-strong").file
    assert found["onnx"]["file"] == file
    assert found["precision"]["executed"] == "int8"
    quantised = quantised_convolutions(c3 / file)
    assert quantised > 300
    assert found["precision"]["layers"]["correlation"]["int8"] == quantised
    assert sum(layer["precision"] == "int8" for layer in found["layers"]) >= quantised
    # the rest is of the file's type, and is not passed off as something else
    refused = build(c3, "--int8", "--fp32", "-o", tmp_path / "none", cache=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "leave --fp32 out" in refused.stderr


@ONE_WORKER
def test_the_real_network_as_weakly_typed_versions_get_it(c3: Path, tmp_path: Path) -> None:
    """FP32 scales and opset 17: NVIDIA's parser takes it, too, and its builder runs the same convolutions in INT8."""
    weak = c3 / open_bundle(c3).variant("int8", "tensorrt-weak").file
    done = build(weak, "--int8", "-o", tmp_path, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    found = sidecar(tmp_path)
    assert found["precision"]["layers"]["correlation"]["int8"] == quantised_convolutions(weak) > 300
