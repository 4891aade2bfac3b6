"""Our builder and runtime against the members and signatures of every supported TensorRT, without any TensorRT."""

from __future__ import annotations

import sys
import types
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hybridnets.errors import ExitCode, HnxError
from runtimes.tensorrt import builder
from runtimes.tensorrt.builder import check_options
from runtimes.tensorrt.config import PlanConfig
from runtimes.tensorrt.library import Capabilities
from tests.runtimes.tensorrt import mutants, scenario
from tests.runtimes.tensorrt.mutants import Mutant
from tests.runtimes.tensorrt.spec_module import spec_module, versions
from tests.runtimes.tensorrt.world import World

VERSIONS = pytest.mark.parametrize("version", versions())


def flavor(version: str) -> str:
    return "rtx" if version.startswith("rtx") else "trt"


@VERSIONS
def test_everything_we_call_exists(version: str, tmp_path: Path) -> None:
    world = World()
    module = spec_module(version, world)
    made = scenario.library(module, flavor(version))
    seen = scenario.whole(made, world, tmp_path)
    assert seen["int8"].plan == b"fakeplan"
    assert [t.name for t in seen["int8"].tensors] == ["images", "boxes"]
    assert seen["int8"].layers[0].precision == "fp16"
    assert seen["int8"].layers_from == "engine inspector"
    assert seen["outputs"].keys() == {"boxes"}
    assert seen["graph"]
    assert seen["phases"][:3] == ["starting", "parsing", "building"]
    named = "node 12 'conv1_quant' (QuantizeLinear)" if made.can.node_names else "node 12"
    assert f"{named}: Assertion failed" in seen["refused"].why
    assert ("Runtime.DLA_core=" in module.calls) == (made.flavor == "trt")
    # index-based bindings, execute_async_v2 and the like never
    assert "IExecutionContext.execute_async_v3" in module.calls
    assert not [call for call in module.calls if "binding" in call or "_v2" in call]


@VERSIONS
def test_precision_flags_are_set_where_they_exist_only(version: str, tmp_path: Path) -> None:
    world = World()
    module = spec_module(version, world)
    made = scenario.library(module, flavor(version))
    onnx = tmp_path / "x.onnx"
    flags: list[str] = []
    module.answers["IBuilderConfig.set_flag"] = lambda flag: flags.append(flag.name)
    module.answers["IBuilderConfig.clear_flag"] = lambda flag: flags.append("-" + flag.name)
    expected = {"fp16": [["FP16"], []], "fp32": [["-TF32"], ["-TF32"]], "int8": [["INT8", "FP16"], []]}
    for precision, (weak, strong) in expected.items():
        world.quantise(precision == "int8")
        world.dtype = "FLOAT" if precision == "fp32" else "HALF"
        flags.clear()
        scenario.run_build(made, onnx, **{precision: True})
        assert flags == (weak if made.typing == "weak" else strong)
    flags.clear()
    world.quantise(True)
    world.dtype = "FLOAT"
    scenario.run_build(made, onnx, int8=True, fp32=True)
    assert flags == (["INT8"] if made.typing == "weak" else [])
    # what a strongly typed version does without Q/DQ nodes is in the file, and asking for something else is refused
    for dtype, asked, fix in (("HALF", "fp32", "leave --fp32 out"), ("FLOAT", "fp16", "float16")):
        world.dtype = dtype
        if made.typing == "weak":
            scenario.run_build(made, onnx, int8=True, **{asked: True})
            continue
        with pytest.raises(HnxError, match=f"x.onnx int8 and {asked}") as caught:
            scenario.run_build(made, onnx, int8=True, **{asked: True})
        assert caught.value.code == ExitCode.USAGE
        assert fix in caught.value.fix


def lacking() -> list[tuple[str, str]]:
    """Versions and the guards they need."""
    return [
        (version, guard)
        for version in versions()
        for guard in scenario.lacking(Capabilities.of(spec_module(version, World())))
    ]


