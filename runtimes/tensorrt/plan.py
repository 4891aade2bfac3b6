"""Plans and what is written beside them: `x.plan`, the bytes TensorRT loads, and `x.plan.json`, the sidecar.

A plan belongs to one version of TensorRT and one kind of GPU; TensorRT's own errors about that name numbers inside the
file, or the process dies. So everything is compared here, before a byte reaches TensorRT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridnets.errors import ExitCode, HnxError, from_os_error, printable
from hybridnets.files import read_json, sha256_file
from runtimes.tensorrt.config import parse_device
from runtimes.tensorrt.driver import Gpu

__all__ = [
    "SCHEMA_VERSION",
    "Here",
    "Sidecar",
    "TensorForm",
    "check",
    "check_file",
    "mismatch",
    "plan_name",
    "read_sidecar",
    "sidecar_path",
]

SCHEMA_VERSION = 1
_KIND = "hnx TensorRT plan"
_NAMES = {"trt": "TensorRT", "rtx": "TensorRT for RTX"}
_MOST_BYTES = 32 << 20  # c3's 987 layers take 0.3 MB


@dataclass(frozen=True)
class TensorForm:
    """An input or output of a plan; -1 stands for a free size."""

    name: str
    mode: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Here:
    """What is about to load a plan."""

    flavor: str
    version: str
    gpu: Gpu | None


@dataclass(frozen=True)
class Sidecar:
    """All that is known about a plan.

    Attributes:
        plan, bytes, sha256: file name and content.
        flavor, version, typing: `trt` or `rtx`, the TensorRT that built it, `weak` or `strong`.
        gpu, capability: name and compute capability it was built on; "" and None for plans built without a GPU.
        onnx, onnx_sha256: the network it was built from.
        asked, executed: precisions asked for, and what most of its convolutions run ("" when TensorRT does not say).
        version_compatible, compat: wider use it was built for.
        tensors: inputs and outputs.
        command: what to type to build it again.
        summary: kind of layer -> precision -> number of layers.
        layers, layers_from: each layer, and who said so: `engine inspector` or `builder log`.
        options, timing_s, machine: of the build.
    """

    plan: str
    bytes: int
    sha256: str
    flavor: str
    version: str
    typing: str
    gpu: str
    capability: tuple[int, int] | None
    onnx: str
    onnx_sha256: str
    asked: tuple[str, ...]
    executed: str
    version_compatible: bool
    compat: str
    tensors: tuple[TensorForm, ...]
    command: str
    summary: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    layers: Sequence[Mapping[str, Any]] = ()
    layers_from: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    timing_s: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sm(self) -> str:
        """`sm_87`, or "" for plans of no GPU in particular."""
        return "" if self.capability is None else f"sm_{self.capability[0]}{self.capability[1]}"

    @property
    def dla_core(self) -> int | None:
        """The DLA core it was built for, None for the GPU."""
        device = self.options.get("device")
        kind, index = parse_device(device) if isinstance(device, str) else ("cuda", 0)
        return index if kind == "dla" else None

    def to_json(self) -> dict[str, Any]:
        """JSON form, read by `read_sidecar`."""
        return {
            "kind": _KIND,
            "schema_version": SCHEMA_VERSION,
            "plan": {"file": self.plan, "bytes": self.bytes, "sha256": self.sha256},
            "tensorrt": {"flavor": self.flavor, "version": self.version, "typing": self.typing},
            "gpu": {"name": self.gpu, "compute_capability": self.capability and list(self.capability)},
            "onnx": {"file": self.onnx, "sha256": self.onnx_sha256},
            "precision": {"asked": list(self.asked), "executed": self.executed, "layers": self.summary},
            "portability": {"version_compatible": self.version_compatible, "hardware": self.compat},
            "tensors": [
                {"name": t.name, "mode": t.mode, "dtype": t.dtype, "shape": list(t.shape)} for t in self.tensors
            ],
            "command": self.command,
            "options": self.options,
            "timing_s": self.timing_s,
            "machine": self.machine,
            "layers_from": self.layers_from,
            "layers": list(self.layers),
        }


def plan_name(stem: str, precision: str, flavor: str, version: str, device: str) -> str:
    """File name of a plan: what it is tied to is in it, so that plans of several machines can lie side by side.

    >>> plan_name("hybridnets_384x640", "fp16", "trt", "10.3.0", "sm_87")
    'hybridnets_384x640-fp16-trt10.3.0-sm_87.plan'
    """
    return f"{stem}-{precision}-{flavor}{version}-{device}.plan"


def sidecar_path(plan: Path) -> Path:
    """`x.plan.json` of `x.plan`."""
    return plan.with_name(plan.name + ".json")


def read_sidecar(plan: Path) -> Sidecar:
    """What is written beside a plan.

    Raises:
        HnxError: it is missing, not JSON, of a newer form, or a value has the wrong type.
    """
    path = sidecar_path(plan)
    fix = "build the plan again: hnx build-trt"
    if not path.is_file():
        raise HnxError(
            f"Cannot use {plan}",
            why=f"{path.name} is missing, and without it nobody can tell which TensorRT and GPU the plan is for",
            fix=f"copy it beside the plan, or {fix}",
        )
    value = read_json(path, limit=_MOST_BYTES)
    if not isinstance(value, dict) or value.get("kind") != _KIND:
        raise HnxError(f"Cannot use {path}", why="it is not the sidecar of a plan", fix=fix)
    if value.get("schema_version") != SCHEMA_VERSION:
        raise HnxError(
            f"Cannot use {path}",
            why=f"its schema version is {value.get('schema_version')}, this hnx reads {SCHEMA_VERSION}",
            fix=f"update hnx, or {fix}",
        )
    try:
        return _parsed(value)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise HnxError(
            f"Cannot use {path}", why=f"a value is missing or has the wrong form ({error!r})", fix=fix
        ) from (error)


def _parsed(value: dict[str, Any]) -> Sidecar:
    plan, library, gpu, onnx = value["plan"], value["tensorrt"], value["gpu"], value["onnx"]
    precision, portability = value["precision"], value["portability"]
    capability = gpu["compute_capability"]
    if library["flavor"] not in _NAMES:
        raise ValueError(f"flavor {library['flavor']!r}")
    return Sidecar(
        plan=_text(plan["file"]),
        bytes=int(plan["bytes"]),
        sha256=_text(plan["sha256"]),
        flavor=library["flavor"],
        version=_text(library["version"]),
        typing=_text(library["typing"]),
        gpu=_text(gpu["name"]),
        capability=None if capability is None else (int(capability[0]), int(capability[1])),
        onnx=_text(onnx["file"]),
        onnx_sha256=_text(onnx["sha256"]),
        asked=tuple(map(_text, precision["asked"])),
        executed=_text(precision["executed"]),
        version_compatible=portability["version_compatible"] is True,
        compat=_text(portability["hardware"]),
        tensors=tuple(
            TensorForm(_text(t["name"]), _text(t["mode"]), _text(t["dtype"]), tuple(int(v) for v in t["shape"]))
            for t in value["tensors"]
        ),
        command=_text(value["command"]),
        summary={
            _text(kind): {_text(name): int(count) for name, count in counts.items()}
            for kind, counts in precision["layers"].items()
        },
        layers=tuple(dict(layer) for layer in value["layers"]),
        layers_from=_text(value["layers_from"]),
        options=dict(value["options"]),
        timing_s={_text(key): float(seconds) for key, seconds in value["timing_s"].items()},
        machine=dict(value["machine"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise ValueError(f"{str(value)[:80]!r} is not a text")
    return value


def mismatch(sidecar: Sidecar, here: Here) -> str:
    """Why a plan cannot run here; "" when it can."""
    built = f"{_NAMES[sidecar.flavor]} {sidecar.version}" + (f" on {sidecar.sm} ({sidecar.gpu})" if sidecar.sm else "")
    this = f"{_NAMES[here.flavor]} {here.version}" + (f" on {here.gpu.sm} ({here.gpu.name})" if here.gpu else "")
    sentence = f"built with {built}, this is {this}"
    if sidecar.flavor != here.flavor:
        return sentence
    if not _version_fits(sidecar, here.version):
        return sentence
    if here.gpu is not None and not _gpu_fits(sidecar, here.gpu):
        return sentence if sidecar.sm else f"{sentence}; it runs on sm_75 and later"
    return ""


def _version_fits(sidecar: Sidecar, version: str) -> bool:
    if sidecar.version == version:
        return True
    # TensorRT's promise from 8.6 on: an older version-compatible plan on a newer runtime, never the reverse
    return sidecar.version_compatible and _numbers(sidecar.version) <= _numbers(version)


def _gpu_fits(sidecar: Sidecar, gpu: Gpu) -> bool:
    if sidecar.capability is None:
        return gpu.capability >= (7, 5)  # RTX without a GPU: compiled for the card it finds, Turing and later
    if sidecar.compat == "ampere+":
        return gpu.capability >= (8, 0)
    return gpu.capability == sidecar.capability


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def check(plan: Path, sidecar: Sidecar, here: Here) -> None:
    """Refuse a plan that cannot run here, or is not the file that was built.

    Raises:
        HnxError: another TensorRT or GPU (exit code 4); truncated or changed (exit code 1).
    """
    if problem := mismatch(sidecar, here):
        raise HnxError(
            f"Cannot use {plan.name} here",
            why=problem,
            fix=f"rebuild it on this machine: {printable(sidecar.command)}",
            code=ExitCode.NOTHING_RAN,
        )
    check_file(plan, sidecar)


def check_file(plan: Path, sidecar: Sidecar) -> None:
    """Compare a plan with its recorded size and SHA-256.

    Raises:
        HnxError: it cannot be read, is truncated, or is not the file that was built.
    """
    try:
        size = plan.stat().st_size
    except OSError as error:
        raise from_os_error(f"Cannot read {plan}", error) from error
    fix = f"copy it again, or rebuild it: {printable(sidecar.command)}"
    if size != sidecar.bytes:
        raise HnxError(
            f"Plan {plan} is damaged",
            why=f"it has {size} bytes, {sidecar.bytes} were written: it is truncated or another file",
            fix=fix,
        )
    if sha256_file(plan) != sidecar.sha256:
        raise HnxError(
            f"Plan {plan} has changed since it was built",
            why="its SHA-256 is not the recorded one: it is damaged, or somebody replaced it",
            fix=fix,
        )
