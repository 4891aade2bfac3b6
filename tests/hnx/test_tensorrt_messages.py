"""What a user is told where TensorRT cannot run: one message each, exit code 4 or 1, and TensorRT is never touched."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hnx.__main__ import main
from hybridnets.bundle import open_bundle
from hybridnets.errors import ExitCode
from hybridnets.files import sha256_file
from runtimes.tensorrt import driver, library
from runtimes.tensorrt import runtime as runtime_module
from runtimes.tensorrt.driver import CudaState
from runtimes.tensorrt.plan import sidecar_path
from tests.runtimes.tensorrt.fake_device import state
from tests.runtimes.tensorrt.test_runtime import Rig

NO_DRIVER = CudaState("there is no NVIDIA driver here (libcuda.so.1)", "install the NVIDIA driver")
Change = Callable[[Rig, pytest.MonkeyPatch], None]
load = library.load


@pytest.fixture
def rig(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A bundle with a plan that runs here, before something is changed."""
    monkeypatch.chdir(tmp_path)
    return Rig(open_bundle(shutil.copytree(bundle_path, tmp_path / "bundle")), monkeypatch)


def no_tensorrt(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(library, "_loaded", {})
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_libs"):
        patch.setitem(sys.modules, name, None)
    patch.setattr(runtime_module, "load", load)
    patch.setattr(library, "load", load)


def broken_tensorrt(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    no_tensorrt(rig, patch)
    folder = rig.bundle.path.parent / "site"
    folder.mkdir()
    (folder / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')\n")
    patch.syspath_prepend(folder)
    patch.delitem(sys.modules, "tensorrt")


def no_cuda(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    rig.machine = NO_DRIVER


def old_driver(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    rig.machine = state(driver_cuda=12_040)
    patch.setattr(library, "needed_cuda", lambda flavor: 13_000)


def plan_with(**changes: object) -> Change:
    def change(rig: Rig, patch: pytest.MonkeyPatch) -> None:
        network = rig.bundle.variants[0].file
        known = {"onnx": network, "onnx_sha256": sha256_file(rig.bundle.path / network), "version_compatible": False}
        rig.write(**{**known, **changes})

    return change


def truncated(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    rig.plan.write_bytes(rig.plan.read_bytes()[:3])


def tampered(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    content = bytearray(rig.plan.read_bytes())
    content[2] ^= 1
    rig.plan.write_bytes(content)


def no_sidecar(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    sidecar_path(rig.plan).unlink()


def damaged_sidecar(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    path = sidecar_path(rig.plan)
    path.write_text(path.read_text()[:200])


def no_plan(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    rig.plan.unlink()
    no_sidecar(rig, patch)


def other_weights(rig: Rig, patch: pytest.MonkeyPatch) -> None:
    plan_with(onnx_sha256="0" * 64)(rig, patch)


CASES: list[tuple[Change, ExitCode, str]] = [
    (no_tensorrt, ExitCode.NOTHING_RAN, "TensorRT is not installed"),
    (broken_tensorrt, ExitCode.NOTHING_RAN, "tensorrt: libnvinfer.so.10: cannot open shared object file"),
    (no_cuda, ExitCode.NOTHING_RAN, "no usable CUDA device: there is no NVIDIA driver here"),
    (old_driver, ExitCode.NOTHING_RAN, "supports CUDA 12.4, this TensorRT is built for CUDA 13: the driver is too old"),
    (
        plan_with(version="10.3.0"),
        ExitCode.NOTHING_RAN,
        "built with TensorRT 10.3.0 on sm_89 (NVIDIA GeForce RTX 4090), this is TensorRT 10.13.3.9 on sm_89",
    ),
    (
        plan_with(capability=(8, 7), gpu="Orin"),
        ExitCode.NOTHING_RAN,
        "on sm_87 (Orin), this is TensorRT 10.13.3.9 on sm_89",
    ),
    (plan_with(flavor="rtx"), ExitCode.NOTHING_RAN, "built with TensorRT for RTX"),
    (no_plan, ExitCode.NOTHING_RAN, "has no fp16 plan"),
    (truncated, ExitCode.FAILED, "it has 3 bytes, 8 were written: it is truncated or another file"),
    (tampered, ExitCode.FAILED, "its SHA-256 is not the recorded one: it is damaged, or somebody replaced it"),
    (no_sidecar, ExitCode.FAILED, "tell which TensorRT and GPU the plan is for"),
    (damaged_sidecar, ExitCode.FAILED, "net-fp16.plan.json"),
    (other_weights, ExitCode.FAILED, "the network beside it has changed since the plan was built"),
]
NAMES = ["-".join([change.__qualname__.split(".")[0], str(number)]) for number, (change, _, _) in enumerate(CASES)]


@pytest.mark.parametrize(("change", "code", "words"), CASES, ids=NAMES)
def test_running_a_plan(
    change: Change,
    code: ExitCode,
    words: str,
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(rig, monkeypatch)
    bundle = str(rig.bundle.path)
    for command in (
        ["infer", "--bundle", bundle, "--runtime", "tensorrt", "--precision", "fp16"],
        ["compare", bundle, "--runtime", "tensorrt:fp16,onnxruntime", "--frames", "1"],
    ):
        assert main(command) == code
        error = capsys.readouterr().err
        assert words in " ".join(error.split())
        assert error.count("hnx: ") == 1
        assert "fix: " in error
        assert "Traceback" not in error
    # TensorRT never saw a byte
    assert "Runtime.__init__" not in rig.trt.calls


@pytest.mark.parametrize(("change", "code", "words"), CASES[:4], ids=NAMES[:4])
def test_building_one(
    change: Change,
    code: ExitCode,
    words: str,
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(library, "load", lambda flavor="auto": rig.library)
    monkeypatch.setattr(driver, "probe", lambda: rig.machine)
    change(rig, monkeypatch)
    rig.plan.unlink()
    assert main(["build-trt", str(rig.bundle.path), "--fp16"]) == code
    error = capsys.readouterr().err
    assert words.partition(": ")[2] in " ".join(error.split())
    assert error.count("hnx: ") == 1
    assert "Traceback" not in error
    assert not list(rig.bundle.path.glob("*.plan"))
    assert "Builder.__init__" not in rig.trt.calls


def test_the_same_plan_runs_where_nothing_is_wrong(rig: Rig, tmp_path: Path) -> None:
    words = ["--runtime", "tensorrt", "--precision", "fp16", "--save-json", "--output", str(tmp_path / "out")]
    assert main(["infer", "--bundle", str(rig.bundle.path), *words]) == 0
    assert "Runtime.__init__" in rig.trt.calls
