"""Plans are checked before a byte reaches TensorRT."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hybridnets.bundle import open_bundle
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import sha256_file, write_json
from runtimes.tensorrt.choose import find_plan, network_digest, network_file
from runtimes.tensorrt.driver import Gpu
from runtimes.tensorrt.plan import (
    Here,
    Sidecar,
    TensorForm,
    check,
    mismatch,
    plan_name,
    read_sidecar,
    sidecar_path,
)

ORIN = Gpu(0, "Orin", (8, 7), True, 8 << 30)
ADA = Gpu(0, "RTX 4090", (8, 9), False, 24 << 30)


def make(folder: Path, name: str = "x.plan", **changes: Any) -> tuple[Path, Sidecar]:
    """A plan built on Orin with TensorRT 10.3, with its sidecar."""
    plan = folder / name
    plan.write_bytes(b"a plan" * 100)
    values: dict[str, Any] = {
        "plan": name,
        "bytes": plan.stat().st_size,
        "sha256": sha256_file(plan),
        "flavor": "trt",
        "version": "10.3.0",
        "typing": "weak",
        "gpu": "Orin",
        "capability": (8, 7),
        "onnx": "x.onnx",
        "onnx_sha256": "0" * 64,
        "asked": ("fp16",),
        "executed": "fp16",
        "version_compatible": False,
        "compat": "none",
        "tensors": (TensorForm("input", "input", "float32", (1, 3, 128, 256)),),
        "command": "hnx build-trt x --fp16",
        "summary": {"CaskConvolution": {"fp16": 3}},
        "layers": ({"name": "conv", "precision": "fp16"},),
        "layers_from": "engine inspector",
        "timing_s": {"build": 1.5},
    }
    sidecar = Sidecar(**{**values, **changes})
    write_json(sidecar_path(plan), sidecar.to_json())
    return plan, sidecar


def test_a_sidecar_comes_back_as_it_was_written(tmp_path: Path) -> None:
    plan, sidecar = make(tmp_path)
    assert read_sidecar(plan) == sidecar
    for_any_card = dataclasses.replace(sidecar, gpu="", capability=None, flavor="rtx")
    write_json(sidecar_path(plan), for_any_card.to_json())
    assert read_sidecar(plan) == for_any_card
    check(plan, sidecar, Here("trt", "10.3.0", ORIN))


def test_another_version_or_gpu_is_named_with_the_command_that_helps(tmp_path: Path) -> None:
    plan, sidecar = make(tmp_path)
    with pytest.raises(HnxError) as caught:
        check(plan, sidecar, Here("trt", "10.13.3", ADA))
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert caught.value.why == (
        "built with TensorRT 10.3.0 on sm_87 (Orin), this is TensorRT 10.13.3 on sm_89 (RTX 4090)"
    )
    assert "hnx build-trt x --fp16" in caught.value.fix


@pytest.mark.parametrize(
    ("changes", "here", "fits"),
    [
        ({}, Here("trt", "10.3.0", ORIN), True),
        ({}, Here("trt", "10.3.0", ADA), False),
        ({}, Here("trt", "10.3.1", ORIN), False),
        ({}, Here("rtx", "10.3.0", ORIN), False),
        ({"version_compatible": True}, Here("trt", "10.13.3", ORIN), True),
        ({"version_compatible": True}, Here("trt", "10.1.0", ORIN), False),
        ({"compat": "ampere+"}, Here("trt", "10.3.0", ADA), True),
        ({"compat": "ampere+"}, Here("trt", "10.3.0", Gpu(0, "T4", (7, 5), False, 1)), False),
        ({"compat": "same-cc"}, Here("trt", "10.3.0", ADA), False),
        ({"flavor": "rtx", "capability": None, "gpu": ""}, Here("rtx", "10.3.0", ADA), True),
        (
            {"flavor": "rtx", "capability": None, "gpu": ""},
            Here("rtx", "10.3.0", Gpu(0, "V100", (7, 0), False, 1)),
            False,
        ),
        ({"flavor": "rtx", "capability": None, "gpu": ""}, Here("rtx", "10.4.0", ADA), False),
    ],
)
def test_which_plans_run_where(changes: dict[str, Any], here: Here, fits: bool, tmp_path: Path) -> None:
    _, sidecar = make(tmp_path, **changes)
    assert (mismatch(sidecar, here) == "") == fits


def test_truncated_and_tampered_plans_are_refused(tmp_path: Path) -> None:
    plan, sidecar = make(tmp_path)
    here = Here("trt", "10.3.0", ORIN)
    whole = plan.read_bytes()
    plan.write_bytes(whole[:100])
    with pytest.raises(HnxError, match="damaged") as caught:
        check(plan, sidecar, here)
    assert "100 bytes, 600 were written" in caught.value.why
    assert caught.value.code == ExitCode.FAILED
    plan.write_bytes(b"A" + whole[1:])
    with pytest.raises(HnxError, match="has changed since it was built"):
        check(plan, sidecar, here)
    plan.unlink()
    with pytest.raises(HnxError, match="Cannot read"):
        check(plan, sidecar, here)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(schema_version=2), "schema version is 2"),
        (lambda v: v.update(kind="other"), "not the sidecar of a plan"),
        (lambda v: v["plan"].pop("sha256"), "sha256"),
        (lambda v: v["tensorrt"].update(flavor="cuda"), "flavor"),
        (lambda v: v["gpu"].update(compute_capability=["a", "b"]), "wrong form"),
        (lambda v: v.update(tensors=[1]), "wrong form"),
        (lambda v: v.update(command=["rm"]), "wrong form"),
        (lambda v: v["plan"].update(bytes=float("inf")), "wrong form"),
        (lambda v: v.update(layers=7), "wrong form"),
        (lambda v: v["precision"].update(layers=[]), "wrong form"),
    ],
)
def test_hostile_sidecars_are_one_clear_error(change: Any, message: str, tmp_path: Path) -> None:
    plan, sidecar = make(tmp_path)
    value = sidecar.to_json()
    change(value)
    sidecar_path(plan).write_text(json.dumps(value))
    with pytest.raises(HnxError) as caught:
        read_sidecar(plan)
    assert message in f"{caught.value}"
    sidecar_path(plan).write_text("[" * 100_000)
    with pytest.raises(HnxError):
        read_sidecar(plan)
    sidecar_path(plan).unlink()
    with pytest.raises(HnxError, match="Cannot use") as caught:
        read_sidecar(plan)
    assert "is missing" in caught.value.why


def test_a_networks_digest_covers_weights_beside_it(tmp_path: Path) -> None:
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(b"graph")
    alone = network_digest(onnx)
    assert alone == sha256_file(onnx)
    (tmp_path / "net.onnx.data").write_bytes(b"weights")
    one = network_digest(onnx)
    (tmp_path / "net.onnx.data").write_bytes(b"other weights")
    assert len({alone, one, network_digest(onnx)}) == 3


def test_the_dla_core_comes_from_the_options(tmp_path: Path) -> None:
    _, sidecar = make(tmp_path)
    assert sidecar.dla_core is None
    assert dataclasses.replace(sidecar, options={"device": "dla:1"}).dla_core == 1
    assert dataclasses.replace(sidecar, options={"device": 7}).dla_core is None


def test_names_say_what_a_plan_is_tied_to() -> None:
    assert plan_name("net", "int8", "rtx", "1.7.1", "any") == "net-int8-rtx1.7.1-any.plan"


def test_the_plan_for_this_machine_is_found_among_others(bundle_path: Path, tmp_path: Path) -> None:
    bundle = dataclasses.replace(open_bundle(bundle_path), path=tmp_path)
    onnx = bundle.variants[0].file
    (tmp_path / onnx).write_bytes(b"the network")
    digest = sha256_file(tmp_path / onnx)
    here = Here("trt", "10.3.0", ORIN)
    with pytest.raises(HnxError, match="has no fp16 plan") as caught:
        find_plan(bundle, "fp16", here)
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert "hnx build-trt" in caught.value.fix
    assert "--fp16" in caught.value.fix

    common = {"onnx": onnx, "onnx_sha256": digest}
    make(tmp_path, "other.plan", version="8.5.2", **common)
    with pytest.raises(HnxError, match=r"Cannot use other\.plan here") as caught:
        find_plan(bundle, "fp16", here)
    assert "built with TensorRT 8.5.2" in caught.value.why
    (tmp_path / "stray.plan").write_bytes(b"without a sidecar")
    ours, _ = make(tmp_path, "ours.plan", **common)
    make(tmp_path, "int8.plan", asked=("int8",), **common)
    assert find_plan(bundle, "fp16", here)[0] == ours
    assert find_plan(bundle, "int8", here)[0].name == "int8.plan"

    ours.write_bytes(b"tampered")
    with pytest.raises(HnxError, match="damaged"):
        find_plan(bundle, "fp16", here)
    (tmp_path / onnx).write_bytes(b"other weights")
    with pytest.raises(HnxError, match="is of an earlier") as caught:
        find_plan(bundle, "fp16", here)
    assert caught.value.code == ExitCode.FAILED


def test_bare_networks_in_one_folder_keep_their_own_plans(bundle_path: Path, tmp_path: Path) -> None:
    onnx = open_bundle(bundle_path).file(open_bundle(bundle_path).variants[0].file)
    for name in ("one.onnx", "two.onnx"):
        (tmp_path / name).write_bytes(onnx.read_bytes())
    digest = sha256_file(tmp_path / "one.onnx")
    mine, _ = make(tmp_path, "one.plan", onnx="one.onnx", onnx_sha256=digest)
    here = Here("trt", "10.3.0", ORIN)
    make(tmp_path, "two.plan", onnx="two.onnx", onnx_sha256=digest, asked=("fp16",))
    assert find_plan(open_bundle(tmp_path / "one.onnx"), "fp16", here)[0] == mine
    assert find_plan(open_bundle(tmp_path / "two.onnx"), "fp16", here)[0].name == "two.plan"


def test_the_network_for_a_precision(bundle_path: Path) -> None:
    from hybridnets.bundle import Variant

    bundle = open_bundle(bundle_path)
    plain = bundle.file(bundle.variants[0].file)
    assert network_file(bundle, "fp32", "strong") == plain
    assert network_file(bundle, "fp16", "weak") == plain
    for precision, typing in (("fp16", "strong"), ("int8", "weak")):
        with pytest.raises(HnxError, match="has no"):
            network_file(bundle, precision, typing)
    more = dataclasses.replace(
        bundle,
        variants=(
            *bundle.variants,
            Variant("int8", "openvino.onnx", ("openvino",)),
            Variant("int8", "any.onnx", ("tensorrt",)),
            Variant("int8", "strong.onnx", ("tensorrt-strong",)),
            Variant("fp16", "half.onnx"),
        ),
    )
    assert network_file(more, "int8", "weak").name == "any.onnx"
    assert network_file(more, "int8", "strong").name == "strong.onnx"
    assert network_file(more, "fp16", "strong").name == "half.onnx"
    assert network_file(more, "fp16", "weak") == plain


@pytest.mark.parametrize(("typing", "opset", "command"), [
    ("weak", 17, "hnx quantize"), ("weak", 18, "hnx export --opset 17"), ("strong", 18, "hnx quantize"),
])  # fmt: skip
def test_what_makes_the_network_that_is_missing(bundle_path: Path, typing: str, opset: int, command: str) -> None:
    """`hnx quantize` makes no weakly typed file of an opset above 17, so it is no fix there."""
    bundle = open_bundle(bundle_path)
    variants = [{**record, "opset": opset} for record in bundle.manifest["variants"]]
    newer = dataclasses.replace(bundle, manifest={**bundle.manifest, "variants": variants})
    with pytest.raises(HnxError, match="has no int8 network") as caught:
        network_file(newer, "int8", typing)
    assert command in caught.value.fix
    assert ("opset 17" in caught.value.why) == (command == "hnx export --opset 17")
