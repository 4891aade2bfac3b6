"""The `tensorrt` runtime behind the interface of all runtimes, on a table's TensorRT and a device of host memory."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridnets.bundle import Bundle, open_bundle
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import sha256_file, write_json
from runtimes.base import RuntimeOptions
from runtimes.registry import entry, runtime_class
from runtimes.registry import probe as registry_probe
from runtimes.tensorrt import runtime as module_under_test
from runtimes.tensorrt.driver import CudaState
from runtimes.tensorrt.plan import sidecar_path
from runtimes.tensorrt.runtime import TensorRtRuntime
from tests.runtimes.tensorrt import scenario
from tests.runtimes.tensorrt.fake_device import FakeDevice, state
from tests.runtimes.tensorrt.spec_module import spec_module
from tests.runtimes.tensorrt.world import Member, World


class Rig:
    """A bundle with an fp16 plan, a TensorRT, and a machine."""

    def __init__(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bundle = bundle
        self.world = World()
        self.trt: Any = spec_module("10.13.3.9", self.world)
        self.library = scenario.library(self.trt)
        self.devices: list[FakeDevice] = []
        self.machine = state()
        specs = {bundle.input.name: bundle.input, **{spec.name: spec for spec in bundle.outputs.values()}}
        names = list(specs)
        answers = self.trt.answers
        answers["ICudaEngine.num_io_tensors"] = lambda _: len(names)
        answers["ICudaEngine.get_tensor_name"] = lambda index: names[index]
        answers["ICudaEngine.get_tensor_mode"] = lambda name: Member(
            "TensorIOMode", "INPUT" if name == names[0] else "OUTPUT"
        )
        answers["ICudaEngine.get_tensor_dtype"] = lambda name: Member(
            "DataType", "FLOAT" if name == names[0] else "HALF"
        )
        answers["ICudaEngine.get_tensor_shape"] = lambda name: tuple(specs[name].shape)
        answers["IExecutionContext.get_tensor_shape"] = lambda name: tuple(specs[name].shape)
        monkeypatch.setattr(module_under_test, "load", lambda flavor: self.library)
        monkeypatch.setattr(module_under_test, "probe_cuda", lambda: self.machine)
        monkeypatch.setattr(module_under_test, "open_device", self._device)
        self.plan = bundle.path / "net-fp16.plan"
        self.plan.write_bytes(b"fakeplan")
        network = bundle.variants[0].file
        self.write(onnx=network, onnx_sha256=sha256_file(bundle.path / network))

    def _device(self, gpu: Any) -> FakeDevice:
        self.devices.append(FakeDevice(gpu))
        return self.devices[-1]

    def write(self, **changes: Any) -> None:
        write_json(sidecar_path(self.plan), scenario.sidecar(self.library, self.plan, **changes).to_json())


@pytest.fixture
def rig(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(open_bundle(shutil.copytree(bundle_path, tmp_path / "bundle")), monkeypatch)


def test_it_runs_like_every_other_runtime(rig: Rig) -> None:
    with TensorRtRuntime(rig.bundle, RuntimeOptions("fp16")) as runtime:
        execution = runtime.execution
        assert execution.precision == "fp16"
        assert execution.library == "TensorRT 10.13.3.9"
        assert "sm_89" in execution.device
        assert execution.details["cuda_graph"] is True
        assert execution.details["plan"] == "net-fp16.plan"
        outputs = runtime.infer(runtime.warm_input())
        assert outputs.keys() == {spec.name for spec in rig.bundle.outputs.values()}
        assert all(array.dtype == np.float32 for array in outputs.values())  # widened from half
        assert runtime.device_times()[0].total > 0
        # the context of the trial run serves the first thread; memory on a board is scarce
        assert rig.trt.calls.count("ICudaEngine.create_execution_context") == 1
        failures: list[BaseException] = []

        def work() -> None:
            try:
                runtime.context().infer(runtime.warm_input())
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not failures
        assert rig.trt.calls.count("ICudaEngine.create_execution_context") == 3
    assert not rig.devices[0]._driver.alive


def test_the_registry_knows_it() -> None:
    row = entry("trt")
    assert runtime_class(row) is TensorRtRuntime
    assert (row.name, row.extra) == (TensorRtRuntime.name, TensorRtRuntime.extra)
    assert row.precisions == tuple(TensorRtRuntime.stored)
    assert registry_probe(row).version or registry_probe(row).reason


def test_probe_says_why_not(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TensorRtRuntime.probe().runnable() == ["fp16", "int8", "fp32"]
    rig.machine = CudaState("there is no NVIDIA driver here", "install it")
    probe = TensorRtRuntime.probe()
    assert not probe.available
    assert "no NVIDIA driver" in probe.reason
    assert probe.version == "10.13.3.9"
    with pytest.raises(HnxError, match="cannot run here") as caught:
        TensorRtRuntime(rig.bundle)
    assert caught.value.code == ExitCode.NOTHING_RAN

    def missing(flavor: str) -> Any:
        raise HnxError("TensorRT is not installed", why="no module", fix="pip", code=ExitCode.NOTHING_RAN)

    monkeypatch.setattr(module_under_test, "load", missing)
    probe = TensorRtRuntime.probe()
    assert not probe.available
    assert (probe.version, probe.fix) == ("", "pip")
    assert set(probe.precisions) == set(TensorRtRuntime.stored)


def test_no_plan_a_foreign_plan_a_damaged_plan(rig: Rig) -> None:
    with pytest.raises(HnxError, match="has no int8 plan") as caught:
        TensorRtRuntime(rig.bundle, RuntimeOptions("int8")).open()
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert "--int8" in caught.value.fix
    network = rig.bundle.variants[0].file
    digest = sha256_file(rig.bundle.path / network)
    rig.write(
        onnx=network, onnx_sha256=digest, version="10.3.0", capability=(8, 7), gpu="Orin", version_compatible=False
    )
    with pytest.raises(HnxError, match=r"Cannot use net-fp16\.plan here") as caught:
        TensorRtRuntime(rig.bundle, RuntimeOptions("fp16")).open()
    assert "built with TensorRT 10.3.0 on sm_87 (Orin), this is TensorRT 10.13.3.9 on sm_89" in caught.value.why
    rig.write(onnx=network, onnx_sha256=digest)
    rig.plan.write_bytes(b"fake")
    with pytest.raises(HnxError, match="damaged") as caught:
        TensorRtRuntime(rig.bundle, RuntimeOptions("fp16")).open()
    assert caught.value.code == ExitCode.FAILED
    # TensorRT never saw a byte of any of them
    assert "Runtime.__init__" not in rig.trt.calls


def test_a_plan_of_another_network_is_refused(rig: Rig) -> None:
    rig.trt.answers["ICudaEngine.get_tensor_shape"] = lambda name: (1, 3, 64, 64)
    with pytest.raises(HnxError, match="does not fit bundle"):
        TensorRtRuntime(rig.bundle, RuntimeOptions("fp16")).open()


def test_a_plan_that_became_something_else_is_no_fp16_row(rig: Rig) -> None:
    network = rig.bundle.variants[0].file
    rig.write(onnx=network, onnx_sha256=sha256_file(rig.bundle.path / network), executed="fp32")
    with pytest.raises(HnxError, match="would run fp32, fp16 was asked for"):
        TensorRtRuntime(rig.bundle, RuntimeOptions("fp16")).open()


def test_wrong_inputs_are_named(rig: Rig) -> None:
    with TensorRtRuntime(rig.bundle, RuntimeOptions("fp16")) as runtime:
        with pytest.raises(HnxError, match="inputs named image"):
            runtime.infer({"image": np.zeros((1, 3, 128, 256), np.float32)})
        free = dataclasses.replace(rig.bundle.input, shape=("N", 3, 128, 256))
        assert runtime.describe()[0][0] != free
