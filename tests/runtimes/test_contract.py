"""One contract, every runtime of the registry."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from hybridnets.bundle import open_bundle
from hybridnets.data import read_demo_frame
from hybridnets.difference import difference
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import Execution, Probe, Runtime, RuntimeOptions
from runtimes.opening import open_runtime
from runtimes.registry import REGISTRY, RuntimeEntry, probe, runtime_class

# those of a GPU run on one: pytest -m "gpu and not trt" tests/runtimes/test_contract.py
MARKS = {"onnxruntime-tensorrt": [pytest.mark.gpu, pytest.mark.trt]}
ROWS = pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=MARKS.get(row.name, [pytest.mark.gpu] if row.gpu else []))
        for row in REGISTRY
        if row.name != "tensorrt"  # it needs a plan built on the machine: tests/runtimes/tensorrt
    ],
)
# TensorRT's own default is TF32, and ONNX Runtime has no option against it
LIMITS = {"onnxruntime-tensorrt": 1e-2}


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    """A board may have one of the GPU's runtimes and not the other; those of a CPU are never left out."""
    row = getattr(request.node, "callspec", None) and request.node.callspec.params.get("row")
    if row is not None and row.gpu and (reason := probe(row).reason):
        pytest.skip(f"{row.name}: {reason}")


@pytest.fixture(scope="module")
def tensor(bundle_path: Path) -> np.ndarray:
    """A real frame as network input."""
    return open_bundle(bundle_path).preprocessor()(read_demo_frame())[0].copy()


@pytest.fixture(scope="module")
def reference(bundle_path: Path, tensor: np.ndarray) -> dict[str, np.ndarray]:
    """PyTorch's outputs."""
    with open_runtime("torch", open_bundle(bundle_path), RuntimeOptions(threads=1)) as runtime:
        return {name: array.copy() for name, array in runtime.infer({"input": tensor}).items()}


@ROWS
def test_registry_row_agrees_with_its_class(row: RuntimeEntry) -> None:
    cls = runtime_class(row)
    assert cls.name == row.name
    assert cls.extra == row.extra
    assert tuple(cls.stored) == row.precisions
    state = probe(row)
    assert state.available, state.reason
    assert set(state.precisions) == set(row.precisions)
    assert state.version


@ROWS
def test_same_numbers_as_pytorch(
    row: RuntimeEntry, bundle_path: Path, tensor: np.ndarray, reference: dict[str, np.ndarray]
) -> None:
    with open_runtime(row.name, open_bundle(bundle_path), RuntimeOptions(threads=1)) as runtime:
        outputs = runtime.infer({"input": tensor})
        assert outputs.keys() == reference.keys()
        for name, array in outputs.items():
            assert array.dtype == np.float32
            assert difference(array, reference[name]).rel_l2 < LIMITS.get(row.name, 1e-4), name
        execution = runtime.execution
        assert execution.precision == "fp32"
        assert execution.threads == 1
        assert row.name.split("-")[0] in execution.library
        inputs, described = runtime.describe()
        assert inputs[0].shape == (1, 3, 128, 256)
        assert {spec.name for spec in described} == outputs.keys()


@ROWS
def test_inputs_are_checked(row: RuntimeEntry, bundle_path: Path, tensor: np.ndarray) -> None:
    with open_runtime(row.name, open_bundle(bundle_path)) as runtime:
        for inputs, message in (
            ({}, "inputs named nothing"),
            ({"image": tensor}, "inputs named image"),
            ({"input": tensor, "more": tensor}, "inputs named"),
            ({"input": tensor[:, :, :64]}, "'input' is float32 1x3x64x256"),
            ({"input": tensor[0]}, "'input' is float32 3x128x256"),
            ({"input": tensor.astype(np.float64)}, "'input' is float64"),
        ):
            with pytest.raises(HnxError, match=message) as caught:
                runtime.infer(inputs)
            assert "input: float32 1x3x128x256" in caught.value.why


