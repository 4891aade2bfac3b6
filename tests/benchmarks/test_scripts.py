"""What comparisons that are run by hand have in common."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scripts
from hybridnets.errors import ExitCode, HnxError


def test_how_a_script_ends(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise HnxError("Nothing ran", why="no reason", code=ExitCode.NOTHING_RAN)

    def interrupt() -> int:
        raise KeyboardInterrupt

    assert scripts.exit_code(lambda: 3) == 3
    assert scripts.exit_code(interrupt) == ExitCode.INTERRUPTED
    assert scripts.exit_code(fail) == ExitCode.NOTHING_RAN
    assert "no reason" in capsys.readouterr().err


def test_what_others_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "available_threads", lambda: 2)
    monkeypatch.setattr(scripts, "FOREIGN_LIMIT", 0.1)
    assert scripts.foreign_cores(2.0, 3.0) == 1.5
    assert scripts.foreign_cores(2.0, -0.1) == 0.0
    assert scripts.foreign_cores(2.0, None) is None
    assert [scripts.is_busy(value) for value in (None, 0.2, 0.21)] == [False, False, True]


def test_figures_are_plain_json(tmp_path: Path) -> None:
    scripts.write_figures(tmp_path / "a.json", {"spread": (1.0, 2.0)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"spread": [1.0, 2.0]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        scripts.write_figures(tmp_path / "b.json", {"ratio": float("nan")})
    assert not (tmp_path / "b.json").exists()
