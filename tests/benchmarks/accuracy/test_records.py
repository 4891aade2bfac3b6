"""Files of records: equal after reading, and an HnxError for everything that is not one."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import records
from benchmarks.accuracy.records import CocoMatches, ImageRecord, read_records, write_records
from hybridnets.errors import HnxError
from tests.benchmarks.accuracy.simulated import pixels, record_of, same_record, scene

NAMES = ["plain", "", "a/b\n\x00\x1b[31m", "日本 \N{GRINNING FACE}", "\udcff lone surrogate", "x" * 5000]


def some(classes: int = 3) -> list[ImageRecord]:
    random = np.random.default_rng(0)
    return [
        record_of(name, scene(random, classes=classes), classes=classes, seg=pixels(random, 3), sha=f"{index:064x}")
        for index, name in enumerate(NAMES)
    ]


@pytest.mark.parametrize("classes", [3, 300])
def test_read_gives_what_was_written(tmp_path: Path, classes: int) -> None:
    made = [*some(classes), ImageRecord("nothing at all")]
    write_records(tmp_path / "a.npz", made)
    read = read_records(tmp_path / "a.npz")
    assert [item.name for item in read] == [*NAMES, "nothing at all"]
    # a record without classes takes the type of its neighbours, everything else is as it was
    assert all(same_record(*pair) for pair in zip(made[:-1], read[:-1], strict=True))
    assert len(read[-1].scores) == 0


def test_no_record_is_a_file_too(tmp_path: Path) -> None:
    write_records(tmp_path / "a.npz", [])
    assert read_records(tmp_path / "a.npz") == []


def test_same_records_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b"):
        write_records(tmp_path / name, some())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b"]


def test_six_bytes_a_prediction(tmp_path: Path) -> None:
    made = record_of("a", scene(np.random.default_rng(1), predictions=30_000))
    write_records(tmp_path / "a.npz", [made])
    assert len(made.scores) > 10_000
    assert (tmp_path / "a.npz").stat().st_size < 6 * len(made.scores) + 20_000


def assert_refused(path: Path) -> HnxError:
    with pytest.raises(HnxError) as caught:
        read_records(path)
    assert str(path) in caught.value.what
    return caught.value


def test_missing_file_or_folder(tmp_path: Path) -> None:
    assert "does not exist" in assert_refused(tmp_path / "none.npz").why
    assert_refused(tmp_path)
    with pytest.raises(HnxError):
        (tmp_path / "file").write_text("")
        write_records(tmp_path / "file" / "a.npz", some())


def test_cut_off_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_records(path, some())
    data = path.read_bytes()
    for end in range(0, len(data), len(data) // 40):
        path.write_bytes(data[:end])
        assert_refused(path)


def test_damaged_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_records(path, some())
    data, random, refused = path.read_bytes(), np.random.default_rng(2), 0
    for place in random.integers(0, len(data), 300).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(random.integers(0, 8)))]) + data[place + 1 :])
        try:
            read = read_records(path)
        except HnxError:
            refused += 1
        else:  # a date in the archive's directory decides nothing
            assert all(same_record(*pair) for pair in zip(some(), read, strict=True))
    assert refused > 200


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def good() -> dict[str, Any]:
    """The arrays of a sound file."""
    path = Path("records.npz")
    write_records(path, some())
    with np.load(path) as stored:
        return {key: stored[key] for key in stored.files}


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("evil").write_text, ("executed",))


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"PK\x05\x06" + bytes(18), npz(), npz(scores=np.zeros(3)), b"\x93NUMPY\x01\x00", pickle.dumps([1])],
)
def test_foreign_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    assert_refused(path)


def test_pickled_objects_are_never_run(tmp_path: Path) -> None:
    arrays = {**good(), "scores": np.array([Evil()], object)}
    (tmp_path / "evil.npz").write_bytes(npz(**arrays))
    assert_refused(tmp_path / "evil.npz")
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", np.zeros(3, np.uint8)),
        ("schema", np.array([records.SCHEMA + 1])),
        ("scores", np.zeros(3)),
        ("scores", np.zeros((2, 2), np.float32)),
        ("scores_count", np.array([-1, 1, 0, 0, 0, 0])),
        ("scores_count", np.zeros(6, np.int64)),
        ("hits_count", np.zeros(6)),
        ("name", np.array([255, 254], np.uint8)),
        ("seg", np.zeros((6, 3), np.int64)),
        ("input_sha256_count", np.zeros(0, np.int64)),
        ("schema", np.float32(1)),
        ("scores_count", np.int64(3)),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(npz(**{**good(), key: value}))
    assert_refused(path)


def test_a_missing_array_and_a_wrong_place(tmp_path: Path) -> None:
    arrays = good()
    path = tmp_path / "a.npz"
    path.write_bytes(npz(**{key: value for key, value in arrays.items() if key != "hits"}))
    assert_refused(path)
    assert len(arrays["rows"])
    path.write_bytes(npz(**{**arrays, "rows": arrays["rows"] + 100_000}))
    assert_refused(path)


def test_compressed_files_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scores.npy", bytes(1 << 20))
    assert "compressed" in assert_refused(path).why


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream,
        {"descr": "<f4", "fortran_order": False, "shape": (1 << 50,)},  # 4 PiB
    )
    path = tmp_path / "big.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scores.npy", stream.getvalue())
    assert_refused(path)


def test_lengths_have_to_agree() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        ImageRecord("a", scores=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="differ in length"):
        ImageRecord("a", coco=CocoMatches(matched=np.zeros(1, np.uint64)))
