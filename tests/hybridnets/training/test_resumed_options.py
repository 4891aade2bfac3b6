"""Every option that may change when a run goes on has its effect in the process that goes on."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridnets.training import resume
from hybridnets.training.config import TrainConfig
from hybridnets.training.data import plain_item
from hybridnets.training.loop import Loop
from hybridnets.training.optimizer import make_optimizer
from hybridnets.training.parts import _with_own_options
from hybridnets.training.resumed import _FIXED, _OWN, _SETTLED
from hybridnets.training.schedule import Schedule
from hybridnets.training.trainer import train
from tests.hybridnets.training.tiny import config, make_data


def _loss(loop: Loop) -> Any:
    return inspect.getclosurevars(loop.parts.step.criterion).nonlocals["loss"]


# field -> what it is changed to, and where the loop or its pieces have it
CHANGED: dict[str, tuple[Any, Callable[[Loop], Any]]] = {
    "batch_size": (3, lambda loop: loop.config.batch_size),
    "accumulate": (2, lambda loop: loop.config.accumulate),
    "epochs": (5, lambda loop: loop.state.steps),
    "lr": (0.02, lambda loop: loop.parts.schedule.lr),
    "weight_decay": (0.3, lambda loop: loop.parts.optimizer.param_groups[0]["weight_decay"]),
    "schedule": ("constant", lambda loop: loop.parts.schedule.kind),
    "warmup_steps": (2, lambda loop: loop.parts.schedule.warmup),
    "seg_weight": (3.0, lambda loop: _loss(loop).seg_weight),
    "clip_norm": (0.5, lambda loop: loop.parts.step.clip_norm),
    "ema": (True, lambda loop: loop.parts.average is not None),
    "ema_decay": (0.5, lambda loop: loop.parts.average and loop.parts.average.decay),
    "precise_bn": (3, lambda loop: len(loop.parts.recalibrator.names)),
    "amp": ("bf16", lambda loop: "bf16" if loop.parts.step.dtype == torch.bfloat16 else loop.parts.step.dtype),
    "channels_last": (False, lambda loop: loop.parts.step.normaliser.channels_last),
    "compile": (True, lambda loop: loop.parts.network._compiled_call_impl is not None),
    "sync_bn": (True, lambda loop: loop.config.sync_bn),
    "augment": (False, lambda loop: loop.parts.dataset.augment is not plain_item),
    "freeze_backbone": (True, lambda loop: "encoder" in loop.parts.network.frozen),
    "val_interval": (2, lambda loop: loop.config.val_interval),
    "save_interval": (9, lambda loop: loop.config.save_interval),
    "log_interval": (3, lambda loop: loop.config.log_interval),
    "keep_best": (2, lambda loop: loop.config.keep_best),
    "conf": (0.2, lambda loop: loop.config.conf),
    "iou": (0.3, lambda loop: loop.config.iou),
    "es_patience": (4, lambda loop: loop.config.es_patience),
    "es_min_delta": (0.1, lambda loop: loop.config.es_min_delta),
    "on_nan": ("stop", lambda loop: loop.config.on_nan),
    "seed": (7, lambda loop: loop.parts.step.seed),
    "limit": (5, lambda loop: len(loop.parts.dataset)),
}


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loop, Loop, Path]:
    """The loops of a run that begins and of one that goes on with everything changed; and the data of the latter."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    first, second = (make_data(tmp_path_factory.mktemp("data"), train=6, val=1) for _ in range(2))
    found: list[Loop] = []

    def run(self: Loop) -> None:
        found.append(self)
        self.checkpoints.save()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "run", run)
        train(config(first, folder, epochs=1, ema=False))
        values = {name: value for name, (value, _) in CHANGED.items()}
        train(config(second, folder, resume=True, **values), given={*values, "data"})
    return found[0], found[1], second


def test_all_that_may_change_are_looked_at() -> None:
    fields = {entry.name for entry in dataclasses.fields(TrainConfig)}
    assert fields - _OWN - _SETTLED - set(_FIXED) == {*CHANGED, "data"}


@pytest.mark.parametrize("name", CHANGED)
def test_what_changes_has_its_effect(name: str, loops: tuple[Loop, Loop, Path]) -> None:
    value, probe = CHANGED[name]
    before, after, _ = loops
    assert probe(before) != value
    assert probe(after) == value


def test_other_data_are_read(loops: tuple[Loop, Loop, Path]) -> None:
    split = loops[1].parts.dataset.reader.split
    assert loops[2] in split.files(split.names[0]).image.parents


def test_an_optimizer_keeps_its_own_options_and_takes_the_state() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    old, new = (
        make_optimizer("adamw", [parameter], lr=0.1, weight_decay=decay, device=torch.device("cpu"))
        for decay in (0.01, 0.5)
    )
    kernels = {name: new.param_groups[0][name] for name in ("fused", "foreach")}
    parameter.grad = torch.ones(3)
    old.step()
    state = old.state_dict()
    state["param_groups"][0] |= {"fused": False, "foreach": True}  # of another device
    new.load_state_dict(_with_own_options(new, resume.to_cpu(state)))
    assert new.param_groups[0]["weight_decay"] == 0.5
    assert {name: new.param_groups[0][name] for name in kernels} == kernels
    assert torch.equal(new.state[parameter]["exp_avg"], old.state[parameter]["exp_avg"])
    new.step()


def test_a_constant_rate_forgets_what_a_plateau_took_off() -> None:
    plateau = Schedule("plateau", 1.0, 10)
    for _ in range(6):
        plateau.end_epoch(1.0)
    assert plateau.rate(3) < 1.0
    constant = Schedule("constant", 1.0, 10)
    constant.load_state_dict(plateau.state_dict())
    assert constant.rate(3) == 1.0
