"""The plain step computes what ours does, and both are timed in turns."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks.training import compare
from benchmarks.training.__main__ import main
from benchmarks.training.inputs import MEAN, STD, random_batch
from benchmarks.training.plain import plain_loss, plain_network
from hybridnets.anchors import make_anchors
from hybridnets.config import ModelConfig
from hybridnets.network import Outputs, create_model
from hybridnets.training.losses import HybridLoss
from hybridnets.training.step import Normaliser


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_both_sides_have_the_same_loss_and_gradients() -> None:
    size = (128, 128)
    network = create_model(ModelConfig(compound_coef=0), 0).train()
    network.set_stochastic(False)
    plain = plain_network(copy.deepcopy(network))
    batch = random_batch(size, 2, seed=1)
    images = Normaliser(MEAN, STD)(batch.images)
    ours = HybridLoss(size, "multiclass")(Outputs(*network(images)), batch.boxes, batch.target).total
    anchors = torch.from_numpy(make_anchors(*size)[0])
    theirs = plain_loss(*plain(images), anchors, batch.boxes, batch.target.long())
    assert float(theirs.detach()) == pytest.approx(float(ours.detach()), rel=1e-4)
    ours.backward()
    theirs.backward()
    one, other = (
        torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) for model in (network, plain)
    )
    assert one.numel() == other.numel()
    assert float(torch.nn.functional.cosine_similarity(one, other, dim=0)) > 0.9999


def test_the_ratio_is_the_median_over_rounds() -> None:
    found = compare.Comparison(ours=(1.0, 2.0, 9.0), plain=(2.0, 2.0, 3.0), images=4)
    assert found.ratio == 1.0
    assert found.to_json()["ratio"] == 1.0


def test_wrong_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--size", "big"])
    assert caught.value.code == 2
    assert "not a size such as 640x384" in capsys.readouterr().err