@ROWS
def test_contexts_run_side_by_side(
    row: RuntimeEntry, bundle_path: Path, reference: dict[str, np.ndarray], tensor: np.ndarray
) -> None:
    failures: list[str] = []
    with open_runtime(row.name, open_bundle(bundle_path), RuntimeOptions(threads=1, streams=2)) as runtime:

        def work(value: np.ndarray, expected: dict[str, np.ndarray] | None) -> None:
            context = runtime.context()
            for _ in range(3):
                outputs = context.infer({"input": value})
                limit = LIMITS.get(row.name, 1e-4)
                if expected and any(difference(outputs[n], expected[n]).rel_l2 > limit for n in expected):
                    failures.append("outputs of two contexts were mixed up")

        threads = [
            threading.Thread(target=work, args=(tensor, reference)),
            threading.Thread(target=work, args=(np.zeros_like(tensor), None)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures


@ROWS
def test_closing_twice_and_using_after(row: RuntimeEntry, bundle_path: Path, tensor: np.ndarray) -> None:
    runtime = open_runtime(row.name, open_bundle(bundle_path))
    assert runtime.open() is runtime
    context = runtime.context()
    runtime.close()
    runtime.close()
    for call in (runtime.infer, context.infer):
        with pytest.raises(HnxError, match="is closed, it is not open any more"):
            call({"input": tensor})
    with pytest.raises(HnxError, match="is not open"):
        _ = runtime.execution


@ROWS
def test_a_broken_network_is_one_clear_error(row: RuntimeEntry, bundle_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle_path, tmp_path / "bundle"))
    bundle = open_bundle(folder)
    for name in (bundle.variants[0].file, "weights.safetensors"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(HnxError) as caught:
        open_runtime(row.name, bundle)
    assert "\n" not in caught.value.what
    assert caught.value.fix


@ROWS
def test_unsupported_precision_says_what_runs(row: RuntimeEntry, bundle_path: Path) -> None:
    with pytest.raises(HnxError, match="int8") as caught:
        open_runtime(row.name, open_bundle(bundle_path), RuntimeOptions("int8"))
    assert "fp32" in caught.value.why


@ROWS
def test_only_torch_compiles(row: RuntimeEntry, bundle_path: Path) -> None:
    bundle, options = open_bundle(bundle_path), RuntimeOptions(compile=True)
    if row.name.startswith("torch"):
        assert runtime_class(row)(bundle, options).options.compile
        return
    with pytest.raises(HnxError, match="nothing to compile") as caught:
        open_runtime(row.name, bundle, options)
    assert caught.value.code == ExitCode.USAGE


def test_torch_needs_the_weights(bundle_path: Path) -> None:
    import dataclasses

    bundle = dataclasses.replace(open_bundle(bundle_path), weights=None)
    with pytest.raises(HnxError, match="--no-weights"):
        open_runtime("torch", bundle)


class Fake(Runtime):
    """Says that it ran something else."""

    name = "fake"
    extra = ""
    executed = "fp32"
    problem = ""

    @classmethod
    def probe(cls) -> Probe:
        return Probe(version="1", precisions={"fp32": "", "bf16": cls.problem})

    stored = {"fp32": "fp32", "bf16": "fp32"}  # noqa: RUF012

    def _open(self) -> Execution:
        return Execution(self.executed, "CPU", 1, "fake 1")

    def _infer(self, state: object, inputs: object) -> dict[str, np.ndarray]:
        return {}

    def _close(self) -> None:
        pass


def test_a_silent_fallback_is_an_error(bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    with pytest.raises(HnxError, match="would run fp32, bf16 was asked for") as caught:
        Fake(bundle, RuntimeOptions("bf16")).open()
    assert caught.value.code == ExitCode.NOTHING_RAN


def test_a_precision_this_machine_lacks_is_refused_before_loading(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "problem", "no native bf16")
    with pytest.raises(HnxError, match="no native bf16") as caught:
        Fake(open_bundle(bundle_path), RuntimeOptions("bf16"))
    assert caught.value.code == ExitCode.NOTHING_RAN
