"""What `-w` means, and that a file which changed is not used."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from hybridnets.errors import HnxError
from hybridnets.files import write_json
from hybridnets.weights import UPSTREAM, WeightsEntry, default_entry, pin, registry, resolve_weights, verified
from hybridnets.weights.download import download
from tests.hybridnets.weights.test_registry import ENTRY

DATA = b"abc"


def entry(name: str = "c0-384x256", **changes: object) -> WeightsEntry:
    digest = hashlib.sha256(DATA).hexdigest()
    return replace(ENTRY, name=name, file=f"{name}.safetensors", sha256=digest, **changes)  # type: ignore[arg-type]


def ship(folder: Path, *found: WeightsEntry) -> None:
    for one in found:
        (folder / one.file).write_bytes(DATA)
    write_json(folder / "index.json", {"schema_version": 1, "weights": [one.to_json() for one in found]})


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setattr(registry, "FILES", folder)
    monkeypatch.setenv("HNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_file_wins_over_a_name(files: Path) -> None:
    ship(files, entry())
    assert resolve_weights("c0-384x256") == files / "c0-384x256.safetensors"
    Path("c0-384x256").mkdir()  # a folder does not
    assert resolve_weights("c0-384x256") == files / "c0-384x256.safetensors"
    Path("c0-384x256").rmdir()
    Path("c0-384x256").write_bytes(b"mine")
    assert resolve_weights(Path("c0-384x256")) == Path("c0-384x256")


def test_what_is_no_file_but_there_is_left_to_the_reader(files: Path) -> None:
    Path("folder").mkdir()
    Path("link").symlink_to("nowhere")
    assert resolve_weights("folder") == Path("folder")
    assert resolve_weights("link") == Path("link")


def test_unknown_names_and_paths(files: Path) -> None:
    ship(files, entry())
    with pytest.raises(HnxError, match="no weights called 'c0-384x257'") as caught:
        resolve_weights("c0-384x257")
    assert "did you mean 'c0-384x256'" in caught.value.why
    assert caught.value.code == 2
    for text in ("runs/best.pth", "best.SAFETENSORS", "c0-384x256.pth"):
        with pytest.raises(HnxError, match="Cannot read the checkpoint") as caught:
            resolve_weights(text)
        assert "does not exist" in caught.value.why
        assert caught.value.code == 2


def test_upstreams_must_be_downloaded_first(files: Path, tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="not on this machine") as caught:
        resolve_weights("hybridnets-v1")
    assert "hnx weights download hybridnets-v1" in caught.value.fix
    assert str(tmp_path / "cache" / "weights" / "hybridnets.pth") in caught.value.why


def test_a_shipped_file_that_changed_is_refused(files: Path) -> None:
    ship(files, entry())
    (files / "c0-384x256.safetensors").write_bytes(b"abd")
    with pytest.raises(HnxError, match="not the file it should be") as caught:
        resolve_weights("c0-384x256")
    assert "install hnx again" in caught.value.fix
    (files / "c0-384x256.safetensors").unlink()
    with pytest.raises(HnxError, match="not where they should be"):
        resolve_weights("c0-384x256")


def test_the_first_use_of_a_copied_file_is_pinned(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "weights" / "hybridnets.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    assert resolve_weights("hybridnets-v1") == path
    assert pin(path).read_text().split() == [hashlib.sha256(DATA).hexdigest(), "hybridnets.pth"]
    path.write_bytes(b"other")
    with pytest.raises(HnxError, match="not the file it should be") as caught:
        resolve_weights("hybridnets-v1")
    assert str(pin(path)) in caught.value.fix
    pin(path).write_text("")
    with pytest.raises(HnxError, match="holds no digest"):
        verified(UPSTREAM)


def test_a_shipped_file_is_copied_where_a_folder_is_given(files: Path, tmp_path: Path) -> None:
    ship(files, entry())
    assert download(entry()) == files / "c0-384x256.safetensors"
    copied = download(entry(), tmp_path / "out")
    assert copied == tmp_path / "out" / "c0-384x256.safetensors"
    assert copied.read_bytes() == DATA


def test_the_default_fits_what_is_asked_for(files: Path) -> None:
    assert default_entry() is None
    small = entry("c0-384x256")
    twin = entry("c0-384x256-hardswish", activation="hardswish")
    wide = entry("c0-640x384", size=(640, 384))
    ship(files, small, twin, wide)
    assert default_entry() == small
    assert default_entry(0, activation="hardswish") == twin
    assert default_entry(0, size=(640, 384)) == wide
    assert default_entry(0, size=(1280, 768)) == small
    assert default_entry(3) is None
    assert default_entry(activation="relu") is None
    assert default_entry(classes=("car",), seg_classes=("road", "lane")) == small
    assert default_entry(classes=("car", "bus")) is None
    assert default_entry(seg_classes=("road",)) is None
    published = entry("c3-640x384", compound_coef=3)
    ship(files, small, twin, wide, published)
    assert default_entry() == published
    assert default_entry(0) == small
