"""Single steps: accumulation, freezing, numbers that are not finite, mixed precision."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from hybridnets.dataset import SampleReader, open_split
from hybridnets.network import HybridNets, Outputs, create_model
from hybridnets.training.data import Batch, BatchPlan, TrainingSet, training_batches
from hybridnets.training.distributed import World
from hybridnets.training.freeze import PARTS, freeze
from hybridnets.training.losses import HybridLoss
from hybridnets.training.step import Float32Sigmoid, Normaliser, TrainStep, make_optimizer, seed_step
from hybridnets.training.task import make_criterion
from tests.hybridnets.training.tiny import config, make_data

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DET, SEG = PARTS["det"], PARTS["seg"]


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[Batch]:
    torch.set_num_threads(1)
    data = make_data(tmp_path_factory.mktemp("data"))
    run = config(data, data)
    split = open_split(run.project, data, "train")
    plan = BatchPlan(len(split), 2)
    dataset = TrainingSet(SampleReader(split, run.target), split.names)
    return [step[0] for step in training_batches(dataset, plan, workers=0)]


@pytest.fixture(scope="module")
def initial(batches: list[Batch]) -> HybridNets:
    del batches
    return create_model(config(Path(), Path()).model_config, 0).train()


def runner(network: HybridNets, **options: object) -> TrainStep:
    values: dict[str, object] = {"clip_norm": 0.0}
    loss = HybridLoss((128, 128), "multiclass", det=DET[0] not in network.frozen, seg=SEG[0] not in network.frozen)
    optimizer = make_optimizer("sgd", list(network.parameters()), lr=1e-3, weight_decay=0.0, device=torch.device("cpu"))
    return TrainStep(network, make_criterion(loss), optimizer, Normaliser(MEAN, STD), World(), **{**values, **options})  # type: ignore[arg-type]


def grads(network: HybridNets) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_the_normaliser_is_the_formula_and_keeps_channels_last() -> None:
    images = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).view(2, 4, 5, 3)
    got = Normaliser(MEAN, STD)(images)
    assert got.is_contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    torch.testing.assert_close(got, (images.permute(0, 3, 1, 2).float() / 255 - mean) / std, rtol=1e-5, atol=1e-5)


def test_accumulation_averages_the_gradients_of_its_batches(initial: HybridNets, batches: list[Batch]) -> None:
    found = []
    for share in ([batches[0]], [batches[1]], batches[:2]):
        network = copy.deepcopy(initial)
        network.set_stochastic(False)
        runner(network).run(share, 0)
        found.append(grads(network))
    first, second, both = found
    for name, value in both.items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("part", ["backbone", "det", "seg"])
def test_a_step_changes_no_bit_of_a_frozen_part(part: str, initial: HybridNets, batches: list[Batch]) -> None:
    network = copy.deepcopy(initial)
    freeze(network, backbone=part == "backbone", det=part == "det", seg=part == "seg")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result, _ = runner(network).run(batches[:1], 0)
    assert not result.skipped
    changed = {name.partition(".")[0] for name, value in network.state_dict().items() if not value.equal(before[name])}
    assert changed == {name for names in PARTS.values() for name in names} - set(PARTS[part])
    assert (float(result.terms["cls"]) == 0) == (part == "det")


@pytest.mark.parametrize("place", ["loss", "weights"])
def test_what_is_not_finite_changes_nothing_and_names_its_samples(
    place: str, initial: HybridNets, batches: list[Batch]
) -> None:
    network, bad = copy.deepcopy(initial), batches[1]
    step = runner(network)
    if place == "loss":
        healthy = step.criterion

        def criterion(outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
            terms = healthy(outputs, batch)
            return {**terms, "loss": terms["loss"] * (torch.nan if batch.names == bad.names else 1.0)}

        step.criterion = criterion
    else:
        with torch.no_grad():  # activations overflow: running statistics must not be poisoned
            network.encoder._conv_stem.weight.fill_(1e38)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result, _ = step.run([batches[0], bad] if place == "loss" else [bad], 3)
    assert result.skipped
    assert result.suspects == bad.names
    floats = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    assert all(value.equal(before[name]) for name, value in floats.items())


def test_clipping_limits_the_change_and_not_the_reported_norm(initial: HybridNets, batches: list[Batch]) -> None:
    network = copy.deepcopy(initial)
    result, _ = runner(network, clip_norm=0.5).run(batches[:1], 0)
    assert result.norm is not None
    assert float(result.norm) > 0.5
    assert float(torch.stack([g.square().sum() for g in grads(network).values()]).sum().sqrt()) == pytest.approx(
        0.5, 1e-3
    )


def test_bf16_stays_near_float32_and_the_scores_keep_their_precision(initial: HybridNets, batches: list[Batch]) -> None:
    losses = []
    for dtype in (None, torch.bfloat16):
        network = copy.deepcopy(initial)
        network.set_stochastic(False)
        network.classifier.final = Float32Sigmoid()
        result, _ = runner(network, dtype=dtype).run(batches[:1], 0)
        losses.append(result.read()["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.15)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score = Float32Sigmoid()(torch.tensor([6.25], dtype=torch.bfloat16))
    assert float(score) == pytest.approx(0.998073, abs=1e-6)


def test_random_numbers_follow_from_seed_step_batch_and_process() -> None:
    drawn = set()
    for key in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]:
        seed_step(*key)
        drawn.add(float(torch.rand(())))
    assert len(drawn) == 5
    seed_step(0, 0, 0, 0)
    assert float(torch.rand(())) in drawn


def test_a_gradient_nobody_waited_for_is_told_by_the_next_step(initial: HybridNets, batches: list[Batch]) -> None:
    network, (bad, good) = copy.deepcopy(initial), batches[:2]
    step = runner(network)
    step.defers = True  # as on CUDA, whose kernels look at the flag themselves; those of the CPU can, too
    healthy, weight = step.criterion, network.encoder._conv_stem.weight

    def criterion(outputs: Outputs, batch: Batch) -> Mapping[str, torch.Tensor]:
        terms = healthy(outputs, batch)
        infinite = (weight - weight.detach()).sum().sqrt()  # 0, with the gradient 1 / 0
        return {**terms, "loss": terms["loss"] + (infinite if batch.names == bad.names else 0.0)}

    step.criterion = criterion
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    first, _ = step.run([bad], 0)
    assert not first.skipped
    assert first.late is None
    assert all(p.equal(before[name]) for name, p in network.named_parameters())
    second, _ = step.run([good], 1)
    assert second.late == bad.names
    assert not second.skipped
    assert not weight.equal(before["encoder._conv_stem.weight"])
    assert step.run([good], 2)[0].late is None
