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


def measured(loss: float) -> Validation:
    return Validation(Scores(0.5, {"road": 0.5}, {"mAP50": 0.5}), {"loss": loss}, 2, ())


@pytest.mark.parametrize(
    ("before", "after", "recalibrated"),
    [
        (2.0, 1.0, True),
        (0.5, 1e8, False),
        (1.0, 1.0, True),
        (1.0, math.nan, False),
        (math.nan, 1.0, True),
    ],
)
def test_the_closer_statistics_stay(before: float, after: float, recalibrated: bool, tmp_path: Path) -> None:
    network = torch.nn.BatchNorm2d(2)
    average = SimpleNamespace(network=torch.nn.BatchNorm2d(2))
    found = iter((measured(before), measured(after)))

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
