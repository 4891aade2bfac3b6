"""Opening bundles: ours, somebody else's, and damaged ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from hybridnets.anchors import make_anchors
from hybridnets.bundle import check_weights, find_bundles, open_bundle
from hybridnets.errors import ExitCode, HnxError
from runtimes.predictor import load

ONNX = "hybridnets_128x256.onnx"
ANCHORS = "anchor_128_256.npy"


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


def edit(folder: Path, **changes: object) -> None:
    """Change keys of the manifest; a.b reaches into groups, None deletes."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for key, value in changes.items():
        group = manifest
        *path, last = key.split("__")
        for part in path:
            group = group[part]
        if value is None:
            del group[last]
        else:
            group[last] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_manifest_carries_all_an_edge_device_needs(bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    assert bundle.target == (128, 256)
    assert bundle.classes == ("car",)
    assert bundle.seg_classes == ("road", "lane")
    assert bundle.seg_mode == "multiclass"
    assert list(bundle.outputs) == ["regression", "classification", "segmentation"]
    assert bundle.untrained
    anchors = bundle.anchors()
    assert anchors is not None
    assert np.array_equal(anchors, make_anchors(256, 128))
    proof = bundle.manifest["proof"]["outputs"]
    assert max(item["rel_l2"] for item in proof.values()) < 1e-4
    assert {"torch", "onnx", "onnxsim", "hnx"} <= bundle.manifest["tools"].keys()
    assert open_bundle(bundle_path / "manifest.json").path == bundle_path
    assert open_bundle(bundle_path / ONNX).manifest == bundle.manifest


@pytest.mark.parametrize("name", [ONNX, ANCHORS, "weights.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete"])
def test_changed_files_are_found(copy: Path, name: str, damage: str) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes({"flip": bytes(content), "truncate": bytes(content[:-100])}.get(damage, b""))
    if damage == "delete":
        path.unlink()
    with pytest.raises(HnxError, match=name):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 99}, "schema version is 99"),
        ({"schema_version": None}, "no schema_version"),
        ({"schema_version": "1"}, "no schema_version"),
        ({"model": None}, "'model' is missing"),
        ({"model__compound_coef": 12}, "coefficient 12"),
        ({"model__activation": "gelu"}, "gelu"),
        ({"segmentation__mode": "other"}, "other"),
        ({"classes": "car"}, "class names"),
        ({"classes": []}, "class names"),
        ({"inputs": []}, "wrong form"),
        ({"preprocess__std": [1, 1, 0]}, "mean and std"),
        ({"variants": [{"precision": "fp32", "file": "../../etc/passwd"}]}, "outside the bundle"),
        ({"anchors__file": "/etc/passwd"}, "outside the bundle"),
        ({"files": {}}, "no hash"),
        ({"files": 5}, "no hash"),
        ({"anchors__rule__scales": [1]}, "anchor scales"),
        ({"anchors__rule__scales": [10**400, 1, 1]}, "wrong form"),
        ({"anchors__rule__scales": [1e300, 1, 1]}, "below a million"),
        ({"anchors__file": 5}, "a file name is 5"),
        ({"files": {"a": "b"}}, "wrong form"),
        ({"files": {"x" * 5000: {"bytes": 1, "sha256": ""}}}, "a file name is x"),
        ({"variants": []}, "no network"),
        ({"variants": [{"precision": "fp32", "file": ["x"]}]}, "a file name is"),
        ({"model__weights": "other.safetensors"}, "no hash"),
        ({"model__compound_coef": float("inf")}, "wrong form"),
        ({"outputs": []}, "no outputs"),
        ({"schema_version": True}, "no schema_version"),
        ({"preprocess__mean": [float("nan")] * 3}, "mean and std"),
        ({"preprocess__std": [1, 1, 1e-320]}, "mean and std"),
        ({"classes": ["a"] * 7}, "7 detection"),
        ({"segmentation__classes": ["a"] * 50}, "1x51x128x256"),
        ({"inputs": [{"name": "input", "dtype": "float32", "shape": [1, 3, float("inf"), 256]}]}, "a shape is not"),
        ({"inputs": [{"name": "input", "dtype": "float32", "shape": [1, 3, 256, 256]}]}, "does not fit"),
        ({"inputs": [{"name": "input", "dtype": "object", "shape": [1, 3, 128, 256]}]}, "does not fit"),
        ({"inputs": [{"name": "other", "dtype": "float32", "shape": [1, 3, 128, 256]}]}, "the network has input"),
    ],
)
def test_bad_manifests(copy: Path, changes: dict[str, object], message: str) -> None:
    edit(copy, **changes)
    with pytest.raises(HnxError, match=message):
        open_bundle(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "5"])
