"""Which of a bundle's networks TensorRT builds from, and which of its plans it runs here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from hybridnets.bundle import Bundle
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import sha256_file
from runtimes.tensorrt.plan import Here, Sidecar, check, mismatch, read_sidecar

__all__ = ["find_plan", "network_digest", "network_file", "weight_files"]

RUNTIME = "tensorrt"
_WEAK_OPSET = 17  # hnx quantize makes no weakly typed INT8 file of a later one: TensorRT 8.5 and 8.6 parse none


def network_file(bundle: Bundle, precision: str, typing: str) -> Path:
    """The stored ONNX file for a precision.

    Weakly typed builders make fp16 from the fp32 network by a flag; strongly typed ones need the types in the file.
    Variants made for one kind only are named `tensorrt-weak` or `tensorrt-strong` in the manifest.

    Raises:
        HnxError: the bundle has none (exit code 1).
    """
    stored = "fp32" if precision == "fp16" and typing == "weak" else precision
    for name in (f"{RUNTIME}-{typing}", RUNTIME):
        for variant in bundle.variants:
            if variant.precision == stored and name in variant.runtimes:
                return bundle.file(variant.file)
    for variant in bundle.variants:
        if variant.precision == stored and not variant.runtimes:
            return bundle.file(variant.file)
    kinds = ", ".join(sorted({variant.precision for variant in bundle.variants}))
    reason = "its scales must be in the file" if stored == "int8" else "it computes in the types of the file"
    make = f"hnx quantize {bundle.path} --for {'tensorrt' if stored == 'int8' else 'fp16'} makes it"
    opset = _opset(bundle)
    if typing == "weak" and opset > _WEAK_OPSET:
        reason += f", of opset {_WEAK_OPSET} at most, and those of this bundle have {opset}"
        make = f"make another bundle with `hnx export --opset {_WEAK_OPSET}`, and quantise that with --for tensorrt"
    raise HnxError(
        f"Bundle {bundle.name} has no {stored} network for TensorRT ({typing}ly typed)",
        why=f"it stores: {kinds}; for {precision} this TensorRT needs its own: {reason}",
        fix=f"{make}; or name an ONNX file of that kind (docs/tensorrt.md)",
    )


def _opset(bundle: Bundle) -> int:
    """What the manifest says of the network that others are made from; 0 where it says nothing."""
    records = bundle.manifest.get("variants", ())
    found = [record.get("opset") for record in records if record.get("precision") == "fp32"]
    return max((opset for opset in found if isinstance(opset, int)), default=0)


def weight_files(onnx: Path) -> list[Path]:
    """Files beside a network that hold its weights, under the names exporters give them (`net.onnx.data`)."""
    names = (onnx.name + ".data", onnx.name + "_data", onnx.stem + ".data", onnx.stem + ".bin")
    return [onnx.with_name(name) for name in names if onnx.with_name(name).is_file()]


def network_digest(onnx: Path) -> str:
    """SHA-256 of a network: of its file, or of the digests of its files where the weights lie beside it.

    Raises:
        HnxError: a file cannot be read.
    """
    digests = [sha256_file(path) for path in (onnx, *weight_files(onnx))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def find_plan(bundle: Bundle, precision: str, here: Here) -> tuple[Path, Sidecar]:
    """The newest plan beside a bundle's network that runs here, checked byte by byte.

    Raises:
        HnxError: there is none (exit code 4), none for this TensorRT and GPU (4), or it is damaged (1).
    """
    folder = bundle.path if bundle.path.is_dir() else bundle.path.parent
    plans = sorted(folder.glob("*.plan"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    build = f"hnx build-trt {bundle.path}" + ("" if precision == "fp32" else f" --{precision}")
    if here.flavor == "rtx":
        build += " --flavor rtx"
    stems = {Path(variant.file).stem for variant in bundle.variants}
    alone = bundle.path.is_dir()  # a bundle's folder is its own; bare files of several networks may share one
    broken: list[HnxError] = []
    others: list[tuple[Path, Sidecar]] = []
    for path in plans:
        try:
            sidecar = read_sidecar(path)
        except HnxError as error:
            broken.append(error)
            continue
        if sidecar.asked[:1] != (precision,) or not (alone or Path(sidecar.onnx).stem in stems):
            continue
        if mismatch(sidecar, here):
            others.append((path, sidecar))
            continue
        _check_network(bundle, path, sidecar, build)
        check(path, sidecar, here)
        return path, sidecar
    if others:
        check(*others[0], here)
    if broken and len(broken) == len(plans):
        raise broken[0]
    raise HnxError(
        f"Bundle {bundle.name} has no {precision} plan",
        why=_have(plans),
        fix=f"build one on this machine: {build}",
        code=ExitCode.NOTHING_RAN,
    )


def _have(plans: Sequence[Path]) -> str:
    return (
        "it has " + ", ".join(path.name for path in plans[:5]) if plans else "TensorRT runs plans, built on the device"
    )


def _check_network(bundle: Bundle, path: Path, sidecar: Sidecar, build: str) -> None:
    """Refuse a plan of earlier weights: everything would run, and answer for another network.

    Raises:
        HnxError: the network in the bundle is not the one the plan was built from.
    """
    network = bundle.file(sidecar.onnx)
    if network.is_file() and network_digest(network) != sidecar.onnx_sha256:
        raise HnxError(
            f"Plan {path.name} is of an earlier {sidecar.onnx}",
            why="the network beside it has changed since the plan was built",
            fix=f"build it again: {build}",
        )
