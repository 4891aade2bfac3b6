"""From raw outputs to records: every mode and protocol, and networks with one head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.accuracy.protocols import PROTOCOLS, Heads, Protocol
from benchmarks.accuracy.scoring import ImageScorer
from hybridnets.anchors import make_anchors
from hybridnets.config import SegMode
from hybridnets.dataset import Sample
from hybridnets.dataset.masks import combine, letterbox_mask
from hybridnets.errors import ExitCode, HnxError
from hybridnets.postprocess import Postprocessor
from hybridnets.preprocess import Letterbox
from tests.benchmarks.accuracy.simulated import same_record

TARGET = (128, 256)
FRAME = (180, 400)  # not 16:9: padding above and below, and a scale that is no whole number
ANCHORS = make_anchors(TARGET[1], TARGET[0])
COUNT = ANCHORS.size // 4
MODES: tuple[SegMode, ...] = ("binary", "multiclass", "multilabel")


def heads_of(mode: SegMode, classes: int = 3) -> Heads:
    return Heads(tuple(f"c{i}" for i in range(classes)), ("road",) if mode == "binary" else ("road", "lane"), mode)


def sample(mode: SegMode, *, classes: int = 3, seed: int = 0) -> Sample:
    random = np.random.default_rng(seed)
    place = Letterbox.fit(FRAME, TARGET)
    heads = heads_of(mode)
    masks = [(random.random(FRAME) < 0.4).astype(np.uint8) for _ in heads.seg_classes]
    corner = random.uniform(0, 80, (5, 2))
    boxes = np.concatenate([corner, corner + random.uniform(10, 60, (5, 2)), random.integers(0, classes, (5, 1))], 1)
    return Sample(
        name=f"s{seed}",
        frame=np.zeros((*FRAME, 3), np.uint8),
        letterbox=place,
        boxes=boxes,
        categories=("car",) * 5,
        target=combine([letterbox_mask(mask, place) for mask in masks], heads.seg_classes, mode),
        frame_target=combine(masks, heads.seg_classes, mode),
    )


def outputs(heads: Heads, seed: int = 0) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    scores = random.uniform(0, 1, (1, COUNT, len(heads.classes))) ** 6
    return {
        "regression": (0.3 * random.standard_normal((1, COUNT, 4))).astype(np.float32),
        "classification": scores.astype(np.float32),
        "segmentation": random.standard_normal((1, len(heads.channels), *TARGET)).astype(np.float32),
    }


def counts(predicted: NDArray[Any], true: NDArray[Any]) -> list[int]:
    ours, theirs = predicted.astype(bool), true.astype(bool)
    return [int(part.sum()) for part in (ours & theirs, ours & ~theirs, ~ours & theirs, ~ours & ~theirs)]


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    raised = np.exp(logits.astype(np.float64))
    return raised / raised.sum(axis=0)


@pytest.mark.parametrize("mode", MODES)
def test_pixels_at_the_input(mode: SegMode) -> None:
    heads, made = heads_of(mode), sample(mode)
    given = outputs(heads)
    record = ImageScorer(PROTOCOLS["paper"], heads, TARGET, ANCHORS).score(made, given)
    logits = given["segmentation"][0]
    for channel in range(len(heads.channels)):
        if mode == "multiclass":
            want = counts(softmax(logits).argmax(axis=0) == channel, made.target == channel)
        else:
            want = counts(1 / (1 + np.exp(-logits[channel].astype(np.float64))) >= 0.5, made.target[channel])
        assert record.seg[channel].tolist() == want
    # the padding is scored too
    assert record.seg.sum(axis=1).tolist() == [TARGET[0] * TARGET[1]] * len(heads.channels)


@pytest.mark.parametrize("mode", MODES)
def test_pixels_at_the_frame_are_those_delivered(mode: SegMode) -> None:
    heads, made = heads_of(mode), sample(mode)
    given = outputs(heads)
    record = ImageScorer(PROTOCOLS["deploy"], heads, TARGET, ANCHORS).score(made, given)
    prediction = Postprocessor(ANCHORS, TARGET, mode)(given, made.letterbox)
    extra = len(heads.channels) - len(heads.seg_classes)
    assert made.frame_target is not None
    masks = [prediction.mask(index) for index in range(len(heads.seg_classes))]
    for place, mask in enumerate(masks):
        true = made.frame_target == place + 1 if mode == "multiclass" else made.frame_target[place + extra]
        assert record.seg[place + extra].tolist() == counts(mask, true)
    if extra:
        background = ~np.logical_or.reduce(masks)
        true = made.frame_target == 0 if mode == "multiclass" else made.frame_target[0]
        assert record.seg[0].tolist() == counts(background, true)
    assert record.seg.sum(axis=1).tolist() == [FRAME[0] * FRAME[1]] * len(heads.channels)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_boxes_are_those_of_the_postprocessor(name: str) -> None:
    heads, made, protocol = heads_of("multiclass"), sample("multiclass"), PROTOCOLS[name]
    given = outputs(heads)
    record = ImageScorer(protocol, heads, TARGET, ANCHORS).score(made, given, "f" * 64)
    found = Postprocessor(ANCHORS, TARGET, conf=protocol.conf, iou=protocol.iou)(given, made.letterbox).detections
    assert np.array_equal(record.scores, found.scores)
    assert np.array_equal(record.classes, found.classes)
    assert record.labels.tolist() == made.boxes[:, 4].tolist()
    assert (record.name, record.input_sha256) == ("s0", "f" * 64)
    assert (record.classes.dtype, record.labels.dtype, record.scores.dtype) == (np.uint8, np.uint8, np.float32)


def exact_outputs(made: Sample, heads: Heads, grow: float = 1.0) -> dict[str, NDArray[Any]]:
    """Predictions that are the labels, their height times `grow`."""
    given = outputs(heads)
    given["classification"][:] = 0
    anchors = ANCHORS.reshape(-1, 4)
    for place, (x1, y1, x2, y2, kind) in enumerate(made.boxes):
        ya1, xa1, ya2, xa2 = anchors[place]
        ha, wa = ya2 - ya1, xa2 - xa1
        given["regression"][0, place] = [
            ((y1 + y2) / 2 - (ya1 + ya2) / 2) / ha,
            ((x1 + x2) / 2 - (xa1 + xa2) / 2) / wa,
            np.log((y2 - y1) * grow / ha),
            np.log((x2 - x1) / wa),
        ]
        given["classification"][0, place, int(kind)] = 0.9 - place / 100
    return given


def test_predictions_equal_to_the_labels_reach_every_threshold() -> None:
    heads, made = heads_of("multiclass"), sample("multiclass")
    scorer = ImageScorer(replace(PROTOCOLS["paper"], iou=0.99), heads, TARGET, ANCHORS)
    assert scorer.score(made, exact_outputs(made, heads)).hits.tolist() == [10] * 5
    # 1 / 1.3 = 0.77: thresholds 0.50 to 0.75; boxes cut by the border keep more
    grown = scorer.score(made, exact_outputs(made, heads, grow=1.3)).hits
    assert grown.min() == 6


def test_boxes_are_compared_inside_the_frame() -> None:
    # the label reaches above the frame's content into the padding: only the part inside counts
    made = sample("multiclass")
    top = made.letterbox.top
    assert top > 0
    boxes = np.array([[50.0, top - 6, 90.0, top + 20, 0.0]])
    made = replace(made, boxes=boxes, categories=("car",))
    inside = replace(made, boxes=np.array([[50.0, top, 90.0, top + 20, 0.0]]))
    heads = heads_of("multiclass")
    scorer = ImageScorer(PROTOCOLS["paper"], heads, TARGET, ANCHORS)
    assert scorer.score(made, exact_outputs(inside, heads)).hits.tolist() == [10]


@pytest.mark.parametrize("missing", ["detection", "segmentation"])
def test_networks_with_one_head(missing: str) -> None:
    both, made = heads_of("multiclass"), sample("multiclass")
    given = outputs(both)
    whole = ImageScorer(PROTOCOLS["paper"], both, TARGET, ANCHORS).score(made, given)
    if missing == "detection":
        heads = Heads((), both.seg_classes, "multiclass")
        record = ImageScorer(PROTOCOLS["paper"], heads, TARGET, None).score(
            made, {"segmentation": given["segmentation"]}
        )
        assert (len(record.labels), len(record.scores)) == (0, 0)
        assert np.array_equal(record.seg, whole.seg)
    else:
        del given["segmentation"]
        record = ImageScorer(PROTOCOLS["paper"], Heads(both.classes), TARGET, ANCHORS).score(made, given)
        assert record.seg.shape == (0, 4)
        assert np.array_equal(record.hits, whole.hits)


def test_records_keep_nothing_of_the_outputs() -> None:
    heads, made = heads_of("multiclass"), sample("multiclass")
    scorer = ImageScorer(PROTOCOLS["paper"], heads, TARGET, ANCHORS)
    given = outputs(heads)
    first, second = scorer.score(made, given), scorer.score(made, outputs(heads))
    for array in given.values():
        array.fill(np.nan)
    scorer.score(made, given)
    assert same_record(first, second)


def test_outputs_that_are_not_finite_are_scored() -> None:
    heads, made = heads_of("multiclass"), sample("multiclass")
    given = outputs(heads)
    given["regression"][0, ::3] = np.inf
    given["regression"][0, 1::3] = np.nan
    given["classification"][0, ::5] = np.nan
    given["segmentation"][..., ::2] = np.nan
    record = ImageScorer(PROTOCOLS["paper"], heads, TARGET, ANCHORS).score(made, given)
    assert np.isfinite(record.scores).all()
    assert record.seg.sum(axis=1).tolist() == [TARGET[0] * TARGET[1]] * 3


def test_more_than_256_classes() -> None:
    heads = heads_of("multiclass", classes=300)
    made = sample("multiclass", classes=300)
    record = ImageScorer(PROTOCOLS["deploy"], heads, TARGET, ANCHORS).score(made, outputs(heads))
    assert record.labels.dtype == record.classes.dtype == np.uint16
    assert record.labels.tolist() == made.boxes[:, 4].tolist()
    assert record.classes.max() > 255


def test_labels_of_another_project_are_refused() -> None:
    heads = heads_of("multiclass", classes=1)
    made = sample("multiclass", classes=3)
    with pytest.raises(HnxError, match="hold class 2"):
        ImageScorer(PROTOCOLS["paper"], heads, TARGET, ANCHORS).score(made, outputs(heads))


def test_masks_at_frame_size_have_to_be_there() -> None:
    heads, made = heads_of("multiclass"), replace(sample("multiclass"), frame_target=None)
    with pytest.raises(HnxError, match="frame size"):
        ImageScorer(PROTOCOLS["deploy"], heads, TARGET, ANCHORS).score(made, outputs(heads))


@pytest.mark.parametrize("values", [{"conf": 1.5}, {"iou": -0.1}, {"conf": float("nan")}, {"at": "elsewhere"}])
def test_protocols_check_their_values(values: dict[str, Any]) -> None:
    with pytest.raises(HnxError) as caught:
        Protocol(**{"name": "mine", "conf": 0.1, "iou": 0.5, "at": "input", **values})
    assert caught.value.code == ExitCode.USAGE


def test_channels_start_with_the_background() -> None:
    assert heads_of("multiclass").channels == heads_of("multilabel").channels == ("background", "road", "lane")
    assert heads_of("binary").channels == ("road",)
    assert Heads(("car",)).channels == ()


def test_detection_leaves_out_images_whose_boxes_nobody_labelled() -> None:
    heads = heads_of("multiclass")
    scorer = ImageScorer(PROTOCOLS["paper"], heads, TARGET, ANCHORS)
    made = replace(sample("multiclass"), boxes=np.zeros((0, 5)), has_boxes=False)
    record = scorer.score(made, outputs(heads))
    assert len(record.scores) == len(record.labels) == 0
    assert record.seg.sum() > 0
    assert len(scorer.score(replace(made, has_boxes=True), outputs(heads)).scores) > 0
