from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hybridnets.errors import HnxError
from tools.convert import jsonstream
from tools.convert.jsonstream import Place, elements, read_place

FRAMES: list[Any] = [
    {"name": "a.jpg", "labels": [{"x": 1.5e-3, "t": 'quote " and \\ and }]'}]},
    {"name": "straße-日本.jpg", "labels": None},
    {"name": "c.jpg", "labels": [[], {}, [[1], [2, {"deep": "x" * 3000}]]]},
]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.fixture(params=[7, 64, 1 << 20])
def _chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonstream, "_CHUNK", request.param)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_places_decode_to_the_same_values(tmp_path: Path, indent: int | None, ascii_only: bool) -> None:
    path = write(tmp_path / "a.json", json.dumps(FRAMES, indent=indent, ensure_ascii=ascii_only))
    found = list(elements(path))
    assert [element.index for element in found] == [0, 1, 2]
    assert [read_place(Place(path, e.offset, e.length)) for e in found] == FRAMES


@pytest.mark.usefixtures("_chunk")
def test_objects_of_lists_and_values(tmp_path: Path) -> None:
    whole = {"groups": None, "frames": FRAMES, "config": {"imageSize": {"width": 9}}, "empty": [], "n": 12345678}
    path = write(tmp_path / "a.json", b"\xef\xbb\xbf" + json.dumps(whole).encode())
    found = [(e.key, e.index) for e in elements(path)]
    frames = [("frames", 0), ("frames", 1), ("frames", 2)]
    assert found == [("groups", None), *frames, ("config", None), ("n", None)]
    last = list(elements(path))[-1]
    assert last.value == 12345678
    assert read_place(Place(path, last.offset, last.length)) == 12345678


@pytest.mark.parametrize("text", ["[]", "{}", " [ ] ", "[1]", '{"a": 1}'])
def test_small_files(tmp_path: Path, text: str) -> None:
    assert [e.value for e in elements(write(tmp_path / "a.json", text))] == [1] * text.count("1")


@pytest.mark.usefixtures("_chunk")
def test_broken_in_the_middle_names_byte_and_frame(tmp_path: Path) -> None:
    good = json.dumps(FRAMES[0])
    text = f'[{good}, {{"name": "b.jpg", "labels": [{{"x": 1 2}}]}}, {good}]'
    path = write(tmp_path / "a.json", text)
    seen = []
    with pytest.raises(HnxError) as caught:
        seen.extend(elements(path))
    assert len(seen) == 1
    assert f"byte {text.index('2}]')}" in caught.value.why
    assert "in element 1 (the one after 'a.jpg')" in caught.value.why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ('"text"', "neither a list nor an object"),
        ('[{"name": "a"}', "ends where"),
        ('[{"name": "a"} {"name": "b"}]', "',' or ']' is missing"),
        ('[{"name": "a"}] x', "more after the end"),
        ('[{"name": "a', "Unterminated string"),
        ('{"a": 1, 2: 3}', "a key is missing"),
        ("[" * 100_000, "no JSON that can be read"),
        ("[1" + "0" * 5000 + "]", "no JSON that can be read"),
        ("[{}]".encode("utf-16"), "not UTF-8"),
    ],
)
def test_bad_files(tmp_path: Path, text: str | bytes, why: str) -> None:
    path = write(tmp_path / "a.json", text)
    with pytest.raises(HnxError, match="Cannot read") as caught:
        list(elements(path))
    assert why in caught.value.why


def test_a_string_that_never_ends_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonstream, "MAX_ELEMENT", 1000)
    monkeypatch.setattr(jsonstream, "_CHUNK", 64)
    path = write(tmp_path / "a.json", '["' + "x" * 100_000)
    read: list[int] = []
    with pytest.raises(HnxError, match="more than 1000 bytes"):
        list(elements(path, read.append))
    assert sum(read) < 10_000


def test_not_a_number_is_read_and_left_to_the_caller(tmp_path: Path) -> None:
    (element,) = elements(write(tmp_path / "a.json", "[NaN]"))
    assert element.value != element.value


def test_a_file_that_changed_since(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"name": "a"}]')
    (element,) = elements(path)
    write(path, "[1]")
    with pytest.raises(HnxError, match="Cannot read"):
        read_place(Place(path, element.offset, element.length))
    with pytest.raises(HnxError, match="Cannot read"):
        read_place(Place(tmp_path / "missing.json", 0, 1))
