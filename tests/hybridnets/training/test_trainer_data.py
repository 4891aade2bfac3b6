"""Which samples a step sees, and what happens to those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hybridnets.dataset import SampleReader, open_split
from hybridnets.errors import HnxError
from hybridnets.preprocess import Preprocessor
from hybridnets.training.augment import Augmenter, AugmentSettings
from hybridnets.training.data import BatchPlan, Ticket, TrainingSet, collate, plain_item, training_batches
from hybridnets.training.step import Normaliser
from tests.hybridnets.training.tiny import make_data, project


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def dataset(data: Path, *, augmented: bool = False) -> TrainingSet:
    split = open_split(project(), data, "train")
    augment = Augmenter(AugmentSettings()) if augmented else plain_item
    return TrainingSet(SampleReader(split, (128, 128)), split.names, augment, seed=3)


def samples(plan: BatchPlan) -> list[list[tuple[int, int]]]:
    return [[tuple(ticket) for ticket in batch] for batch in plan]


def test_every_epoch_is_another_permutation_of_all_samples() -> None:
    batches = samples(BatchPlan(12, 4, epochs=2, seed=1))
    first, second = ([sample for batch in part for _, sample in batch] for part in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert [epoch for batch in batches for epoch, _ in batch] == [0] * 12 + [1] * 12
    assert samples(BatchPlan(12, 4, epochs=2, seed=2)) != batches


def test_a_resumed_plan_is_the_rest_of_the_whole_one() -> None:
    whole = samples(BatchPlan(13, 2, accumulate=2, epochs=3, seed=5))
    rest = BatchPlan(13, 2, accumulate=2, epochs=3, start=4, seed=5)
    assert samples(rest) == whole[8:]
    assert len(rest) == len(whole) - 8


def test_processes_share_the_batch_that_one_would_have() -> None:
    whole = samples(BatchPlan(13, 4, accumulate=2, epochs=2, seed=5))
    parts = [samples(BatchPlan(13, 2, accumulate=2, rank=r, processes=2, epochs=2, seed=5)) for r in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_a_set_smaller_than_a_step_is_repeated() -> None:
    plan = BatchPlan(3, 8, epochs=1)
    assert plan.steps == 1
    seen = [sample for batch in samples(plan) for _, sample in batch]
    assert sorted(seen.count(sample) for sample in range(3)) == [2, 3, 3]


def test_a_plain_item_is_what_inference_sees(data: Path) -> None:
    found = dataset(data)[Ticket(0, 2)]
    sample = SampleReader(open_split(project(), data, "train"), (128, 128)).read(found.name)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected, _ = Preprocessor((128, 128), mean, std)(sample.frame)
    got = Normaliser(mean, std)(torch.from_numpy(found.image[None])).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_array_equal(found.target, sample.target)


def test_augmentation_follows_from_epoch_and_sample_alone(data: Path) -> None:
    first, again = dataset(data, augmented=True), dataset(data, augmented=True)
    one, same, later = first[Ticket(0, 1)], again[Ticket(0, 1)], again[Ticket(1, 1)]
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.boxes, same.boxes)
    assert not np.array_equal(one.image, later.image)


def test_workers_give_what_one_process_gives(data: Path) -> None:
    plan = BatchPlan(8, 2, epochs=1, seed=4)
    alone, helped = (
        [batch for step in training_batches(dataset(data, augmented=True), plan, workers=n) for batch in step]
        for n in (0, 2)
    )
    assert [b.names for b in alone] == [b.names for b in helped]
    for one, other in zip(alone, helped, strict=True):
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=0)
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=0)


def test_boxes_are_padded_with_rows_of_minus_one(data: Path) -> None:
    items = [dataset(data)[Ticket(0, index)] for index in range(4)]
    batch = collate(items)
    assert batch.boxes.shape == (4, max(len(item.boxes) for item in items), 5)
    assert [int((row[:, 4] >= 0).sum()) for row in batch.boxes] == [len(item.boxes) for item in items]
    assert batch.images.dtype == batch.target.dtype == torch.uint8


def test_a_broken_sample_is_replaced_by_the_next_and_named(tmp_path: Path) -> None:
    data = make_data(tmp_path, train=4)
    (data / "imgs" / "train" / "train_01.jpg").write_bytes(b"no picture")
    (data / "da_seg_annot" / "train" / "train_02.png").unlink()
    found = dataset(data)[Ticket(0, 1)]
    assert found.name == "train_03"
    assert [name for name, _ in found.broken] == ["train_01", "train_02"]
    for path in (data / "det_annot" / "train").glob("*.json"):
        path.write_text("{")
    with pytest.raises(HnxError, match="None of 4 neighbouring samples can be read"):
        next(training_batches(dataset(data), BatchPlan(4, 2), workers=0))
