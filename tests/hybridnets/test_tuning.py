"""Settings kept in manifests: whole or not at all, and read with suspicion."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from hybridnets import files
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.bundle.tuning import (
    Place,
    TunedRow,
    Tuning,
    check_storable,
    read_tuning,
    store_tuning,
    tuned_file,
)
from hybridnets.errors import HnxError
from hybridnets.files import sha256_file

PLACE = Place("EPYC", ("avx2", "avx512_bf16"), 2, "2026.4.1")
ROWS = (
    TunedRow("fp32", 2, 1, 10.0, (1.0, 1.0, 1.0), {"mAP50": 0.0}, "2.00 times as long as bf16"),
    TunedRow("bf16", 2, 1, 5.0, (0.49, 0.5, 0.52), {"mAP50": 0.1}, "chosen"),
    TunedRow("int8", 2, 1, 20.0, (1.9, 2.0, 2.1), None, "slower than fp32"),
)


def tuning(**changes: Any) -> Tuning:
    found = Tuning(
        "bf16", 2, 1, "net.onnx", "0" * 64, "latency", "labels", 0.5, 60, "scenes", PLACE, ROWS, "2026-01-01T00:00:00"
    )
    return replace(found, **changes)


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(bundle_path, tmp_path / "bundle"))


def test_kept_read_and_removed(bundle: Bundle) -> None:
    before = (bundle.path / "manifest.json").read_bytes()
    assert read_tuning(bundle, "openvino") is None
    assert store_tuning(bundle, "openvino", tuning())
    opened = open_bundle(bundle.path)  # every hash is checked
    assert read_tuning(opened, "openvino") == tuning()
    assert read_tuning(opened, "onnxruntime") is None
    assert tuning().chosen == ROWS[1]
    assert store_tuning(opened, "onnxruntime", tuning(precision="fp32"))
    assert store_tuning(opened, "openvino", tuning(max_drop=1.0))
    opened = open_bundle(bundle.path)
    found = read_tuning(opened, "openvino")
    assert found is not None
    assert found.max_drop == 1.0
    assert store_tuning(opened, "openvino", None)
    assert not store_tuning(opened, "openvino", None)
    assert store_tuning(opened, "onnxruntime", None)
    assert json.loads((bundle.path / "manifest.json").read_text()) == json.loads(before)


def made(bundle: Bundle) -> tuple[Tuning, Path]:
    """A setting with a graph that a search made, and that graph: the bundle's own."""
    source = bundle.file(bundle.variants[0].file)
    digest = sha256_file(source)
    rows = (replace(ROWS[1], rewrites="none"),)
    return tuning(file=tuned_file(bundle, digest), sha256=digest, rewrites="none", rows=rows), source


def test_a_graph_that_was_made_for_it_comes_and_goes_with_it(bundle: Bundle, tmp_path: Path) -> None:
    found, source = made(bundle)
    copy = bundle.path / found.file
    before = json.loads((bundle.path / "manifest.json").read_text())
    assert store_tuning(bundle, "openvino", found, source)
    opened = open_bundle(bundle.path)  # every hash is checked
    assert copy.read_bytes() == source.read_bytes()
    assert read_tuning(opened, "openvino") == found
    assert found.chosen.rewrites == "none"
    # the bundle's own files are what they were: scores that are kept for them hold
    assert opened.manifest["files"] == before["files"]
    # two runtimes may share it
    assert store_tuning(opened, "onnxruntime", found, source)
    assert store_tuning(opened, "openvino", tuning())
    assert copy.is_file()
    assert store_tuning(opened, "onnxruntime", None)
    assert not copy.exists()
    assert store_tuning(opened, "openvino", None)
    assert json.loads((bundle.path / "manifest.json").read_text()) == before
    with pytest.raises(HnxError, match="Cannot read"):
        store_tuning(opened, "openvino", found, tmp_path / "gone.onnx")
    assert json.loads((bundle.path / "manifest.json").read_text()) == before


def test_a_graph_whose_setting_cannot_be_kept_goes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    found, source = made(bundle)
    left_by_a_kill = bundle.path / "hybridnets_128x256-tuned-00000000.onnx"
    left_by_a_kill.write_bytes(b"half of a run")
    files = {path.name for path in bundle.path.iterdir()} - {left_by_a_kill.name}

    def full(*_: Any) -> None:
        raise HnxError("Cannot write", why="No space left on device")

    monkeypatch.setattr("hybridnets.bundle.tuning.write_json", full)
    with pytest.raises(HnxError, match="Cannot write"):
        store_tuning(bundle, "openvino", found, source)
    assert {path.name for path in bundle.path.iterdir()} == files
    open_bundle(bundle.path)


