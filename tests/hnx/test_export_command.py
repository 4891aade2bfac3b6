"""Which size `hnx export` exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from export import exporter
from export.config import ExportConfig
from hnx.__main__ import main
from hybridnets.errors import ExitCode, HnxError


@pytest.mark.parametrize(
    ("words", "size"),
    [
        # at another size than they were trained at, the shipped weights lose 13 points of road and of lanes
        ([], (384, 256)),
        (["--width", "640"], (640, 384)),
        (["--height", "256"], (640, 256)),
        (["--size", "512x256"], (512, 256)),
        (["-w", "untrained"], (640, 384)),
    ],
)
def test_the_size_is_what_was_asked_for_else_that_of_the_weights(
    words: list[str], size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[ExportConfig] = []

    def keep(config: ExportConfig, step: object) -> None:
        found.append(config)
        raise HnxError("Far enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exporter, "export_bundles", keep)
    assert main(["export", *words]) == ExitCode.FAILED
    assert found[0].sizes == (size,)


def test_two_ways_to_name_a_size_at_once() -> None:
    assert main(["export", "--size", "640x384", "--width", "640"]) == ExitCode.USAGE
