"""Anchors against upstream's own arrays."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from hybridnets.anchors import AnchorRule, anchor_count, make_anchors, to_cxcywh
from hybridnets.errors import HnxError


def test_equal_to_upstream_bit_for_bit(data: Path) -> None:
    expected = np.load(data / "parity/anchors/anchors_128x256.npy")
    found = make_anchors(256, 128)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", ["384x640", "128x256"])
def test_first_and_last_rows(data: Path, size: str) -> None:
    reference = json.loads((data / "parity/anchors/anchors.json").read_text())[size]
    height, width = map(int, size.split("x"))
    found = make_anchors(width, height)
    assert list(found.shape) == reference["shape"]
    assert found.shape[1] == anchor_count(width, height)
    assert found[0, :18].tolist() == reference["first_18_rows"]
    assert found[0, -9:].tolist() == reference["last_9_rows"]
    assert hashlib.sha256(found.tobytes()).hexdigest() == reference["sha256_float32"]


def test_cxcywh_is_the_same_boxes() -> None:
    anchors = make_anchors(128, 128)
    cx, cy, w, h = np.moveaxis(to_cxcywh(anchors), -1, 0)
    again = np.stack([cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2], -1)
    assert np.abs(again - anchors).max() < 1e-4


@pytest.mark.parametrize(
    "rule",
    [
        {"scales": (1.0, 2.0)},
        {"ratios": ((1.0, 1.0),)},
        {"scales": (1.0, -1.0, 2.0)},
        {"scales": (1.0, float("nan"), 2.0)},
    ],
)
def test_bad_rules_are_refused(rule: dict[str, object]) -> None:
    with pytest.raises(HnxError):
        AnchorRule(**rule)  # type: ignore[arg-type]


def test_size_is_checked() -> None:
    with pytest.raises(HnxError, match="600x384"):
        make_anchors(600, 384)
