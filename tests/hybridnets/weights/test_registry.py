"""The list of weights: what may stand in it, and what a damaged one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridnets.errors import HnxError
from hybridnets.files import write_json
from hybridnets.weights import UPSTREAM, WeightsEntry, entries, find, registry, shipped

ENTRY = WeightsEntry(
    name="c0-384x256",
    compound_coef=0,
    size=(384, 256),
    activation="swish",
    classes=("car",),
    seg_classes=("road", "lane"),
    licence="MIT",
    summary="a test",
    file="c0-384x256-00000000.safetensors",
    bytes=3,
    sha256="a" * 64,
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "FILES", tmp_path)
    return tmp_path


def write(files: Path, *values: Any, version: object = 1) -> None:
    write_json(files / "index.json", {"schema_version": version, "weights": list(values)})


def test_with_nothing_shipped_upstreams_is_known(files: Path) -> None:
    assert shipped() == ()
    assert entries() == (UPSTREAM,)
    assert find("hybridnets-v1") == UPSTREAM
    assert not UPSTREAM.is_shipped


def test_what_is_listed_comes_first_and_survives_json(files: Path) -> None:
    write(files, ENTRY.to_json(), replace(ENTRY, name="c0-384x256-hardswish", activation="hardswish").to_json())
    assert [entry.name for entry in entries()] == ["c0-384x256", "c0-384x256-hardswish", "hybridnets-v1"]
    assert shipped()[0] == ENTRY
    assert find("c0-384x256").is_shipped


def test_an_unknown_name_gets_a_suggestion(files: Path) -> None:
    with pytest.raises(HnxError, match="no weights called") as caught:
        find("hybridnet-v1")
    assert "did you mean 'hybridnets-v1'" in caught.value.why
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../a"},
        {"name": 3},
        {"file": "../../etc/passwd"},
        {"file": ".hidden"},
        {"compound_coef": 9},
        {"compound_coef": "x"},
        {"activation": "gelu"},
        {"size": [100, 100]},
        {"size": 3},
        {"classes": []},
        {"classes": "car"} | {"classes": [1]},
        {"sha256": "abc"},
        {"sha256": None},
        {"bytes": None},
        {"bytes": "many"},
        {"url": "file:///etc/passwd"},
        {"url": "https://example.org/a"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_damaged_list_is_said_to_be_damaged(files: Path, change: dict[str, Any]) -> None:
    write(files, {**ENTRY.to_json(), **change})
    with pytest.raises(HnxError, match="Cannot read the list of shipped weights") as caught:
        entries()
    assert "install hnx again" in caught.value.fix


def test_missing_keys_double_names_and_other_versions(files: Path) -> None:
    values = ENTRY.to_json()
    write(files, {key: value for key, value in values.items() if key != "licence"})
    with pytest.raises(HnxError, match="licence"):
        shipped()
    write(files, values, values)
    with pytest.raises(HnxError, match="twice"):
        shipped()
    write(files, {**values, "name": UPSTREAM.name})
    with pytest.raises(HnxError, match="twice"):
        shipped()
    write(files, values, version=2)
    with pytest.raises(HnxError, match="version"):
        shipped()
    (files / "index.json").write_text("[")
    with pytest.raises(HnxError, match="JSON"):
        shipped()


def test_what_is_in_the_package_is_whole() -> None:
    from hybridnets.weights import verified

    for entry in shipped():
        assert verified(entry).stat().st_size == entry.bytes