def test_manifests_that_are_none(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(HnxError, match=r"manifest\.json"):
        open_bundle(copy)


def test_bare_onnx_of_another_exporter(copy: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(copy / ONNX, bare / "net.onnx")
    np.save(bare / "anchors_128x256.npy", make_anchors(256, 128).astype(np.float64))
    for argument in (bare, bare / "net.onnx"):
        bundle = open_bundle(argument)
        assert bundle.target == (128, 256)
        assert bundle.anchors_file == "anchors_128x256.npy"
        assert bundle.weights is None
        assert bundle.notes
        anchors = bundle.anchors()
        assert anchors is not None
        assert anchors.dtype == np.float32
    (bare / "anchors_128x256.npy").unlink()
    computed = open_bundle(bare).anchors()
    assert computed is not None
    assert np.array_equal(computed, make_anchors(256, 128))


class Hostile:
    """Touches a file when unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch hostile-ran",)


def test_bad_anchor_files(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(copy / ONNX, bare / "net.onnx")
    path = bare / ANCHORS
    np.save(path, np.array([Hostile()], dtype=object), allow_pickle=True)
    cases = [path.read_bytes(), b"", b"junk" * 100]
    for array in (np.zeros((1, 5, 4), np.float32), np.zeros((1, 6138, 4), np.int64), np.full((1, 6138, 4), np.nan)):
        np.save(path, array)
        cases.append(path.read_bytes())
    np.save(path, make_anchors(256, 128))
    cases.append(path.read_bytes()[:-50])
    for content in cases:
        path.write_bytes(content)
        with pytest.raises(HnxError, match="anchors"):
            open_bundle(bare).anchors()
    assert not (tmp_path / "hostile-ran").exists()


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="no manifest"):
        open_bundle(tmp_path)
    with pytest.raises(HnxError, match="does not exist"):
        open_bundle(tmp_path / "absent")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(HnxError, match="not a bundle"):
        open_bundle(tmp_path / "a.txt")
    for content in (b"", b"\x00" * 64, b"junk" * 50, b"\x08\x08"):
        (tmp_path / "a.onnx").write_bytes(content)
        with pytest.raises(HnxError, match=r"a\.onnx"):
            open_bundle(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("size", "kind", "channels", "message"),
    [
        (128, onnx.TensorProto.FLOAT, "c", "how many classes"),
        (128, onnx.TensorProto.FLOAT, 10**12, "how many classes"),
        (128, onnx.TensorProto.INT64, 3, "input: int64"),
        (224, onnx.TensorProto.FLOAT, 3, "224x224"),
    ],
)
def test_bare_networks_that_cannot_be_served(
    tmp_path: Path, size: int, kind: int, channels: int | str, message: str
) -> None:
    source = onnx.helper.make_tensor_value_info("input", kind, [1, 3, size, size])
    target = onnx.helper.make_tensor_value_info("segmentation", onnx.TensorProto.FLOAT, [1, channels, size, size])
    node = onnx.helper.make_node("Identity", ["input"], ["segmentation"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [source], [target])), tmp_path / "net.onnx")
    with pytest.raises(HnxError, match=message) as caught:
        open_bundle(tmp_path / "net.onnx")
    assert "net.onnx" in caught.value.what
    assert caught.value.code == ExitCode.FAILED


@pytest.mark.parametrize(
    ("precision", "runtime", "fix"),
    [
        ("int8", "onnxruntime", "hnx quantize {} --for onnxruntime"),
        ("int8", "tensorrt-weak", "hnx quantize {} --for tensorrt"),
        ("fp16", "onnxruntime-cuda", "hnx quantize {} --for fp16"),
        ("fp64", "torch", "export the bundle again"),
    ],
)
def test_a_network_that_is_not_stored_names_what_makes_it(
    bundle_path: Path, precision: str, runtime: str, fix: str
) -> None:
    with pytest.raises(HnxError, match=f"no {precision} variant for {runtime}") as caught:
        open_bundle(bundle_path).variant(precision, runtime)
    assert caught.value.fix == fix.format(bundle_path)
    assert caught.value.code == ExitCode.NOTHING_RAN


def test_newest_first(copy: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(copy, tmp_path / "another"))
    os.utime(copy / "manifest.json", ns=(1, 1))
    assert find_bundles(tmp_path) == [other, copy]
    assert find_bundles(tmp_path / "absent") == []


def test_digests_of_networks_are_those_of_their_files(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "hybridnets_128x256.onnx"
    path = copy / name
    expected = {name: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert open_bundle(copy, verify=False).network_digests(name) == expected
    compared = open_bundle(copy)
    with monkeypatch.context() as patch:  # what was compared is not read again
        patch.setattr("hybridnets.bundle.model.sha256_file", lambda path: pytest.fail("read again"))
        assert compared.network_digests(name) == expected
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=1024)
    bare = open_bundle(Path(shutil.copytree(copy, copy.parent / "bare", ignore=shutil.ignore_patterns("*.json"))))
    found = bare.network_digests(name)
    assert found == {file: hashlib.sha256((copy / file).read_bytes()).hexdigest() for file in (name, "w.bin")}


def test_weights_are_compared_by_who_reads_them(copy: Path) -> None:
    path = copy / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(HnxError, match=r"has changed") as early:
        open_bundle(copy)
    bundle = open_bundle(copy, weights=False)
    assert "weights.safetensors" not in bundle.digests
    assert "hybridnets_128x256.onnx" in bundle.digests
    with pytest.raises(HnxError) as late:
        check_weights(bundle)
    assert (late.value.what, late.value.why) == (early.value.what, early.value.why)
    with pytest.raises(HnxError, match=r"has changed"):
        load(copy, "torch", threads=1)
    with load(copy, "onnxruntime", threads=1) as predictor:
        assert predictor.bundle.digests
    check_weights(open_bundle(copy, verify=False))  # nobody asked
