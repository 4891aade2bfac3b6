"""Logs that are damaged, and an environment that says nonsense."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from hybridnets.errors import ExitCode, HnxError
from hybridnets.training.distributed import joined, own_device
from hybridnets.training.report import read_table


def test_a_damaged_table_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"step,loss\n1,0.5\n2,\xff\xfe\n3,0.25\n")
    found = read_table(path)
    assert found["step"] == [1.0, 2.0, 3.0]
    assert found["loss"][0] == 0.5
    assert math.isnan(found["loss"][1])
    path.write_bytes(b'step,loss\n1,"0.5\n' + b"x" * 200_000)
    assert read_table(path) == {} or "loss" in read_table(path)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
@pytest.mark.parametrize("text", ["one", "-1", "", "1.5"])
def test_numbers_of_torchrun_are_checked(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(HnxError, match=name) as caught, joined("cpu"):
        pass
    assert caught.value.code == ExitCode.USAGE


def test_a_device_of_ones_own() -> None:
    assert own_device("cpu").type == "cpu"
    with pytest.raises(HnxError, match="Cannot compute on nonsense"):
        own_device("nonsense")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", "hpu", "meta"])
def test_a_device_that_torch_was_built_without(name: str) -> None:
    with pytest.raises(HnxError, match=f"Cannot compute on {name}") as caught:
        own_device(name)
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert caught.value.why
