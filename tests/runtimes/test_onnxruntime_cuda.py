"""ONNX Runtime's CUDA and TensorRT providers: refusals for real, everything else on a CPU that says it is a GPU."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from calibration.half import to_half
from calibration.variants import NewVariant, add_variants, float_model
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.data import read_demo_frame
from hybridnets.errors import ExitCode, HnxError
from runtimes import onnxruntime_cuda as module_under_test
from runtimes.base import Runtime, RuntimeOptions
from runtimes.onnxruntime_cuda import OnnxRuntimeCuda
from runtimes.onnxruntime_profile import Placement, read_profile
from runtimes.onnxruntime_tensorrt import OnnxRuntimeTensorRt
from runtimes.opening import obstacle, open_runtime
from runtimes.registry import entry, probe
from runtimes.tensorrt.driver import CudaState
from tests.runtimes.fake_ort import CPU, CUDA, FakeOrt
from tests.runtimes.tensorrt.fake_device import state

TENSORRT = "TensorrtExecutionProvider"
KINDS = pytest.mark.parametrize("kind", [OnnxRuntimeCuda, OnnxRuntimeTensorRt])


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeOrt:
    """A GPU, and an ONNX Runtime for it."""
    made = FakeOrt(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", made)
    monkeypatch.setattr(module_under_test, "probe_cuda", state)
    return made


def tensor(bundle: Bundle) -> np.ndarray:
    return bundle.preprocessor()(read_demo_frame())[0].copy()


def test_same_numbers_through_bound_buffers(fake: FakeOrt, bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    image = tensor(bundle)
    session = onnxruntime.InferenceSession(str(bundle.file(bundle.variants[0].file)), providers=[CPU])
    names = [spec.name for spec in session.get_outputs()]
    expected = {value: dict(zip(names, session.run(names, {"input": value * image}), strict=True)) for value in (0, 1)}
    failures: list[str] = []
    with OnnxRuntimeCuda(bundle) as runtime:

        def work(value: int) -> None:
            context = runtime.context()
            for _ in range(2):
                outputs = context.infer({"input": np.float32(value) * image})
                if any(not np.array_equal(outputs[name], expected[value][name]) for name in names):
                    failures.append("results of two contexts were mixed up")

        threads = [threading.Thread(target=work, args=(value,)) for value in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures
        kept = runtime.infer({"input": image})
        assert runtime.infer({"input": 0 * image}).keys() == kept.keys()
        assert all(min(times.upload, times.compute, times.download) > 0 for times in runtime.device_times())
        execution = runtime.execution
    assert fake.devices == {("cuda", 0)}
    assert execution.precision == "fp32"
    assert execution.device == "GPU: NVIDIA GeForce RTX 4090"
    assert execution.details["nodes"].keys() == {CUDA}
    assert execution.details["convolutions"]["fp32"] > 200
    assert execution.details["tf32"] is False
    assert not runtime.device_times()


def test_every_way_back_to_the_cpu_is_closed(fake: FakeOrt, bundle_path: Path) -> None:
    with OnnxRuntimeCuda(open_bundle(bundle_path)):
        pass
    options = fake.passed["options"]
    assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
    assert fake.passed["enable_fallback"] == 0  # of the Python layer
    # naming the CPU, too, would allow it
    assert fake.passed["providers"] == [(CUDA, {"device_id": "0", "use_tf32": "0"})]
    assert fake.severities == [4, 2]
    assert not fake.profile.exists()


def test_onnx_runtime_itself_refuses_what_its_option_forbids(
    fake: FakeOrt, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own words, of the version that is installed: with no provider but the CPU's everything would fall back."""

    def cpu_only(path: str, options: Any, **_: Any) -> Any:
        return onnxruntime.InferenceSession(path, options)

    monkeypatch.setattr(fake, "InferenceSession", cpu_only, raising=False)
    with pytest.raises(HnxError, match="on the GPU alone") as caught:
        OnnxRuntimeCuda(open_bundle(bundle_path)).open()
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert "CPU EP" in caught.value.why


