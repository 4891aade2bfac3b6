"""One use of the whole package, run on a module of any TensorRT: a build, a load, inferences, and a refused network.

The module is a table (`spec_module`) or NVIDIA's real bindings on stand-in native libraries (`standin`); a `World`
tells both what a small network looks like.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import sha256_file
from runtimes.tensorrt.builder import Built, build
from runtimes.tensorrt.config import PlanConfig
from runtimes.tensorrt.engine import load_engine
from runtimes.tensorrt.execution import PlanContext
from runtimes.tensorrt.library import Capabilities, Library, adopt
from runtimes.tensorrt.plan import Sidecar
from tests.runtimes.tensorrt.fake_device import RTX4090, FakeDevice, state
from tests.runtimes.tensorrt.world import SHAPE, World

Settings = dict[str, Any]
# guard of `Capabilities` -> the options that lead to the call it guards
GUARDS: dict[str, dict[str, Any]] = {
    "explicit_batch": {"fp16": True},
    "precision_flags": {"fp16": True},
    "progress_monitor": {"fp16": True},
    "optimization_level": {"fp16": True, "opt_level": 3},
    "hardware_compatibility": {"fp16": True, "compat": "ampere+"},
    "same_cc": {"fp16": True, "compat": "same-cc"},
    "version_compatible": {"fp16": True, "version_compatible": True},
    "node_names": {"fp16": True},
}
# options that not every TensorRT has
OPTIONS: dict[str, Settings] = {
    "optimization_level": {"opt_level": 3},
    "version_compatible": {"version_compatible": True},
    "hardware_compatibility": {"compat": "ampere+"},
    "same_cc": {"compat": "same-cc"},
}


def library(trt: Any, flavor: str = "trt", **capabilities: bool) -> Library:
    """The module, with capabilities overruled: a guard that is removed."""
    made = adopt(trt, flavor)
    return dataclasses.replace(made, can=dataclasses.replace(made.can, **capabilities))


def everything(made: Library) -> Settings:
    """All options that a TensorRT has."""
    can = made.can
    if made.flavor == "rtx":
        return {"fp16": True, "opt_level": 3}
    chosen: Settings = {"device": "dla:0", "gpu_fallback": True, "fp16": True, "batch": (1, 1, 1)}
    if can.optimization_level:
        chosen["opt_level"] = 3
    if can.version_compatible:
        chosen["version_compatible"] = True
    if can.hardware_compatibility:
        chosen["compat"] = "same-cc" if can.same_cc else "ampere+"
    return chosen


def run_build(made: Library, onnx: Path, **settings: Any) -> tuple[Built, list[str]]:
    """A build, and the phases it told."""
    phases: list[str] = []

    def report(phase: str, done: int, total: int) -> bool:
        phases.append(phase)
        return True

    config = PlanConfig(onnx, **settings)
    return build(config, made, state(), 256 << 20, b"", report), phases


def run_inference(made: Library, content: bytes, folder: Path, **device: Any) -> tuple[dict[str, Any], PlanContext]:
    """Load a plan with its sidecar, and infer three times, the last time with another batch."""
    plan = folder / "x.plan"
    plan.write_bytes(content)
    options = {"device": "cuda:0" if made.flavor == "rtx" else "dla:1"}
    engine = load_engine(made, state(), 0, plan, sidecar(made, plan, options=options))
    context = PlanContext(engine, FakeDevice(**device))
    image = np.arange(np.prod(SHAPE), dtype=np.float16).reshape(SHAPE)
    outputs = {}
    for _ in range(2):
        outputs = context.infer({"images": image})
    return outputs, context


def sidecar(made: Library, plan: Path, **changes: Any) -> Sidecar:
    """What is written beside a plan of this library and an RTX 4090."""
    values: dict[str, Any] = {
        "plan": plan.name,
        "bytes": plan.stat().st_size,
        "sha256": sha256_file(plan),
        "flavor": made.flavor,
        "version": made.version,
        "typing": made.typing,
        "gpu": RTX4090.name,
        "capability": RTX4090.capability,
        "onnx": "x.onnx",
        "onnx_sha256": "0" * 64,
        "asked": ("fp16",),
        "executed": "fp16",
        "version_compatible": True,
        "compat": "none",
        "tensors": (),
        "command": "hnx build-trt x.onnx --fp16",
    }
    return Sidecar(**{**values, **changes})


def whole(made: Library, world: World, folder: Path) -> dict[str, Any]:
    """Everything; returns what was seen.

    Raises:
        AttributeError, TypeError: a call that this TensorRT does not have, or not with these arguments.
    """
    onnx = folder / "x.onnx"
    onnx.write_bytes(b"not read by a stand-in")
    seen: dict[str, Any] = {}
    seen["all options"] = run_build(made, onnx, **everything(made))[0]
    seen["not there"] = [option for option in OPTIONS if not _takes(made, onnx, **OPTIONS[option])]
    world.free_batch = True
    seen["free batch"] = run_build(made, onnx, fp16=True, batch=(1, 2, 4))[0]
    world.free_batch = False
    world.dtype = "FLOAT"
    seen["fp32"] = run_build(made, onnx)[0]
    world.dtype = "HALF"
    world.quantise(True)
    seen["int8"], seen["phases"] = run_build(made, onnx, int8=True)
    seen["outputs"], context = run_inference(made, seen["int8"].plan, folder)
    seen["graph"], seen["times"] = context.graph, context.times
    context.close()
    world.accepts = False
    try:
        run_build(made, onnx, int8=True)
    except HnxError as error:
        seen["refused"] = error
    world.accepts = True
    return seen


def _takes(made: Library, onnx: Path, **settings: Any) -> bool:
    """An option works, or is refused before a call is made that this TensorRT does not have."""
    try:
        run_build(made, onnx, fp16=True, **settings)
    except HnxError as error:
        if error.code != ExitCode.USAGE:
            raise
        return False
    return True


def lacking(can: Capabilities) -> list[str]:
    """Guards whose calls a TensorRT does not have."""
    return [field.name for field in dataclasses.fields(can) if not getattr(can, field.name)]


def without_guard(made: Library, guard: str, world: World, folder: Path) -> None:
    """Do what the package would do if it did not ask for a capability first.

    Raises:
        AttributeError: as it must.
    """
    can = dataclasses.replace(made.can, **{guard: True})
    if guard == "same_cc":
        can = dataclasses.replace(can, hardware_compatibility=True)
    mutant = dataclasses.replace(made, can=can)
    world.quantise(False)
    world.accepts = guard != "node_names"
    try:
        run_build(mutant, folder / "x.onnx", **GUARDS[guard])
    finally:
        world.accepts = True
