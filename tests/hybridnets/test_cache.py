"""Where the cache is, for every way of naming it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hybridnets.cache import cache_folder, compiled_folder
from hybridnets.errors import HnxError


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HNX_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_the_order_of_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "hnx"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "hnx"
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr(sys, "platform", "win32")
    assert cache_folder() == tmp_path / "local" / "hnx"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says its specification
    assert cache_folder() == tmp_path / "local" / "hnx"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "hnx"
    monkeypatch.setenv("HNX_CACHE", "mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("HNX_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    assert not any(tmp_path.iterdir())


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(HnxError, match="no folder") as caught:
        cache_folder()
    assert "HNX_CACHE" in caught.value.fix
    assert compiled_folder("openvino") is None


def test_off_is_for_compiled_networks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert compiled_folder("openvino") == tmp_path / "xdg" / "hnx" / "openvino"
    monkeypatch.setenv("HNX_CACHE", "off")
    assert compiled_folder("openvino") is None
    assert cache_folder() == tmp_path / "xdg" / "hnx"
    monkeypatch.setenv("HNX_CACHE", str(tmp_path / "mine"))
    assert compiled_folder("openvino") == tmp_path / "mine" / "openvino"
    assert not any(tmp_path.iterdir())
