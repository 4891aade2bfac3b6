"""A tiny labelled data set in upstream's layout, and runs on it that take seconds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.dataset import Sample
from hybridnets.project import DatasetConfig, Project
from hybridnets.training.config import TrainConfig
from hybridnets.training.validation import Scores

SIZE = (180, 320)  # height, width of the frames


def make_data(folder: Path, *, train: int = 8, val: int = 4) -> Path:
    """Frames with a grey road, a white lane line and one to three coloured boxes."""
    for split, count in (("train", train), ("val", val)):
        for part in ("imgs", "det_annot", "da_seg_annot", "ll_seg_annot"):
            (folder / part / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            _write(folder, split, f"{split}_{index:02d}", np.random.default_rng([len(split), index]))
    return folder


def _write(folder: Path, split: str, name: str, random: np.random.Generator) -> None:
    height, width = SIZE
    frame = random.integers(90, 110, (height, width, 3)).astype(np.uint8)
    road, lane = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    left = int(random.integers(20, 120))
    corners = np.array([[left, 179], [left + 150, 179], [left + 100, 80], [left + 50, 80]])
    cv2.fillPoly(road, [corners], 255)
    frame[road > 0] = (60, 60, 60)
    cv2.line(lane, (left + 75, 179), (left + 75, 90), 255, 4)
    frame[lane > 0] = 255
    objects = []
    for _ in range(int(random.integers(1, 4))):
        x1, y1 = float(random.integers(10, 240)), float(random.integers(30, 120))
        w, h = float(random.integers(25, 60)), float(random.integers(20, 50))
        colour = [int(c) for c in random.integers(0, 255, 3)]
        cv2.rectangle(frame, (int(x1), int(y1)), (int(x1 + w), int(y1 + h)), colour, -1)
        objects.append({"category": "car", "box2d": {"x1": x1, "y1": y1, "x2": x1 + w, "y2": y1 + h}})
    cv2.imwrite(str(folder / "imgs" / split / f"{name}.jpg"), frame)
    cv2.imwrite(str(folder / "da_seg_annot" / split / f"{name}.png"), road)
    cv2.imwrite(str(folder / "ll_seg_annot" / split / f"{name}.png"), lane)
    (folder / "det_annot" / split / f"{name}.json").write_text(json.dumps({"frames": [{"objects": objects}]}))


def project(**dataset: Any) -> Project:
    """One class, two segmentation classes, frames of `SIZE`."""
    return dataclasses.replace(Project(), name="tiny", combine=(), dataset=DatasetConfig(org_img_size=SIZE, **dataset))


def config(data: Path, folder: Path, **changes: Any) -> TrainConfig:
    """A run of c0 at 128x128 on `data`, told after every step."""
    values: dict[str, Any] = {
        "compound_coef": 0,
        "size": (128, 128),
        "batch_size": 2,
        "workers": 0,
        "epochs": 2,
        "log_interval": 1,
        "lr": 1e-3,
        "device": "cpu",
    }
    return TrainConfig(changes.pop("project", project()), folder, data=data, **{**values, **changes})


class NamedScorer:
    """Scores that give every bit of every output away."""

    frame_target = True

    def score(self, sample: Sample, outputs: Mapping[str, NDArray[np.float32]]) -> tuple[str, str, float]:
        """Name, hash of all outputs, and a number."""
        assert sample.frame_target is not None
        digest = hashlib.sha256(b"".join(outputs[key].tobytes() for key in sorted(outputs))).hexdigest()
        return sample.name, digest, float(outputs["classification"].mean())

    def summarise(self, records: Sequence[tuple[str, str, float]]) -> Scores:
        """The numbers' mean as every score, and all records."""
        mean = float(np.mean([value for _, _, value in records]))
        return Scores(mean, {"road": mean, "lane": mean}, {"mAP50": mean, "records": [list(r) for r in records]})
