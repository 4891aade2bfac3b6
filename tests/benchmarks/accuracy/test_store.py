"""What an evaluation goes on from: chunks, their damage, and the key that says whose they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import store as module
from benchmarks.accuracy.protocols import PROTOCOLS
from benchmarks.accuracy.records import ImageRecord
from benchmarks.accuracy.store import Chunk, RowStore, bundle_files, load_chunks, row_key, write_chunk
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.errors import HnxError
from tests.benchmarks.fakes import fake_bundle


def record(name: str, score: float = 0.5) -> ImageRecord:
    return ImageRecord(
        name=name,
        labels=np.zeros(2, np.uint8),
        scores=np.full(3, score, np.float32),
        classes=np.zeros(3, np.uint8),
        hits=np.array([10, 0, 3], np.uint8),
        seg=np.arange(12).reshape(3, 4),
        input_sha256="ab" * 32,
    )


def chunk(*names: str, broken: dict[str, str] | None = None) -> Chunk:
    return Chunk([record(name) for name in names], broken or {}, names[:1], {names[-1]: ["no area"]})


@pytest.fixture
def store(tmp_path: Path) -> RowStore:
    found = RowStore(tmp_path, "c0 ort:fp32", {"a": 1})
    found.begin({"precision": "fp32", "device": "CPU"})
    return found


def names(chunks: list[Chunk]) -> list[str]:
    return sorted(name for part in chunks for name in part.names)


def test_a_chunk_comes_back_whole(store: RowStore) -> None:
    # names as they come from file systems: blanks, other scripts, bytes that are no UTF-8
    written = chunk("b", "ä ö\n", "\udcff", broken={"a": "no image"})
    name = write_chunk(store.folder, written)
    found = store.read(name)
    assert found.names == written.names == ["a", "b", "ä ö\n", "\udcff"]
    assert found.broken == {"a": "no image"}
    assert found.nonfinite == ["b"]
    assert found.dropped == {"\udcff": ["no area"]}
    for ours, theirs in zip(found.records, written.records, strict=True):
        assert ours.name == theirs.name
        np.testing.assert_array_equal(ours.seg, theirs.seg)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert store.execution() == {"precision": "fp32", "device": "CPU"}
    # the same chunk is the same file: two runs do not get in each other's way
    assert write_chunk(store.folder, written) == name
    assert len(list(store.folder.glob("*.npz"))) == 1


def test_a_chunk_of_broken_images_only(store: RowStore) -> None:
    write_chunk(store.folder, Chunk([], {"a": "no image"}))
    chunks, damaged = store.load(["a", "b"])
    assert names(chunks) == ["a"]
    assert not damaged


def test_every_image_comes_once_and_only_if_wanted(store: RowStore) -> None:
    write_chunk(store.folder, chunk("a", "b", "c"))
    write_chunk(store.folder, chunk("b", "c", "d", broken={"e": "no image"}))
    assert names(store.load("abcdef")[0]) == ["a", "b", "c", "d", "e"]
    chosen, _ = store.load(["b", "e"])
    assert names(chosen) == ["b", "e"]
    assert not any(part.dropped for part in chosen if "d" not in part.names)
    assert names(load_chunks(store.folder, None)[0]) == ["a", "b", "c", "d", "e"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _other_records(path: Path) -> None:
    module.write_records(path, [record("z")])


@pytest.mark.parametrize("damage", [_cut, _flip, _other_records, Path.unlink])
def test_damaged_records_are_left_out_and_counted(store: RowStore, damage: Any) -> None:
    name = write_chunk(store.folder, chunk("a", "b"))
    write_chunk(store.folder, chunk("c"))
    damage(store.folder / f"{name}.npz")
    chunks, damaged = store.load("abc")
    assert names(chunks) == ["c"]
    assert damaged == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"names": ["a"]}', '{"names": 3, "broken": [], "sha256": 1}'])
def test_damaged_descriptions_are_left_out_and_counted(store: RowStore, text: str) -> None:
    name = write_chunk(store.folder, chunk("a"))
    (store.folder / f"{name}.json").write_text(text)
    assert store.load("a") == ([], 1)


def test_records_without_their_description_do_not_count(store: RowStore) -> None:
    name = write_chunk(store.folder, chunk("a"))
    (store.folder / f"{name}.json").unlink()
    assert store.load("a") == ([], 0)


def test_nothing_is_known_of_a_new_store(tmp_path: Path) -> None:
    new = RowStore(tmp_path, "new", {})
    assert new.load("a") == ([], 0)
    assert new.execution() is None
    new.clear()
    assert not list(tmp_path.iterdir())


def test_clearing_forgets(store: RowStore) -> None:
    write_chunk(store.folder, chunk("a"))
    store.clear()
    assert store.load("a") == ([], 0)


def test_a_full_disk_is_one_error_and_no_chunk(store: RowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise HnxError("Cannot write", why="the disk is full")

    monkeypatch.setattr(module, "write_bytes", full)
    with pytest.raises(HnxError, match="full"):
        write_chunk(store.folder, chunk("a"))
    assert store.load("a") == ([], 0)


# -- the key -------------------------------------------------------------------------------------------------


def key(bundle: Bundle | None = None, **changes: Any) -> str:
    values: dict[str, Any] = {
        "data": "d",
        "protocol": PROTOCOLS["paper"],
        "runtime": "opencv-dnn",
        "precision": "fp32",
        "threads": 2,
    }
    return RowStore(Path(), "x", row_key(bundle or fake_bundle(), **{**values, **changes})).id


def test_everything_that_decides_a_number_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    same = key()
    assert key() == same
    others = [
        key(data="e"),
        key(protocol=PROTOCOLS["deploy"]),
        key(protocol=replace(PROTOCOLS["paper"], conf=0.002)),
        key(protocol=replace(PROTOCOLS["paper"], iou=0.5)),
        key(runtime="onnxruntime"),
        key(precision="bf16"),
        key(threads=1),
        key(replace(fake_bundle(), mean=(0.5, 0.5, 0.5))),
        key(replace(fake_bundle(), classes=("person",))),
        key(replace(fake_bundle(), manifest={"files": {"a.onnx": {"sha256": "1", "bytes": 1}}})),
        key(replace(fake_bundle(), manifest={"files": {"a.onnx": {"sha256": "2", "bytes": 1}}})),
    ]
    for name, value in (("library_version", "9.9"), ("_source_digest", "x"), ("cpu_model", "Example 9000")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *arguments, value=value: value)
            others.append(key())
    monkeypatch.setattr(module, "__version__", "99")
    others.append(key())
    assert len({same, *others}) == len(others) + 1


def test_all_files_of_a_bundle_are_in_the_key(bundle_path: Path, tmp_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    files = bundle_files(bundle)
    assert {"hybridnets_128x256.onnx", "anchor_128_256.npy", "weights.safetensors"} <= files.keys()
    assert files["weights.safetensors"] == module.sha256_file(bundle_path / "weights.safetensors")
    # a bare file of another exporter: hashed here, with what lies beside it
    (tmp_path / "net.onnx").write_bytes(b"graph")
    (tmp_path / "net.onnx.data").write_bytes(b"weights")
    bare = replace(fake_bundle(), path=tmp_path / "net.onnx")
    bare = replace(bare, variants=(replace(bare.variants[0], file="net.onnx"),))
    assert bundle_files(bare).keys() == {"net.onnx", "net.onnx.data"}


def test_the_source_is_found() -> None:
    for pattern in module.DECISIVE:
        assert list(module.ROOT.glob(pattern)), pattern


def test_the_key_lies_there_for_people(store: RowStore) -> None:
    assert json.loads((store.folder / "key.json").read_text()) == {"a": 1}
    assert store.folder.name.startswith("c0-ort-fp32-")
