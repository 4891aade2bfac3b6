"""Tasks in which no loss can be seen."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy.measurable import unmeasurable, warnings_of
from benchmarks.accuracy.metrics import Accumulator
from benchmarks.accuracy.protocols import Heads
from benchmarks.accuracy.records import ImageRecord
from hybridnets.errors import ExitCode, HnxError

HEADS = Heads(("car",), ("road", "lane"))
# TP, FP, FN, TN of background, road and lane
GOOD = [[80, 2, 2, 16], [9, 1, 1, 89], [5, 3, 2, 90]]
NO_LANES = [[80, 2, 2, 16], [9, 1, 1, 89], [0, 3, 0, 97]]
NO_LANES_FOUND_NONE = [[80, 2, 2, 16], [9, 1, 1, 89], [0, 0, 0, 100]]
FINDS_NO_LANE = [[80, 2, 2, 16], [9, 1, 1, 89], [0, 0, 7, 93]]
FINDS_NO_ROAD = [[80, 10, 0, 10], [0, 0, 10, 90], [5, 3, 2, 90]]


def found(*images: list[list[int]], labels: int = 1, hits: int = 10, heads: Heads = HEADS) -> dict[str, str]:
    accumulator = Accumulator(heads)
    for number, seg in enumerate(images):
        record = ImageRecord(
            str(number),
            labels=np.zeros(labels, np.uint8),
            scores=np.ones(1, np.float32),
            classes=np.zeros(1, np.uint8),
            hits=np.full(1, hits, np.uint8),
            seg=np.array(seg, np.int64),
        )
        accumulator.add(record)
    return unmeasurable(accumulator.metrics(coco=False).to_json(), heads)


def test_labels_that_are_found_can_be_lost() -> None:
    assert found(GOOD, GOOD) == {}
    # one image with lanes is enough to lose some in
    assert found(GOOD, NO_LANES, NO_LANES_FOUND_NONE) == {}


@pytest.mark.parametrize("images", [(NO_LANES, NO_LANES), (NO_LANES_FOUND_NONE,), (NO_LANES, NO_LANES_FOUND_NONE)])
def test_no_label_of_a_class(images: tuple[list[list[int]], ...]) -> None:
    assert found(*images) == {"lane IoU": "no label of it in these images"}


def test_no_label_box() -> None:
    assert found(GOOD, labels=0, hits=0) == {"mAP50": "no label of it in these images"}


def test_nothing_is_found_of_what_is_labelled() -> None:
    # images without lanes count as right, and the background of areas is: neither is a score
    assert found(FINDS_NO_LANE, NO_LANES_FOUND_NONE) == {"lane IoU": "FP32 itself scores 0.0"}
    assert found(FINDS_NO_ROAD, FINDS_NO_ROAD) == {"road mIoU": "FP32 itself scores 0.0"}
    assert found(GOOD, hits=0) == {"mAP50": "FP32 itself scores 0.0"}


def test_a_network_without_boxes() -> None:
    record = ImageRecord("a", seg=np.array([[5, 3, 0, 92], [0, 0, 0, 100]], np.int64))
    heads = Heads((), ("road", "lane"), "binary")
    accumulator = Accumulator(heads)
    accumulator.add(record)
    assert list(unmeasurable(accumulator.metrics(coco=False).to_json(), heads)) == ["lane IoU"]


def test_warnings_and_the_end_of_it() -> None:
    assert warnings_of({}, HEADS, untrained=False) == []
    (text,) = warnings_of({"lane IoU": "no label"}, HEADS, untrained=False)
    assert text == "no loss of lane IoU can be seen, and no budget guards it: no label"
    nothing = dict.fromkeys(("mAP50", "road mIoU", "lane IoU"), "no label")
    with pytest.raises(HnxError, match="No task can be measured") as caught:
        warnings_of(nothing, HEADS, untrained=False)
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert len(warnings_of(nothing, HEADS, untrained=True)) == 3
