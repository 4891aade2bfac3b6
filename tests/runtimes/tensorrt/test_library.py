"""Loading TensorRT, and refusing to start it where that could end the process."""

from __future__ import annotations

import sys
import types
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

from hybridnets.errors import ExitCode, HnxError
from runtimes.tensorrt import library, memory
from runtimes.tensorrt.config import PlanConfig, parse_bytes, parse_device
from runtimes.tensorrt.driver import CudaState
from runtimes.tensorrt.library import load, needed_cuda
from tests.runtimes.tensorrt import scenario
from tests.runtimes.tensorrt.fake_device import RTX4090, state
from tests.runtimes.tensorrt.spec_module import spec_module
from tests.runtimes.tensorrt.world import World

NO_DRIVER = CudaState("there is no NVIDIA driver here", "install it")


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TensorRT, whatever is installed."""
    monkeypatch.setattr(library, "_loaded", {})
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_libs", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)


def test_not_installed() -> None:
    for flavor, words in (("trt", '".[tensorrt]"'), ("auto", '".[tensorrt]"'), ("rtx", "pip install tensorrt-rtx")):
        with pytest.raises(HnxError, match=r"is not installed|cannot be loaded") as caught:
            load(flavor)  # type: ignore[arg-type]
        assert caught.value.code == ExitCode.NOTHING_RAN
        assert words in caught.value.fix


def test_installed_but_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise OSError("libnvinfer.so.10: cannot open shared object file\nstack")

    monkeypatch.setattr(library.importlib, "import_module", fail)
    with pytest.raises(HnxError, match="cannot be loaded") as caught:
        load("trt")
    assert caught.value.why == "tensorrt: libnvinfer.so.10: cannot open shared object file"


def test_rtx_is_taken_where_tensorrt_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_libs", types.ModuleType("tensorrt_rtx_libs"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", spec_module("rtx-1.7.1.116", World()))
    found = load("auto")
    assert (found.flavor, found.version, found.typing) == ("rtx", "1.7.1.116", "strong")
    assert load("auto") is load("rtx") is found  # one logger for a process
    monkeypatch.setitem(sys.modules, "tensorrt", spec_module("10.3.0", World()))
    assert (load("trt").flavor, load("trt").typing) == ("trt", "weak")


def test_nothing_is_made_without_a_driver(tmp_path: Path) -> None:
    for version in ("8.5.3.1", "11.4.0.106"):
        module = spec_module(version, World())
        made = scenario.library(module)
        for building in (True, False):
            with pytest.raises(HnxError, match="has no usable CUDA device") as caught:
                made.guard(NO_DRIVER, building=building)
            assert caught.value.code == ExitCode.NOTHING_RAN
        onnx = tmp_path / "x.onnx"
        with pytest.raises(HnxError):
            from runtimes.tensorrt.builder import build

            build(PlanConfig(onnx), made, NO_DRIVER, 1 << 28, b"", lambda *_: True)
        with pytest.raises(HnxError):
            from runtimes.tensorrt.engine import load_engine

            load_engine(made, NO_DRIVER, 0, onnx, object())  # type: ignore[arg-type]
        assert set(module.calls) == {"ILogger.__init__"}  # neither a Builder nor a Runtime was made


def test_rtx_builds_without_a_driver_but_does_not_run() -> None:
    made = scenario.library(spec_module("rtx-1.7.1.116", World()), "rtx")
    made.guard(NO_DRIVER, building=True)
    with pytest.raises(HnxError, match="TensorRT for RTX"):
        made.guard(NO_DRIVER, building=False)


def test_a_driver_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    made = scenario.library(spec_module("11.4.0.106", World()))
    monkeypatch.setattr(library, "needed_cuda", lambda flavor: 13_000)
    made.guard(state(driver_cuda=13_010), building=True)
    with pytest.raises(HnxError, match="no usable CUDA device") as caught:
        made.guard(state(driver_cuda=12_040), building=True)
    assert "supports CUDA 12.4" in caught.value.why
    assert "built for CUDA 13" in caught.value.why
    assert caught.value.code == ExitCode.NOTHING_RAN


def test_nothing_is_made_where_the_driver_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is there, and so is a good plan for it: 11 would return a runtime that ends the process when used."""
    from runtimes.tensorrt.builder import build
    from runtimes.tensorrt.engine import load_engine

    module = spec_module("11.4.0.106", World())
    made = scenario.library(module)
    plan = tmp_path / "x.plan"
    plan.write_bytes(b"fakeplan")
    sidecar = scenario.sidecar(made, plan)
    monkeypatch.setattr(library, "needed_cuda", lambda flavor: 13_000)
    old = state(driver_cuda=12_040)
    for make in (
        lambda: build(PlanConfig(tmp_path / "x.onnx", fp16=True), made, old, 1 << 28, b"", lambda *_: True),
        lambda: load_engine(made, old, 0, plan, sidecar),
    ):
        with pytest.raises(HnxError, match="no usable CUDA device") as caught:
            make()
        assert "the driver is too old" in caught.value.why
        assert caught.value.code == ExitCode.NOTHING_RAN
    assert set(module.calls) == {"ILogger.__init__"}
    load_engine(made, state(driver_cuda=13_000), 0, plan, sidecar)
    assert "Runtime.__init__" in module.calls


