"""Statistics of batch norms computed from images are those of the images, and nothing else of a network moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hybridnets.config import ModelConfig
from hybridnets.dataset import SampleReader, open_split
from hybridnets.network import HybridNets
from hybridnets.network.weights import create_model
from hybridnets.training import recalibrate
from hybridnets.training.data import collate, item_of
from hybridnets.training.freeze import freeze
from hybridnets.training.recalibrate import Recalibrator
from hybridnets.training.step import Normaliser
from tests.hybridnets.training.tiny import make_data, project

IMAGES = 10


@pytest.fixture
def network() -> HybridNets:
    return create_model(ModelConfig(compound_coef=0), 3)


@pytest.fixture
def reader(tmp_path: Path) -> SampleReader:
    return SampleReader(open_split(project(), make_data(tmp_path / "data", train=IMAGES), "train"), (256, 256))


def recalibrator(reader: SampleReader, images: int = 256) -> Recalibrator:
    made = project()
    normaliser = Normaliser(made.mean, made.std)
    return Recalibrator(reader, reader.split.names, normaliser, torch.device("cpu"), images=images, seed=1)


def norms(network: HybridNets) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}


def whole_batch(reader: SampleReader) -> torch.Tensor:
    made = project()
    batch = collate([item_of(reader.read(name)) for name in reader.split.names])
    return Normaliser(made.mean, made.std)(batch.images)


@pytest.mark.parametrize("batch", [3, 5, 32])
def test_first_batch_norm_has_the_moments_of_all_images(
    network: HybridNets, reader: SampleReader, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recalibrate, "BATCH", batch)
    recalibrator(reader).run(network)
    with torch.no_grad():
        stem = network.get_submodule("encoder._conv_stem")(whole_batch(reader)).double()
    found = norms(network)["encoder._bn0"]
    assert found.running_mean is not None
    assert found.running_var is not None
    torch.testing.assert_close(found.running_mean.double(), stem.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.running_var.double(), stem.var((0, 2, 3), correction=0), rtol=1e-3, atol=1e-4)


def test_one_batch_of_all_images_is_what_training_mode_would_use(network: HybridNets, reader: SampleReader) -> None:
    recalibrator(reader).run(network)
    images = whole_batch(reader)
    with torch.inference_mode():
        measured = network(images)
        for module in norms(network).values():
            module.train()
        trained = network(images)
    for name, found, expected in zip(measured._fields, measured, trained, strict=True):
        # the unbiased variance of the 40 numbers of the smallest map is 2.6 % above the biased one
        error = (found - expected).norm() / expected.norm()
        assert error < 0.2, name
    with torch.inference_mode():
        for module in norms(network).values():
            module.eval()
            module.reset_running_stats()
        before = network(images)
    assert all((b - t).norm() / t.norm() > 0.5 for b, t in zip(before, trained, strict=True))


def test_nothing_else_moves(network: HybridNets, reader: SampleReader) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    momenta = {name: module.momentum for name, module in norms(network).items()}
    network.train()
    recalibrator(reader).run(network)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.endswith(("running_mean", "running_var")) for name in moved)
    # _bn1 of the encoder takes no part in the forward pass
    assert {name for name in norms(network) if f"{name}.running_mean" not in moved} == {"encoder._bn1"}
    assert {name: module.momentum for name, module in norms(network).items()} == momenta
    assert not any(module.training for module in network.modules())


def test_statistics_before_do_not_matter(network: HybridNets, reader: SampleReader) -> None:
    recalibrator(reader).run(network)
    once = {name: value.clone() for name, value in network.state_dict().items()}
    for module in norms(network).values():
        assert module.running_mean is not None
        module.running_mean.uniform_(-1, 1)
    recalibrator(reader).run(network)
    unused = "encoder._bn1.running_mean"
    assert all(torch.equal(value, once[name]) for name, value in network.state_dict().items() if name != unused)


def test_frozen_parts_keep_their_statistics(network: HybridNets, reader: SampleReader) -> None:
    freeze(network, backbone=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    recalibrator(reader).run(network)
    moved = {name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"regressor", "classifier", "bifpndecoder"}


def test_too_few_images_and_none_asked_for(network: HybridNets, reader: SampleReader) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for images in (0, 1):
        recalibrator(reader, images).run(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_broken_images_are_left_out(network: HybridNets, reader: SampleReader) -> None:
    names = reader.split.names
    expected = recalibrator(reader)
    expected.names = names[:7]
    expected.run(network)
    wanted = {name: value.clone() for name, value in network.state_dict().items()}
    for name in names[7:]:
        reader.split.files(name).image.write_bytes(b"no picture")
    some = recalibrator(reader)
    some.names = names
    some.run(network)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-7)
    for name in names:
        reader.split.files(name).image.write_bytes(b"no picture")
    some.run(network)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-7)


def test_an_error_on_the_way_leaves_the_network_as_it_was(
    network: HybridNets, reader: SampleReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made = recalibrator(reader)

    def interrupted(images: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(made, "normaliser", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.run(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert all(module.momentum == 0.01 for module in norms(network).values())
