"""What a run says of samples that cannot be read, whichever process read them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, cast

import torch

from hybridnets.errors import HnxError
from hybridnets.training.data import Batch
from hybridnets.training.distributed import World
from hybridnets.training.events import Silent
from hybridnets.training.history import RunState
from hybridnets.training.journal import Journal
from tests.hybridnets.training.tiny import config

T = TypeVar("T")


class Notes(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


class Two(World):
    """Rank 0 of two processes, of which the other could not read one sample."""

    def gather(self, value: T) -> list[T]:
        return [value, cast(T, [("far", "Cannot read it: damaged")])]


def batch(*broken: str) -> Batch:
    nothing = torch.zeros(0)
    errors = tuple((name, HnxError("Cannot read it", why="damaged")) for name in broken)
    return Batch(nothing, nothing, nothing, (), errors)


def test_samples_of_other_processes_are_told_with_the_progress(tmp_path: Path) -> None:
    heard, state = Notes(), RunState(2, 4)
    journal = Journal(config(tmp_path, tmp_path), Two(size=2), heard, state, scored=False, resumed=False)
    journal.broken_samples((batch("near"), batch("near")))
    assert not heard.texts  # nobody waits for the others in every step
    journal.tell_broken()
    journal.tell_broken()
    journal.close()
    assert heard.texts == [f"sample {name} is left out: Cannot read it: damaged" for name in ("near", "far")]
    assert state.history.broken == ["near", "far"]


def test_one_process_tells_at_once(tmp_path: Path) -> None:
    heard, state = Notes(), RunState(2, 4)
    journal = Journal(config(tmp_path, tmp_path), World(), heard, state, scored=False, resumed=False)
    journal.broken_samples((batch(*(f"{index:02d}" for index in range(12))),))
    journal.close()
    assert len(heard.texts) == 11
    assert "counted only" in heard.texts[-1]
    assert len(state.history.broken) == 12
