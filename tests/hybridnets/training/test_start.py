"""Which weights a run starts from; what reading and drawing them does is tested beside those functions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridnets.training import start
from hybridnets.training.start import starting_network
from tests.hybridnets.training.tiny import config


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the encoder of a new network was to start from; nothing is built."""
    found: list[Any] = []
    monkeypatch.setattr(start, "create_model", lambda *_: SimpleNamespace(encoder=None))
    monkeypatch.setattr(start, "initialise", lambda *_, encoder, upstream: found.append(encoder))
    monkeypatch.setattr(start, "read_encoder", lambda path: ("efficientnet_pytorch", path))
    monkeypatch.setattr(start, "read_timm", lambda path: ("timm", path))
    return found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"encoder": Path("b0.pth")}, ("efficientnet_pytorch", Path("b0.pth"))),
        ({"backbone": "resnet18"}, None),
        ({"backbone": "resnet18", "encoder": "pretrained"}, "pretrained"),
        ({"backbone": "resnet18", "encoder": Path("r.safetensors")}, ("timm", Path("r.safetensors"))),
    ],
)
def test_an_encoder_of_either_kind(changes: dict[str, Any], expected: object, asked: list[Any], tmp_path: Path) -> None:
    starting_network(config(tmp_path, tmp_path, **changes), print)
    assert asked == [expected]


def test_a_run_that_goes_on_needs_no_encoder(asked: list[Any], tmp_path: Path) -> None:
    starting_network(config(tmp_path, tmp_path, resume=True, backbone="resnet18", encoder="pretrained"), print)
    assert not asked
