"""Whole augmented samples."""

from __future__ import annotations

import functools
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybridnets.dataset import SampleReader, open_split
from hybridnets.errors import ExitCode, HnxError
from hybridnets.preprocess import Preprocessor
from hybridnets.project import DatasetConfig, load_project
from hybridnets.training.augment import Augmented, Augmenter, AugmentSettings

ROOT = Path(__file__).parents[4]
KIT = ROOT / "tests" / "data" / "parity" / "dataset"
PROJECTS = ("nc1_binary", "nc1_multiclass", "nc10_multilabel")
NOTHING = AugmentSettings(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
EVERYTHING = AugmentSettings(mosaic=1, mixup=1, shear=2, flipud=0.5)


@functools.cache
def _reader(project: str = "nc1_multiclass", folder: Path = KIT) -> SampleReader:
    return SampleReader(open_split(load_project(str(KIT / f"project_{project}.yml")), folder), (384, 640))


def _make(settings: AugmentSettings, seed: int, reader: SampleReader, index: int = 0) -> Augmented:
    return Augmenter(settings)(reader, reader.split.names[index], np.random.default_rng([42, seed, index]))


def _same(one: Augmented, other: Augmented) -> bool:
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ("image", "boxes", "target"))


@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize("index", [0, 2, 5, 9])
def test_with_nothing_to_change_a_sample_is_what_inference_sees(project: str, index: int) -> None:
    reader = _reader(project)
    sample = reader.read(reader.split.names[index])
    found = _make(NOTHING, 0, reader, index)
    canvas, _ = Preprocessor((384, 640)).letterbox(sample.frame)
    assert np.array_equal(found.image, canvas[:, :, ::-1])
    assert np.array_equal(found.target, sample.target)
    assert found.target.dtype == np.uint8
    assert found.boxes.dtype == np.float32
    assert {row[4] for row in found.boxes.tolist()} <= {row[4] for row in sample.boxes.tolist()}
    inside = sample.boxes[
        (sample.boxes[:, 0] >= 0)
        & (sample.boxes[:, 1] >= 12)
        & (sample.boxes[:, 2] <= 640)
        & (sample.boxes[:, 3] <= 372)
    ]
    rows = [row for row in inside.astype(np.float32).tolist() if row[2] - row[0] > 2 and row[3] - row[1] > 2]
    rows = [row for row in rows if 0.1 < (row[2] - row[0]) / (row[3] - row[1]) < 10]
    for row in rows:
        assert np.isclose(found.boxes, row, atol=1e-4).all(axis=1).any()


@pytest.mark.parametrize("settings", [AugmentSettings(), EVERYTHING], ids=["upstream", "everything"])
@pytest.mark.parametrize("project", PROJECTS)
def test_shapes_types_and_ranges(project: str, settings: AugmentSettings) -> None:
    reader = _reader(project)
    plain = reader.read(reader.split.names[1])
    for seed in range(3):
        found = _make(settings, seed, reader, 1)
        assert found.image.shape == (384, 640, 3)
        assert found.image.dtype == np.uint8
        assert found.target.shape == plain.target.shape
        assert found.target.dtype == np.uint8
        assert found.boxes.shape[1] == 5
        assert (found.boxes[:, :4] >= 0).all()
        assert (found.boxes[:, 2] <= 640).all()
        assert (found.boxes[:, 3] <= 384).all()
        assert (found.boxes[:, 2:4] > found.boxes[:, :2]).all()
        if project == "nc10_multilabel":
            assert np.array_equal(found.target[0], 1 - found.target[1:].max(axis=0))


@pytest.mark.parametrize("settings", [AugmentSettings(), EVERYTHING], ids=["upstream", "everything"])
def test_a_sample_follows_from_its_generator_alone(settings: AugmentSettings) -> None:
    reader = _reader()
    first = _make(settings, 7, reader)
    np.random.seed(3)  # global generators have no influence
    assert _same(first, _make(settings, 7, reader))
    copied = pickle.loads(pickle.dumps(Augmenter(settings)))
    assert _same(first, copied(reader, reader.split.names[0], np.random.default_rng([42, 7, 0])))
    assert not _same(first, _make(settings, 8, reader))


def test_flips_happen_as_often_as_asked() -> None:
    reader = _reader()
    name = reader.split.names[0]
    plain = _make(NOTHING, 0, reader)
    augmenter = Augmenter(replace(NOTHING, fliplr=0.5))
    flipped = 0
    for seed in range(40):
        found = augmenter(reader, name, np.random.default_rng(seed))
        if not np.array_equal(found.image, plain.image):
            flipped += 1
            assert np.array_equal(found.image, plain.image[:, ::-1])
            assert np.array_equal(found.target, plain.target[:, ::-1])
            assert found.boxes[:, 0] == pytest.approx(640 - plain.boxes[:, 2])
    assert 10 <= flipped <= 30


def _copy_kit(folder: Path) -> Path:
    target = folder / "data"
    shutil.copytree(KIT, target)
    return target


def test_frames_of_any_shape_keep_their_place(tmp_path: Path) -> None:
    data = _copy_kit(tmp_path)
    reader = _reader(folder=data)
    name = reader.split.names[0]
    for width, height in ((500, 385), (333, 700), (1001, 420)):
        for path in (data / "imgs" / "val", data / "da_seg_annot" / "val", data / "ll_seg_annot" / "val"):
            file = next(path.glob(f"{name}.*"))
            cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (width, height)))
        plain = reader.read(name)
        found = _make(NOTHING, 0, reader)
        assert np.array_equal(found.target, plain.target)
        assert (found.image[0, 0] == 114).all()
        assert _make(EVERYTHING, 0, reader).image.shape == (384, 640, 3)


def test_a_broken_partner_is_replaced_and_named(tmp_path: Path) -> None:
    data = _copy_kit(tmp_path)
    reader = _reader(folder=data)
    names = reader.split.names
    for name in names[1::2]:
        (data / "imgs" / "val" / f"{name}.jpg").write_bytes(b"\xff\xd8 cut")
    found = [_make(replace(NOTHING, mosaic=1.0), seed, reader) for seed in range(4)]
    broken = {name for item in found for name, _ in item.broken}
    assert broken
    assert broken <= set(names[1::2])
    for name in names:
        (data / "imgs" / "val" / f"{name}.jpg").write_bytes(b"")
    with pytest.raises(HnxError):
        _make(AugmentSettings(), 0, reader)


def test_settings_of_the_project_file() -> None:
    dataset = DatasetConfig(fliplr=0.1, flipud=0.2, hsv_h=0.3, hsv_s=0.4, hsv_v=0.5, rot_factor=6.0)
    dataset = replace(dataset, scale_factor=0.7, shear=8.0, translate=0.9, mosaic=0.11, mixup=0.12)
    found = AugmentSettings.from_dataset(dataset, swapped_hue=True)
    assert found == AugmentSettings(0.11, 0.12, 6.0, 0.9, 0.7, 8.0, 0.3, 0.4, 0.5, 0.1, 0.2, True)
    assert AugmentSettings.from_dataset(DatasetConfig()) == AugmentSettings()


@pytest.mark.parametrize(
    "values", [{"mosaic": 1.1}, {"fliplr": -0.1}, {"scale": 1.0}, {"degrees": float("nan")}, {"shear": 90.0}]
)
def test_settings_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(HnxError) as caught:
        AugmentSettings(**values)  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.USAGE


def test_workers_that_augment_need_no_torch() -> None:
    code = "import sys, hybridnets.training.augment; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "False"