def test_needed_cuda_comes_from_the_names_of_the_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(Distribution):
        def __init__(self, name: str) -> None:
            self.name_ = name

        @property
        def metadata(self) -> Any:
            return {"Name": self.name_}

        def read_text(self, filename: str) -> None:
            return None

        def locate_file(self, path: Any) -> Any:
            return path

    names = ["numpy", "tensorrt-cu12-libs", "tensorrt_rtx_cu13_libs"]
    monkeypatch.setattr(library, "distributions", lambda: [Named(name) for name in names])
    assert needed_cuda("trt") == 12_000
    assert needed_cuda("rtx") == 13_000
    names.clear()
    assert needed_cuda("trt") == 0


@pytest.mark.parametrize("kind", ["Builder", "Runtime"])
def test_a_factory_that_returns_nothing_is_a_driver_problem(kind: str) -> None:
    module = spec_module("10.3.0", World())
    made = scenario.library(module)

    def refuse(_: Any) -> None:
        made.log.logger.log(module.ILogger.ERROR, "CUDA initialization failure with error: 35. Please check")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module.answers[f"{kind}.__init__"] = refuse
    with pytest.raises(HnxError, match="cannot start") as caught:
        made.make(kind)
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert "driver is missing or older" in caught.value.why
    module.answers[f"{kind}.__init__"] = lambda _: (_ for _ in ()).throw(TypeError("another one"))
    with pytest.raises(TypeError, match="another one"):
        made.make(kind)


def test_a_failed_build_says_why(tmp_path: Path) -> None:
    world = World()
    module = spec_module("10.3.0", world)
    made = scenario.library(module)
    module.answers["Builder.build_serialized_network"] = lambda *_: None
    for text, fix in (("[E] Could not find any implementation", "--opset"), ("out of memory", "--workspace")):

        def fail(_: Any, text: str = text) -> None:
            made.log.logger.log(module.ILogger.ERROR, text)

        module.answers["Builder.build_serialized_network"] = fail
        with pytest.raises(HnxError, match=r"could not build x\.onnx") as caught:
            scenario.run_build(made, tmp_path / "x.onnx", fp16=True)
        assert text in caught.value.why
        assert fix in caught.value.fix
    with pytest.raises(HnxError) as caught:
        module.answers["Builder.build_serialized_network"] = lambda *_: None
        scenario.run_build(made, tmp_path / "x.onnx", fp16=True, device="dla:0")
    assert "--allow-gpu-fallback" in caught.value.fix


def test_a_plan_that_cannot_be_loaded_where_it_was_built(tmp_path: Path) -> None:
    module = spec_module("10.3.0", World())
    module.answers["Runtime.deserialize_cuda_engine"] = lambda _: None
    with pytest.raises(HnxError, match="cannot load the plan it has just built"):
        scenario.run_build(scenario.library(module), tmp_path / "x.onnx", fp16=True)


def test_boards_without_a_dla_core(tmp_path: Path) -> None:
    module = spec_module("10.3.0", World())
    module.answers["Builder.num_DLA_cores"] = lambda _: 0
    with pytest.raises(HnxError, match="no device dla:0") as caught:
        scenario.run_build(scenario.library(module), tmp_path / "x.onnx", fp16=True, device="dla:0")
    assert caught.value.code == ExitCode.NOTHING_RAN


def test_a_timing_cache_of_another_gpu_is_left_aside(tmp_path: Path) -> None:
    from runtimes.tensorrt.builder import build

    module = spec_module("10.3.0", World())
    made = scenario.library(module)
    module.answers["IBuilderConfig.set_timing_cache"] = lambda _: (
        module.calls.count("IBuilderConfig.set_timing_cache") > 1
    )
    built = build(PlanConfig(tmp_path / "x.onnx", fp16=True), made, state(), 1 << 28, b"old", lambda *_: True)
    assert "timing cache is of another GPU" in built.notes[0]
    assert built.timing_cache == b"fakeplan"
    assert module.calls.count("IBuilderConfig.create_timing_cache") == 2


