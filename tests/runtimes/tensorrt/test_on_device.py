"""On a real GPU with a real TensorRT: what no stand-in can show (pytest -m "gpu and trt")."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from hybridnets.bundle import Bundle, open_bundle
from hybridnets.data import read_demo_frame
from hybridnets.difference import difference
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime
from runtimes.tensorrt.driver import probe
from runtimes.tensorrt.execution import PlanContext
from runtimes.tensorrt.plan import read_sidecar
from runtimes.tensorrt.runtime import TensorRtRuntime

ROOT = Path(__file__).parents[3]
LIMITS = {"fp32": 1e-4, "fp16": 2e-2}

pytestmark = [pytest.mark.gpu, pytest.mark.trt]


@pytest.fixture(scope="module")
def built(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with a plan of each precision, built on this device."""
    folder = tmp_path_factory.mktemp("device") / "bundle"
    shutil.copytree(bundle_path, folder)
    for word in ("--fp32", "--fp16"):
        command = [sys.executable, "-m", "hnx", "build-trt", str(folder), word, "--flavor", "trt"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, done.stderr
    return open_bundle(folder)


def test_the_driver_names_its_devices() -> None:
    state = probe()
    assert not state.problem
    assert state.driver_cuda >= 11_040
    assert all(gpu.name and gpu.capability >= (5, 0) and gpu.memory for gpu in state.gpus)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_same_numbers_as_onnx_runtime(precision: str, built: Bundle) -> None:
    tensor = built.preprocessor()(read_demo_frame())[0].copy()
    with open_runtime("onnxruntime", built) as runtime:
        expected = {name: array.copy() for name, array in runtime.infer({built.input.name: tensor}).items()}
    with open_runtime("tensorrt", built, RuntimeOptions(precision)) as runtime:
        for _ in range(5):
            outputs = runtime.infer({built.input.name: tensor})
        for name, array in expected.items():
            assert difference(outputs[name], array).rel_l2 < LIMITS[precision], name
        assert runtime.execution.precision == precision
        assert runtime.execution.details["layers_from"] == "engine inspector"


def test_a_graph_computes_what_plain_launches_do(built: Bundle) -> None:
    tensor = built.preprocessor()(read_demo_frame())[0].copy()
    runtime = TensorRtRuntime(built, RuntimeOptions("fp16"))
    with runtime:
        assert runtime.execution.details["cuda_graph"], runtime.execution.details["no_graph_because"]
        assert runtime._engine is not None
        assert runtime._device is not None
        plain = PlanContext(runtime._engine, runtime._device, use_graph=False)
        graph = PlanContext(runtime._engine, runtime._device)
        one = {name: array.copy() for name, array in plain.infer({built.input.name: tensor}).items()}
        for image in (np.zeros_like(tensor), tensor):
            two = graph.infer({built.input.name: image})
        for name, array in one.items():
            np.testing.assert_array_equal(two[name], array)
        assert graph.times is not None
        assert graph.times.compute > 0
        plain.close()
        graph.close()


def test_two_threads_do_not_mix_their_results(built: Bundle) -> None:
    tensor = built.preprocessor()(read_demo_frame())[0].copy()
    failures: list[str] = []
    with open_runtime("tensorrt", built, RuntimeOptions("fp16")) as runtime:
        expected = {name: array.copy() for name, array in runtime.infer({built.input.name: tensor}).items()}

        def work(image: np.ndarray, compare: bool) -> None:
            context = runtime.context()
            for _ in range(20):
                outputs = context.infer({built.input.name: image})
                if compare and any(difference(outputs[name], expected[name]).rel_l2 > 1e-6 for name in expected):
                    failures.append("results of two threads were mixed up")

        threads = [
            threading.Thread(target=work, args=(tensor, True)),
            threading.Thread(target=work, args=(np.zeros_like(tensor), False)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert not failures


def test_a_damaged_plan_is_a_message_and_not_a_crash(built: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(built.path, tmp_path / "bundle"))
    for plan in folder.glob("*fp16*.plan"):
        assert read_sidecar(plan).layers_from == "engine inspector"
        content = plan.read_bytes()
        plan.write_bytes(content[: len(content) // 2])
    with pytest.raises(HnxError, match="damaged") as caught:
        open_runtime("tensorrt", open_bundle(folder), RuntimeOptions("fp16"))
    assert caught.value.code == ExitCode.FAILED


def test_opening_ten_times_leaks_no_memory(built: Bundle) -> None:
    from runtimes.tensorrt.driver import load_driver

    driver = load_driver()
    assert driver is not None
    driver.retain_primary(0)
    free = []
    for _ in range(10):
        with open_runtime("tensorrt", built, RuntimeOptions("fp16")) as runtime:
            runtime.infer(runtime.warm_input())
        driver.retain_primary(0)
        free.append(driver.free_memory())
    assert min(free[5:]) > free[1] - (64 << 20)