@pytest.mark.parametrize(
    "name",
    [
        "hybridnets_128x256.onnx",
        "../hybridnets_128x256-tuned-11111111.onnx",
        "hybridnets_128x256-tuned-22222222.onnx",
        "weights.safetensors",
        7,
    ],
)
def test_a_manifest_cannot_have_other_files_removed(name: Any, bundle: Bundle) -> None:
    outside = bundle.path.parent / "hybridnets_128x256-tuned-11111111.onnx"
    outside.write_bytes(b"mine")
    where = bundle.path / "manifest.json"
    manifest = json.loads(where.read_text())
    # the bundle's own network under the name of a made one
    own, odd = manifest["variants"][0]["file"], "hybridnets_128x256-tuned-22222222.onnx"
    (bundle.path / own).rename(bundle.path / odd)
    manifest["variants"][0]["file"] = odd
    manifest["files"][odd] = manifest["files"].pop(own)
    manifest["tuning"] = {"openvino": {"file": name, "rewrites": "none"}}
    where.write_text(json.dumps(manifest))
    assert store_tuning(open_bundle(bundle.path), "openvino", None)
    open_bundle(bundle.path)
    assert outside.read_bytes() == b"mine"


def damaged(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(tuning()))) | changes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "list"),
        ({}, "precision"),
        (damaged(precision=3), "no text"),
        (damaged(threads=0), "from 1"),
        (damaged(threads=True), "from 1"),
        (damaged(streams="2"), "from 1"),
        (damaged(images=-1), "from 0"),
        (damaged(goal="speed"), "none of latency, throughput"),
        (damaged(measure="feeling"), "none of labels"),
        (damaged(max_drop="much"), "much"),
        (damaged(place=None), "NoneType"),
        (damaged(place=asdict(PLACE) | {"instructions": "avx2"}), "no list"),
        (damaged(rows=[]), "its own row is missing"),
        (damaged(rows=[{"precision": "bf16"}]), "ratio"),
        (damaged(precision="x" * 2000), "no text"),
    ],
)
def test_what_anybody_may_have_written(value: Any, text: str, bundle: Bundle) -> None:
    where = bundle.path / "manifest.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"tuning": {"openvino": value}}))
    opened = open_bundle(bundle.path)  # the bundle itself is as good as before
    with pytest.raises(ValueError, match=text):
        read_tuning(opened, "openvino")
    assert store_tuning(opened, "openvino", None)
    assert read_tuning(open_bundle(bundle.path), "openvino") is None


def test_a_list_in_the_place_of_runtimes(bundle: Bundle) -> None:
    where = bundle.path / "manifest.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"tuning": [1]}))
    opened = open_bundle(bundle.path)
    with pytest.raises(ValueError, match="runtimes"):
        read_tuning(opened, "openvino")
    assert store_tuning(opened, "openvino", None)
    assert "tuning" not in json.loads(where.read_text())


def test_what_differs_is_told() -> None:
    there = replace(PLACE, cpu="Xeon", cores=8, instructions=())
    assert PLACE.differences(PLACE) == []
    assert PLACE.differences(there) == [
        "CPU: EPYC then, Xeon now",
        "instruction sets: avx2, avx512_bf16 then, none now",
        "cores: 2 then, 8 now",
    ]
    assert PLACE.differences(replace(PLACE, library="")) == ["library version: 2026.4.1 then, unknown now"]


def test_a_bare_file_keeps_nothing(bundle: Bundle, tmp_path: Path) -> None:
    network = tmp_path / "bare" / "net.onnx"
    network.parent.mkdir()
    shutil.copy(next(bundle.path.glob("*.onnx")), network)
    with pytest.raises(HnxError, match="no manifest"):
        check_storable(open_bundle(network))


def test_a_folder_that_cannot_be_written(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(bundle.path))

    monkeypatch.setattr("hybridnets.bundle.tuning.tempfile.TemporaryFile", refuse)
    with pytest.raises(HnxError, match="Cannot write to bundle") as caught:
        check_storable(bundle)
    assert "--dry-run" in caught.value.fix
    assert "permission denied" in caught.value.why


def test_another_command_wrote_meanwhile(bundle: Bundle) -> None:
    where = bundle.path / "manifest.json"
    manifest = json.loads(where.read_text())
    manifest["files"]["new.onnx"] = {"sha256": "1" * 64, "bytes": 1}
    where.write_text(json.dumps(manifest))
    with pytest.raises(HnxError, match="has changed since"):
        store_tuning(bundle, "openvino", tuning())


def test_an_end_while_writing_keeps_the_old_manifest(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    store_tuning(bundle, "openvino", tuning())
    before = (bundle.path / "manifest.json").read_bytes()

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_chmod_as_open", end)
    with pytest.raises(KeyboardInterrupt):
        store_tuning(open_bundle(bundle.path), "openvino", tuning(max_drop=2.0))
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert read_tuning(open_bundle(bundle.path), "openvino") == tuning()
