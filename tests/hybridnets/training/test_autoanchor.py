"""Anchors fitted to boxes whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hybridnets.anchors import AnchorRule
from hybridnets.config import STRIDES
from hybridnets.dataset import SampleReader, open_split
from hybridnets.errors import HnxError
from hybridnets.project import load_project
from hybridnets.training import autoanchor
from hybridnets.training.autoanchor import AnchorFitness, fit_anchors, label_sizes, measure
from hybridnets.training.losses import detection
from tests.hybridnets.training.tiny import make_data, project

KIT = Path(__file__).parents[2] / "data" / "parity" / "dataset"


def _boxes(rule: AnchorRule, count: int, noise: float, seed: int = 0) -> NDArray[np.float64]:
    """Sizes of anchors of a rule, drawn at random, each side times a factor near 1."""
    random = np.random.default_rng(seed)
    shapes = np.array(
        [
            (rule.anchor_scale * stride * scale * w, rule.anchor_scale * stride * scale * h)
            for stride in STRIDES
            for scale in rule.scales
            for w, h in rule.ratios
        ]
    )
    return shapes[random.integers(0, len(shapes), count)] * np.exp(noise * random.standard_normal((count, 2)))


@pytest.mark.parametrize(
    "known",
    [
        AnchorRule((1.0, 1.3, 1.7), ((0.5, 2.0), (0.8, 1.25), (1.25, 0.8))),  # high boxes
        AnchorRule((0.9, 1.15, 1.5), ((0.9, 1 / 0.9), (1.5, 1 / 1.5), (2.5, 0.4))),  # wide boxes
    ],
)
def test_a_known_rule_is_found_with_width_and_height_in_their_places(known: AnchorRule) -> None:
    found = fit_anchors(_boxes(known, 2000, 0.03), seed=1)
    assert found.rule.scales == pytest.approx(known.scales, rel=0.05)
    assert np.array(found.rule.ratios) == pytest.approx(np.array(known.ratios), rel=0.05)
    assert found.rule.anchor_scale == 1.25
    assert found.after.recall == 1.0
    assert found.after.iou > 0.94
    assert found.after.iou > found.before.iou
    assert found.before == measure(AnchorRule(), _boxes(known, 2000, 0.03))
    assert found.boxes == 2000


def test_damaged_label_files_are_left_out(tmp_path: Path) -> None:
    split = open_split(project(), make_data(tmp_path, train=4, val=1), "train")
    every = label_sizes(split, (128, 128))
    one = label_sizes(replace(split, names=split.names[:1]), (128, 128))
    split.files(split.names[0]).label.write_text('{"frames": [')
    assert np.array_equal(label_sizes(split, (128, 128)), every[len(one) :])
    for name in split.names:
        split.files(name).label.write_text("")
    with pytest.raises(HnxError, match="Cannot fit anchors to 0 boxes"):
        fit_anchors(label_sizes(split, (128, 128)))


def test_the_seed_decides_everything() -> None:
    sizes = np.random.default_rng(0).uniform(5.0, 200.0, (500, 2))
    assert fit_anchors(sizes, seed=3) == fit_anchors(sizes, seed=3)


@pytest.mark.parametrize("seed", range(3))
def test_never_worse_than_the_rule_so_far(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = np.exp(random.normal([3.0, 2.8], [0.9, 0.7], (300, 2)))
    perfect = AnchorRule((1.0, 1.3, 1.7), ((0.5, 2.0), (1.0, 1.0), (2.0, 0.5)))
    for boxes, rule in ((sizes, AnchorRule()), (_boxes(perfect, 300, 0.0), perfect)):
        found = fit_anchors(boxes, rule, seed=seed)
        assert found.after.recall + found.after.iou >= found.before.recall + found.before.iou
    assert found.rule == perfect
    assert found.after == AnchorFitness(1.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("rule", "shape"),
    [(AnchorRule(scales=(1.0,), ratios=((1.0, 1.0),) * 9), (60, 2)), (AnchorRule(), (9, 2))],
)
def test_few_or_equal_boxes_and_other_partitions_of_nine(rule: AnchorRule, shape: tuple[int, int]) -> None:
    found = fit_anchors(np.full(shape, 33.0), rule)
    assert found.after.iou == pytest.approx(1.0, abs=0.02)


def test_too_few_boxes_are_refused() -> None:
    with pytest.raises(HnxError) as caught:
        fit_anchors(np.full((8, 2), 20.0))
    assert "8 boxes" in caught.value.what


def test_measure_by_hand() -> None:
    # stride 8: 10x10 anchors only, stride 16: 20x20 and so on
    rule = AnchorRule((1.0, 1.0, 1.0), ((1.0, 1.0),) * 3)
    sizes = np.array([[10.0, 10.0], [20.0, 10.0], [40.0, 10.0], [4.0, 4.0], [3.0, 4.0]])
    # IoU: 1; 1/2 with either; 1/4 with 10x10 or 20x20 (200 of 600: 1/3); 16/100; 12/100
    found = measure(rule, sizes)
    assert found.iou == pytest.approx((1 + 1 / 2 + 1 / 3 + 0.16 + 0.12) / 5)
    assert found.recall == pytest.approx(3 / 5)  # small boxes need 0.15


def test_thresholds_are_those_of_the_losses() -> None:
    assert (autoanchor.SMALL_AREA, autoanchor.IOU, autoanchor.IOU_SMALL) == (
        detection._SMALL_AREA,
        detection._IOU,
        detection._IOU_SMALL,
    )


def test_sizes_are_those_that_training_sees() -> None:
    split = open_split(load_project(str(KIT / "project_nc1_multiclass.yml")), KIT)
    target = (384, 640)
    reader = SampleReader(split, target)
    boxes = np.concatenate([reader.read(name).boxes for name in split.names])
    expected = boxes[:, 2:4] - boxes[:, :2]
    expected = expected[(expected > 2).all(axis=1)]
    found = label_sizes(split, target)
    assert found == pytest.approx(expected)
    some = label_sizes(split, target, limit=5, seed=1)
    assert 0 < len(some) < len(found)
    assert np.array_equal(some, label_sizes(split, target, limit=5, seed=1))


def test_no_boxes_of_the_wanted_class() -> None:
    split = open_split(load_project(str(KIT / "project_nc1_multiclass.yml")), KIT)
    project = replace(split.project, classes=("unicorn",), combine=())
    assert label_sizes(replace(split, project=project), (384, 640)).shape == (0, 2)