@pytest.mark.parametrize(("version", "guard"), lacking())
def test_every_guard_is_needed(version: str, guard: str, tmp_path: Path) -> None:
    """Mutation: each guard is removed where the version lacks what it guards, and the contract breaks."""
    world = World()
    made = scenario.library(spec_module(version, world), flavor(version))
    with pytest.raises(AttributeError):
        scenario.without_guard(made, guard, world, tmp_path)


def removed() -> list[Any]:
    """Versions, and what in the source guards a call that they do not have."""
    return [
        pytest.param(version, mutant, id=f"{version}-{mutant}")
        for version in versions()
        for mutant in mutants.CAPABILITIES
        if mutant.guard in scenario.lacking(can := Capabilities.of(spec_module(version, World())))
        # a level of a thing that is not there at all is refused with the thing
        and (mutant.guard != "same_cc" or can.hardware_compatibility)
    ]


@pytest.mark.parametrize(("version", "mutant"), removed())
def test_removing_a_guard_from_the_source_breaks_the_contract(
    version: str, mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = types.ModuleType(f"mutant_{mutant.module}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses look their annotations up
    exec(compile(mutant.source(), f"{mutant.module}.py", "exec"), module.__dict__)
    used = {"builder": (scenario, "build"), "network": (builder, "parse"), "engine": (scenario, "load_engine")}
    holder, attribute = used[mutant.module]
    monkeypatch.setattr(holder, attribute, getattr(module, attribute))
    world = World()
    made = scenario.library(spec_module(version, world), flavor(version))
    with pytest.raises(AttributeError):
        scenario.whole(made, world, tmp_path)


def test_every_capability_has_its_guard_removed() -> None:
    assert {mutant.guard for mutant in mutants.CAPABILITIES} == {field.name for field in fields(Capabilities)}


def test_each_guard_is_missing_somewhere() -> None:
    """A guard that no version needs is dead code."""
    has = [Capabilities.of(spec_module(version, World())) for version in versions()]
    for field in fields(Capabilities):
        values = {getattr(can, field.name) for can in has}
        assert values == {True, False}, field.name


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"opt_level": 5}, "--opt-level"),
        ({"version_compatible": True}, "--version-compatible"),
        ({"compat": "ampere+"}, "--hardware-compat"),
    ],
)
def test_options_a_version_lacks_are_refused(settings: dict[str, Any], option: str) -> None:
    old, new = (scenario.library(spec_module(version, World())) for version in ("8.5.3.1", "11.4.0.106"))
    config = PlanConfig(Path("x.onnx"), **settings)
    check_options(config, new)
    with pytest.raises(HnxError, match=option) as caught:
        check_options(config, old)
    assert caught.value.code == ExitCode.USAGE
    assert "8.6" in caught.value.why


@pytest.mark.parametrize("settings", [{"version_compatible": True}, {"compat": "ampere+"}])
def test_rtx_has_the_members_but_not_the_function(settings: dict[str, Any]) -> None:
    made = scenario.library(spec_module("rtx-1.7.1.116", World()), "rtx")
    with pytest.raises(HnxError, match="no plans for other versions") as caught:
        check_options(PlanConfig(Path("x.onnx"), **settings), made)
    assert caught.value.code == ExitCode.USAGE


def test_the_table_refuses_what_a_version_has_not(tmp_path: Path) -> None:
    """The stand-in itself: it must not be more tolerant than the bindings are."""
    module = spec_module("10.3.0", World())
    config = object.__new__(module.IBuilderConfig)
    context = object.__new__(module.IExecutionContext)
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1
    with pytest.raises(AttributeError):
        context.execute_async_v2([1], 2)
    for call in (
        lambda: config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, 1e9),
        lambda: config.set_flag(0),
        lambda: config.create_timing_cache(None),
        lambda: context.set_tensor_address("images", "0x10"),
        lambda: context.execute_async_v3(),
        lambda: context.execute_async_v3(1, 2),
        lambda: context.execute_async_v3(stream=1),
        lambda: module.OnnxParser.parse_from_file(object.__new__(module.OnnxParser), tmp_path),
    ):
        with pytest.raises(TypeError):
            call()
