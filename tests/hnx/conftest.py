"""Commands are tested for what they do, not for how long they measure."""

from __future__ import annotations

import pytest

from hnx import trials


@pytest.fixture(autouse=True)
def short_timing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short rounds where `hnx quantize` times INT8: 6 s of rounds for each target, in 30 tests, are minutes."""
    if request.module.__name__.rpartition(".")[2] != "test_budget_commands":
        monkeypatch.setattr(trials, "ROUNDS", 2)
        monkeypatch.setattr(trials, "ROUND_S", 0.01)
