"""What a run says of samples that cannot be read, whichever process read them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, cast

import pytest
import torch

from hybridnets.errors import HnxError
from hybridnets.training import journal as journals
from hybridnets.training.data import Batch
from hybridnets.training.distributed import World
from hybridnets.training.events import Silent
from hybridnets.training.history import History, RunState
from hybridnets.training.journal import Journal
from hybridnets.training.log import TensorBoard
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


def steps_of(path: Path) -> list[tuple[int, int]]:
    """(epoch, step) of a table's rows."""
    return [(int(row.split(",")[1]), int(row.split(",")[0])) for row in path.read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("logged", "kept", "purged"),
    [
        ((2, 9), [(0, 3), (1, 6), (2, 9)], 10),  # cut off behind the row of step 10
        ((2, 8), [(0, 3), (1, 6)], 9),
        ((3, 4), [(0, 3), (1, 6), (2, 9), (3, 4)], None),  # epochs of three steps became epochs of one
        ((-1, 0), [], 1),
    ],
)
def test_rows_that_the_checkpoint_does_not_know_are_cut_off(
    logged: tuple[int, int],
    kept: list[tuple[int, int]],
    purged: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int | None] = []

    def board(folder: Path, step: int | None) -> TensorBoard:
        seen.append(step)
        return TensorBoard(None)

    monkeypatch.setattr(journals, "open_tensorboard", board)
    rows = [*kept, (3, 10), (3, 11)] if logged != (3, 4) else [*kept, (4, 5)]
    for name in ("log.csv", "validation.csv"):
        (tmp_path / name).write_text("\n".join(["step,epoch", *(f"{step},{epoch}" for epoch, step in rows)]) + "\n")
    state = RunState(3, 30, logged[1], History(validated_epoch=kept[-1][0] if kept else -1), logged)
    Journal(config(tmp_path, tmp_path), World(), Notes(), state, scored=False, resumed=True).close()
    assert steps_of(tmp_path / "log.csv") == steps_of(tmp_path / "validation.csv") == kept
    assert seen == [purged]