def test_a_provider_that_did_not_start(fake: FakeOrt, bundle_path: Path, tmp_path: Path) -> None:
    fake.started = [CPU]
    with pytest.raises(HnxError, match="on the GPU alone") as caught:
        OnnxRuntimeCuda(open_bundle(bundle_path)).open()
    assert (caught.value.code, caught.value.why) == (ExitCode.NOTHING_RAN, f"it runs on {CPU} instead")
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").write_bytes(b"no library")
    for fails in (None, RuntimeError("Please install CUDA\nstack")):
        fake.fails = fails
        with pytest.raises(HnxError) as caught:
            OnnxRuntimeCuda(open_bundle(bundle_path)).open()
        assert caught.value.code == ExitCode.NOTHING_RAN
        assert "libonnxruntime_providers_cuda.so: " in caught.value.why
        assert "docs/cuda.md" in caught.value.fix
    assert fake.severities[-1] == 2


def test_a_single_node_on_the_cpu_is_refused_by_name(fake: FakeOrt, bundle_path: Path) -> None:
    def move(event: dict[str, Any]) -> None:
        if event["args"]["op_name"] == "Concat":
            event["args"]["provider"] = CPU

    fake.change = move
    with pytest.raises(HnxError, match="on the GPU alone") as caught:
        OnnxRuntimeCuda(open_bundle(bundle_path)).open()
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert "nodes would run on the CPU, first " in caught.value.why
    assert "(Concat)" in caught.value.why


def test_errors_that_are_no_refusals_stay_what_they_are(fake: FakeOrt, bundle_path: Path) -> None:
    fake.fails = RuntimeError("Protobuf parsing failed.\nstack")
    with pytest.raises(HnxError, match="cannot load") as caught:
        OnnxRuntimeCuda(open_bundle(bundle_path)).open()
    assert (caught.value.why, caught.value.code) == ("Protobuf parsing failed.", ExitCode.FAILED)


def test_fp16_runs_a_stored_network_and_reads_back_what_ran(fake: FakeOrt, bundle_path: Path, tmp_path: Path) -> None:
    bundle = open_bundle(shutil.copytree(bundle_path, tmp_path / "bundle"))
    missing = obstacle(bundle, entry("onnxruntime-cuda"), "fp16")
    assert missing is not None
    assert missing["fix"] == f"hnx quantize {bundle.path} --for fp16"
    half = NewVariant("fp16", "gpu", ("tensorrt-strong", "onnxruntime-cuda"), to_half(float_model(bundle)).model)
    bundle = add_variants(bundle, [half])
    assert obstacle(bundle, entry("onnxruntime-cuda"), "fp16") is None
    # this is a CPU after all, which computes in float32: the row must not claim fp16
    with pytest.raises(HnxError, match="would run fp32, fp16 was asked for") as caught:
        OnnxRuntimeCuda(bundle, RuntimeOptions("fp16")).open()
    assert caught.value.code == ExitCode.NOTHING_RAN

    def halve(event: dict[str, Any]) -> None:
        shapes = event["args"].get("input_type_shape", [])
        event["args"]["input_type_shape"] = [dict.fromkeys(["float16"], next(iter(pair.values()))) for pair in shapes]

    fake.change = halve
    with OnnxRuntimeCuda(bundle, RuntimeOptions("fp16")) as runtime:
        assert runtime.execution.precision == "fp16"
        outputs = runtime.infer({"input": tensor(bundle)})
        assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in outputs.values())


def test_a_variant_for_more_runtimes_takes_the_place_of_one_for_fewer(bundle_path: Path, tmp_path: Path) -> None:
    bundle = open_bundle(shutil.copytree(bundle_path, tmp_path / "bundle"))
    model = to_half(float_model(bundle)).model
    old = add_variants(bundle, [NewVariant("fp16", "tensorrt-strong", ("tensorrt-strong",), model)])
    model.doc_string = "another"
    new = add_variants(old, [NewVariant("fp16", "gpu", ("tensorrt-strong", "onnxruntime-cuda"), model)])
    assert [set(v.runtimes) for v in new.variants if v.precision == "fp16"] == [{"tensorrt-strong", "onnxruntime-cuda"}]
    # the float32 network is for all runtimes, and stays when one gets its own
    own = add_variants(new, [NewVariant("fp32", "own", ("openvino",), float_model(new))])
    assert [v.runtimes for v in own.variants if v.precision == "fp32"] == [(), ("openvino",)]


