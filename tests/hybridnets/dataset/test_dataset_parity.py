"""Samples against what upstream's data set class returned for the same files: equal to the last bit."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridnets.dataset import Split, open_split
from hybridnets.dataset.reader import SampleReader
from hybridnets.preprocess import Preprocessor
from hybridnets.project import load_project

PARITY = Path(__file__).parents[2] / "data" / "parity"
PROJECTS = ("nc1_binary", "nc1_multiclass", "nc10_multilabel")


@functools.cache
def reference(name: str) -> list[dict[str, Any]]:
    return json.loads((PARITY / "preprocess" / "dataset_items.json").read_text())[name]["items"]


def split_of(name: str) -> Split:
    return open_split(load_project(str(PARITY / "dataset" / f"project_{name}.yml")), PARITY / "dataset")


@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize("index", range(12))
def test_a_sample_is_upstreams(project: str, index: int) -> None:
    expected = reference(project)[index]
    split = split_of(project)
    sample = SampleReader(split, (384, 640)).read(split.names[index])
    tensor, place = Preprocessor((384, 640))(sample.frame)
    assert place == sample.letterbox
    assert hashlib.sha256(tensor.tobytes()).hexdigest() == expected["image_sha256_float32"]
    assert list(sample.frame.shape[:2]) == expected["shapes_h0w0"]
    assert [sample.letterbox.left, sample.letterbox.top] == expected["shapes_pad_wh"]

    assert sample.dropped == ()
    assert np.array_equal(sample.boxes, np.reshape(expected["labels_x1y1x2y2c"], (-1, 5)))
    assert sample.boxes.dtype == np.float64

    target = sample.target.astype(np.int64)
    assert list(target.shape) == expected["segmentation_shape"]
    assert hashlib.sha256(target.tobytes()).hexdigest() == expected["segmentation_sha256_int64"]


@pytest.mark.parametrize("project", PROJECTS)
def test_every_recorded_sample_is_there(project: str) -> None:
    assert len(split_of(project)) == len(reference(project)) == 12
