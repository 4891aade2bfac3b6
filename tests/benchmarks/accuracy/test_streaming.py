"""Long evaluations stay small: 10 000 images with 3000 predictions each grow the process by at most 512 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.records import CocoMatches, ImageRecord
from tests.benchmarks.accuracy.simulated import record_of
from tests.benchmarks.accuracy.streaming import crowd

pytest.importorskip("pycocotools")
ROOT = Path(__file__).parents[3]
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


def measured(images: int, predictions: int, classes: int = 1) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.accuracy.streaming", str(images), str(predictions), str(classes)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    values: dict[str, float] = json.loads(ended.stdout)
    assert values["map50"] > 0.1
    assert values["coco_ap"] > 0.1
    return values


@needs_proc
def test_a_short_run_grows_little() -> None:
    # 900 000 predictions: 5.4 MB of records, and what the computation itself needs at most; pycocotools' own
    # objects would take 1 kB for each
    assert measured(300, 3000)["growth_mb"] < 64


@needs_proc
@pytest.mark.slow
def test_a_long_run_grows_by_512_mb_at_most() -> None:
    values = measured(10_000, 3000)
    assert values["growth_mb"] < 512
    assert values["growth_mb"] < 12 * 30_000_000 / 2**20  # bytes a prediction, all told


def size_of(record: ImageRecord) -> int:
    parts = [getattr(record, field.name) for field in fields(record)]
    parts += [getattr(record.coco, field.name) for field in fields(CocoMatches)]
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


@pytest.mark.parametrize("classes", [1, 10])
def test_a_record_takes_six_bytes_a_prediction(classes: int) -> None:
    record = record_of("a", crowd(np.random.default_rng(0), 3000, classes), classes=classes)
    # and 1 byte for each of at most 100 predictions of a class that COCO considers, 20 for each match
    assert size_of(record) < 6 * 3000 + 100 * classes + 40 * 20 + 12 * (classes + 1) ** 2 + 200
    # nothing of it is a view that keeps a larger array alive
    assert all(part is None or part.base is None for part in vars(record).values() if isinstance(part, np.ndarray))
