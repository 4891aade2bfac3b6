"""What to build: every option of `hnx build-trt`, checked before anything expensive happens."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from hybridnets.errors import ExitCode, HnxError

__all__ = ["Compat", "Flavor", "PlanConfig", "parse_bytes", "parse_device"]

Flavor = Literal["auto", "trt", "rtx"]
Compat = Literal["none", "ampere+", "same-cc"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
# below this nearly every convolution of the network loses its fast kernels; above it is a typing error
_LEAST_WORKSPACE, _MOST_WORKSPACE = 16 << 20, 1 << 40
_MOST_BATCH = 1024


def parse_bytes(text: str) -> int:
    """A size such as `2GiB`, `512M` or `1.5g` in bytes.

    Raises:
        HnxError: not a size, or one no workspace can have (exit code 2).

    >>> parse_bytes("2GiB")
    2147483648
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([kmg]i?|)b?\s*", text.lower())
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if not _LEAST_WORKSPACE <= size <= _MOST_WORKSPACE:
        raise HnxError(
            f"{text!r} is not a workspace size",
            why="it must be between 16MiB and 1TiB",
            fix="for example --workspace 2GiB",
            code=ExitCode.USAGE,
        )
    return size


def parse_device(text: str) -> tuple[Literal["cuda", "dla"], int]:
    """`cuda:0` or `dla:1` as kind and index.

    Raises:
        HnxError: anything else (exit code 2).

    >>> parse_device("dla:1")
    ('dla', 1)
    """
    match = re.fullmatch(r"(cuda|gpu|dla)(?::(\d{1,2}))?", text.strip().lower())
    if match is None:
        raise HnxError(
            f"Unknown device {text!r}",
            why="TensorRT runs on a GPU or a DLA core",
            fix="cuda:0 or dla:0",
            code=ExitCode.USAGE,
        )
    return ("dla" if match[1] == "dla" else "cuda"), int(match[2] or 0)


@dataclass(frozen=True)
class PlanConfig:
    """One build.

    Attributes:
        onnx: the network; Q/DQ nodes in it when `int8`.
        fp16, int8, fp32: arithmetic asked for. Weakly typed builders take them as flags: int8 allows fp16 for the
            layers without Q/DQ unless fp32 is asked for, too. Strongly typed ones compute in the types of the file.
        flavor: `trt`, `rtx`, or whichever is installed.
        workspace: scratch memory in bytes, None to choose from free memory.
        timing_cache: file, None for none.
        opt_level: 0 to 5, None for the library's own default.
        device: `cuda:N` or `dla:N`.
        gpu_fallback: let the GPU run what a DLA core cannot.
        batch: smallest, usual and largest batch, for networks exported with a free one.
        version_compatible, compat: wider use of the plan, slower by what TensorRT then cannot use.
    """

    onnx: Path
    fp16: bool = False
    int8: bool = False
    fp32: bool = False
    flavor: Flavor = "auto"
    workspace: int | None = None
    timing_cache: Path | None = None
    opt_level: int | None = None
    device: str = "cuda:0"
    gpu_fallback: bool = False
    batch: tuple[int, int, int] = (1, 1, 1)
    version_compatible: bool = False
    compat: Compat = "none"
    asked: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        asked = [name for name in ("int8", "fp16", "fp32") if getattr(self, name)] or ["fp32"]
        if self.fp16 and self.fp32 and not self.int8:
            raise _usage("--fp16 and --fp32 at once", "each is a whole network", "choose one")
        object.__setattr__(self, "asked", tuple(asked))
        kind, _ = parse_device(self.device)
        if kind == "dla":
            if self.flavor == "rtx":
                raise _usage("TensorRT for RTX on a DLA core", "RTX cards have none", "use --device cuda:0")
            if self.int8:
                raise _usage(
                    "--int8 on a DLA core",
                    "a DLA core takes no explicit quantisation (TensorRT's guide, 8.x and 10.x)",
                    "use --fp16 on the DLA, or --int8 --device cuda:0",
                )
            if not self.fp16:
                raise _usage("fp32 on a DLA core", "a DLA core computes in fp16 and int8 only", "add --fp16")
            if self.batch[0] != self.batch[2]:
                raise _usage("Several batch sizes on a DLA core", "it takes fixed shapes only", "give one batch size")
        elif self.gpu_fallback:
            raise _usage("--allow-gpu-fallback without a DLA core", "the GPU runs everything", "add --device dla:0")
        if self.opt_level is not None and not 0 <= self.opt_level <= 5:
            raise _usage(f"--opt-level {self.opt_level}", "levels go from 0 to 5", "for example --opt-level 3")
        low, usual, high = self.batch
        if not 1 <= low <= usual <= high <= _MOST_BATCH:
            raise _usage(
                f"Batch sizes {low}, {usual}, {high}",
                f"they must rise from 1 to at most {_MOST_BATCH}",
                "for example --min-batch 1 --opt-batch 4 --max-batch 8",
            )

    @property
    def precision(self) -> str:
        """The name a runtime row has: int8, fp16 or fp32."""
        return self.asked[0]

    @property
    def dla_core(self) -> int | None:
        """The DLA core to build for, None for the GPU."""
        kind, index = parse_device(self.device)
        return index if kind == "dla" else None

    @property
    def gpu_index(self) -> int:
        """The GPU to build on; a DLA core belongs to the board's only one."""
        kind, index = parse_device(self.device)
        return index if kind == "cuda" else 0

    def of(self, onnx: Path) -> PlanConfig:
        """The same for another network."""
        return replace(self, onnx=onnx)

    def to_json(self) -> dict[str, Any]:
        """JSON form; `from_json` reads it."""
        values = asdict(self)
        del values["asked"]
        values["batch"] = list(self.batch)
        return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PlanConfig:
        """The configuration that `to_json` wrote."""
        paths = {key: None if value[key] is None else Path(value[key]) for key in ("onnx", "timing_cache")}
        return cls(**{**value, **paths, "batch": tuple(value["batch"])})

    def command(self, target: str) -> str:
        """What to type to build this again from `target`."""
        words = ["hnx build-trt", target, *(f"--{name}" for name in self.asked if name != "fp32" or self.int8)]
        if self.flavor != "auto":
            words.append(f"--flavor {self.flavor}")
        if self.device != "cuda:0":
            words.append(f"--device {self.device}")
        if self.gpu_fallback:
            words.append("--allow-gpu-fallback")
        if self.batch != (1, 1, 1):
            words += [f"--{name}-batch {size}" for name, size in zip(("min", "opt", "max"), self.batch, strict=True)]
        if self.version_compatible:
            words.append("--version-compatible")
        if self.compat != "none":
            words.append(f"--hardware-compat {self.compat}")
        return " ".join(words)


def _usage(what: str, why: str, fix: str) -> HnxError:
    return HnxError(what, why=why, fix=fix, code=ExitCode.USAGE)