def test_progress_reaches_us_and_a_no_reaches_tensorrt(tmp_path: Path) -> None:
    from runtimes.tensorrt.builder import build

    module = spec_module("10.3.0", World())
    told: list[tuple[str, int, int]] = []
    monitors: list[Any] = []
    module.answers["Builder.build_serialized_network"] = lambda *_: _drive(monitors, module)
    original = module.IBuilderConfig.__setattr__

    def remember(self: Any, name: str, value: Any) -> None:
        if name == "progress_monitor":
            monitors.append(value)
        original(self, name, value)

    module.IBuilderConfig.__setattr__ = remember

    def report(*step: Any) -> bool:
        told.append(step)
        return step != ("Tactics", 2, 5)

    build(PlanConfig(tmp_path / "x.onnx", fp16=True), scenario.library(module), state(), 1 << 28, b"", report)
    assert [step for step in told if step[0] == "Tactics"] == [
        ("Tactics", 0, 5), ("Tactics", 1, 5), ("Tactics", 2, 5), ("Tactics", 5, 5),
    ]  # fmt: skip


def _drive(monitors: list[Any], module: Any) -> Any:
    """What a builder does with its monitor."""
    monitor = monitors[0]
    monitor.phase_start("Tactics", None, 5)
    assert monitor.step_complete("Tactics", 0) is True
    assert monitor.step_complete("Tactics", 1) is False
    monitor.phase_finish("Tactics")
    return object.__new__(module.IHostMemory)


# -- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 << 30), ("512MiB", 512 << 20), ("1.5g", 1_500_000_000), (" 100 MB ", 10**8)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "2 parsecs", "-1GiB", "1KiB", "1e9", "99999999999GiB", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(HnxError) as caught:
        parse_bytes(text)
    assert caught.value.code == ExitCode.USAGE


def test_devices() -> None:
    assert parse_device("GPU") == ("cuda", 0)
    assert parse_device("dla:1") == ("dla", 1)
    with pytest.raises(HnxError):
        parse_device("npu:0")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fp16": True, "fp32": True}, "--fp16 and --fp32 at once"),
        ({"device": "dla:0", "int8": True}, "--int8 on a DLA core"),
        ({"device": "dla:0"}, "fp32 on a DLA core"),
        ({"device": "dla:0", "fp16": True, "flavor": "rtx"}, "RTX on a DLA core"),
        ({"device": "dla:0", "fp16": True, "batch": (1, 2, 4)}, "Several batch sizes"),
        ({"gpu_fallback": True}, "without a DLA core"),
        ({"opt_level": 6}, "--opt-level 6"),
        ({"batch": (4, 2, 8)}, "Batch sizes 4, 2, 8"),
        ({"batch": (1, 1, 5000)}, "Batch sizes"),
    ],
)
def test_contradictions_are_refused_before_anything_is_loaded(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(HnxError, match=message) as caught:
        PlanConfig(Path("x.onnx"), **settings)
    assert caught.value.code == ExitCode.USAGE


def test_configurations_travel_and_can_be_typed_again() -> None:
    config = PlanConfig(
        Path("x.onnx"), fp16=True, int8=True, timing_cache=Path("c"), batch=(1, 2, 4), version_compatible=True,
        compat="ampere+", flavor="trt", device="cuda:1", opt_level=2,
    )  # fmt: skip
    assert PlanConfig.from_json(config.to_json()) == config
    assert config.precision == "int8"
    assert config.gpu_index == 1
    assert config.command("bundle") == (
        "hnx build-trt bundle --int8 --fp16 --flavor trt --device cuda:1 --min-batch 1 --opt-batch 2 --max-batch 4 "
        "--version-compatible --hardware-compat ampere+"
    )


# -- memory --------------------------------------------------------------------------------------------------------


def test_workspace_from_what_is_free() -> None:
    assert memory.default_workspace(None, False) == 1 << 30
    assert memory.default_workspace(24 << 30, False) == 4 << 30
    assert memory.default_workspace(6 << 30, False) == 3 << 30
    assert memory.default_workspace(6 << 30, True) == 3 << 29
    assert memory.default_workspace(0, True) == 64 << 20


def test_a_build_that_would_not_fit_is_refused() -> None:
    memory.check_memory(50 << 20, None)
    memory.check_memory(50 << 20, 8 << 30)
    with pytest.raises(HnxError, match="Not enough memory") as caught:
        memory.check_memory(50 << 20, 700 << 20)
    assert "700 MiB are free" in caught.value.why


def test_free_memory_of_both_kinds_of_machines() -> None:
    class Driver:
        def retain_primary(self, index: int) -> int:
            return 1

        def release_primary(self, index: int) -> None:
            pass

        def free_memory(self) -> int:
            return 5 << 30

    cpu, gpu = memory.free_bytes(state(), Driver(), 0)  # type: ignore[arg-type]
    assert cpu is not None
    assert gpu == 5 << 30
    assert memory.free_bytes(NO_DRIVER, None, 0)[1] is None
    shared = CudaState("", "", 12_000, (type(RTX4090)(0, "Orin", (8, 7), True, 8 << 30),))
    cpu, gpu = memory.free_bytes(shared, Driver(), 0)  # type: ignore[arg-type]
    assert cpu is not None
    assert gpu is not None
    assert gpu <= cpu  # swap helps the builder, not the GPU
    assert gpu != 5 << 30