def test_tensorrt_takes_most_and_cuda_the_rest(
    fake: FakeOrt, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.available = fake.started = [TENSORRT, CUDA, CPU]

    def rest(event: dict[str, Any]) -> None:
        if event["args"]["op_name"] == "Resize":
            event["args"]["provider"] = CUDA

    fake.change = rest
    bundle = open_bundle(bundle_path)
    with OnnxRuntimeTensorRt(bundle, RuntimeOptions("fp16", cache_dir=tmp_path / "cache")) as runtime:
        assert runtime.execution.precision == "fp16"
        assert runtime.execution.details["nodes"].keys() == {TENSORRT, CUDA}
    (first, words), second = fake.passed["providers"]
    assert first == TENSORRT
    assert words["trt_fp16_enable"] == "1"
    assert Path(words["trt_engine_cache_path"]).is_dir()
    assert second[0] == CUDA
    with OnnxRuntimeTensorRt(bundle) as runtime:
        assert runtime.execution.details["tf32"] is True
    assert "trt_engine_cache_path" not in fake.passed["providers"][0][1]

    def nothing(event: dict[str, Any]) -> None:
        event["args"]["provider"] = CUDA

    fake.change = nothing
    with pytest.raises(HnxError, match="on the GPU alone") as caught:
        OnnxRuntimeTensorRt(bundle).open()
    assert caught.value.why == f"none of its nodes is on the {TENSORRT}"


@KINDS
def test_probe_gives_one_reason(
    kind: type[OnnxRuntimeCuda], fake: FakeOrt, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.available = [TENSORRT, CUDA, CPU]
    assert kind.probe().runnable() == ["fp32", "fp16"]
    assert kind.probe().device == "GPU: NVIDIA GeForce RTX 4090"
    row = entry(kind.name)
    for machine, available, words, fix in (
        (CudaState("there is no NVIDIA driver here", "install it"), fake.available, "no NVIDIA driver", "install it"),
        (state(driver_cuda=11_040), fake.available, "CUDA 11.4, this ONNX Runtime is built for CUDA 12", "update"),
        (state(), ["AzureExecutionProvider", CPU], "provider, only Azure, CPU", '".[cuda]"'),
    ):
        fake.available = list(available)
        monkeypatch.setattr(module_under_test, "probe_cuda", lambda machine=machine: machine)
        found = probe(row)
        assert words in found.reason
        assert fix in found.fix
        assert found.version == "1.23.0"
        with pytest.raises(HnxError, match="cannot run here") as caught:
            open_runtime(kind.name, open_bundle(bundle_path))
        assert caught.value.code == ExitCode.NOTHING_RAN


@KINDS
def test_without_onnx_runtime(kind: type[Runtime], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = probe(entry(kind.name))
    assert "could not be imported" in found.reason
    assert found.fix == 'pip install -e ".[cuda]"'


def test_outputs_of_any_size_get_new_buffers(fake: FakeOrt, bundle_path: Path) -> None:
    import dataclasses

    bundle = open_bundle(bundle_path)
    spec = bundle.outputs["regression"]
    free = {**bundle.outputs, "regression": dataclasses.replace(spec, shape=(1, "boxes", 4))}
    bound = []
    for variant in (bundle, dataclasses.replace(bundle, outputs=free)):
        with OnnxRuntimeCuda(variant) as runtime:
            before = fake.outputs_bound
            for _ in range(3):
                runtime.infer(runtime.warm_input())
            bound.append((fake.outputs_bound - before) // len(bundle.outputs))
    assert bound == [1, 3]


def test_a_profile_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    for text in ("", "{}", "3"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"profile|Expecting"):
            read_profile(path)
    path.write_text('[{"cat": "Node", "name": "Memcpy_kernel_time", "args": {"op_name": "MemcpyToHost"}}, 7]')
    assert read_profile(path) == Placement({}, {})
    assert read_profile(path).precision == ""
