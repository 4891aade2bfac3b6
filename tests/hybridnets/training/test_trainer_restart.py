"""A run that was stopped early and is continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridnets.training.distributed import World
from hybridnets.training.history import History, RunState
from hybridnets.training.loop import Loop
from hybridnets.training.stopping import StopRequest
from tests.hybridnets.training.tiny import config


class Told:
    """A journal that remembers its notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize(("patience", "goes_on"), [(0, True), (3, True), (2, False), (1, False)])
def test_a_run_that_was_stopped_early_goes_on_with_more_patience(
    patience: int, goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(Loop, "_steps", lambda self: done.append("steps"))
    monkeypatch.setattr(Loop, "_validate", lambda self, epoch: done.append(f"validation {epoch}"))
    # three epochs of one step, the first of which was the best
    state = RunState(1, 9, 3, History(validated_epoch=2, improved_epoch=0, stopped_early=True))
    journal, left = Told(), None
    unused: Any = left
    run = config(tmp_path, tmp_path, epochs=9, es_patience=patience)
    Loop(run, World(), unused, state, unused, journal, StopRequest()).run()  # type: ignore[arg-type]
    assert done == (["steps", "validation 8"] if goes_on else [])
    assert state.history.stopped_early is not goes_on
    assert [text for text in journal.texts if "no better network for 2 epochs" in text] == journal.texts
    assert bool(journal.texts) is not goes_on
