"""The copy of a bundle that a search puts its networks into."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hnx.trials import trials
from hybridnets.bundle import open_bundle


def test_a_search_removes_what_a_killed_one_left(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("benchmarks.accuracy.quick.read_samples", lambda *_: [])
    left = tmp_path / "hnx-trials-abcdefgh"
    left.mkdir()
    os.utime(left, (1e9, 1e9))
    unused: Any = None
    with trials(open_bundle(bundle_path), "openvino", unused, unused, unused, 1, 1) as networks:
        (folder,) = tmp_path.iterdir()
        assert networks.bundle.path.parent == folder != left
    assert not list(tmp_path.iterdir())
