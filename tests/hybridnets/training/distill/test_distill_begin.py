"""With which statistics a student begins."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hybridnets.training.distill.begin import BEGINNING, RECALIBRATED, SWAPPED, adapt
from hybridnets.training.distill.config import DistillConfig
from hybridnets.training.distributed import World
from hybridnets.training.events import Silent
from hybridnets.training.validation import Scores, Validation
from tests.hybridnets.training.tiny import config


class Notes(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def measured(agreement: float, loss: float = 1.0) -> Validation:
    scores = Scores(agreement, {"road": agreement}, {"mAP50": agreement})
    return Validation(scores, {"loss": loss}, 2, ())


@pytest.mark.parametrize(
    ("before", "after", "recalibrated"),
    [
        (measured(0.3), measured(0.8), True),
        (measured(0.9), measured(0.0), False),
        (measured(0.0), measured(0.0), True),
        (measured(0.0), measured(0.0, math.nan), False),
    ],
)
def test_the_closer_statistics_stay(before: Validation, after: Validation, recalibrated: bool, tmp_path: Path) -> None:
    network = torch.nn.BatchNorm2d(2)
    average = SimpleNamespace(network=torch.nn.BatchNorm2d(2))
    found = iter((before, after))

    def recalibrate(_: torch.nn.Module) -> None:
        assert network.running_mean is not None
        network.running_mean.fill_(7.0)

    parts: Any = SimpleNamespace(
        network=network,
        average=average,
        validator=SimpleNamespace(run=lambda *_: next(found)),
        recalibrator=SimpleNamespace(run=recalibrate),
    )
    heard = Notes()
    student = DistillConfig(tmp_path / "teacher.pth", ("frames",))
    adapt(config(tmp_path, tmp_path, distill=student, precise_bn=2), World(), parts, heard)
    for module in (network, average.network):
        assert module.running_mean.tolist() == ([7.0, 7.0] if recalibrated else [0.0, 0.0])
    told = [text for text in heard.texts if "--precise-bn 2 frames are left out" in text]
    assert len(told) == (0 if recalibrated else 1)
    assert list(json.loads((tmp_path / BEGINNING).read_text())) == [SWAPPED, RECALIBRATED]
