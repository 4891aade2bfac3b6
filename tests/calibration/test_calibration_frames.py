"""Which frames are chosen, and what happens to those that cannot be read."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.frames import FEW_FRAMES, select_frames
from hybridnets.errors import ExitCode, HnxError
from hybridnets.preprocess import Preprocessor


def write(path: Path, level: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 20, (36, 64, 3))
    assert cv2.imwrite(str(path), np.clip(noise + level, 0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fifty bright pictures and six dark ones."""
    for index in range(50):
        write(tmp_path / "set" / f"day{index:02}.png", 150, index)
    for index in range(6):
        write(tmp_path / "set" / f"night{index}.png", 10, 100 + index)
    return tmp_path / "set"


def test_rare_darkness_gets_an_equal_share(folder: Path) -> None:
    chosen = select_frames(folder, 16, held_out=2)
    assert len(chosen) == 16
    assert chosen.strata()["dark"] >= 4  # its share of the folder would be 1.7
    assert len(chosen.held_out) == 2
    assert not set(chosen.held_out) & set(chosen.frames)


def test_the_seed_decides(folder: Path) -> None:
    first, again, other = (select_frames(folder, 8, seed=seed) for seed in (3, 3, 4))
    assert first.frames == again.frames
    assert first.digest() == again.digest()
    assert first.frames != other.frames
    assert first.digest() != other.digest()


def test_the_digest_is_of_contents(folder: Path) -> None:
    before = select_frames(folder, 8)
    digest = before.digest()
    write(before.frames[0].path, 149, 77)
    after = select_frames(folder, 8)
    assert after.frames == before.frames
    assert after.digest() != digest


def test_times_of_day_of_labels(tmp_path: Path) -> None:
    times = ["daytime"] * 30 + ["night"] * 3 + ["dawn/dusk"] * 3
    for index, time in enumerate(times):
        write(tmp_path / "imgs" / "train" / f"{index:03}.jpg", 100, index)
        label = tmp_path / "det_annot" / "train" / f"{index:03}.json"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(json.dumps({"attributes": {"timeofday": time}, "frames": [{"objects": []}]}))
    (tmp_path / "det_annot" / "train" / "000.json").write_text("{ broken")
    chosen = select_frames(tmp_path, 9, held_out=0)
    times_of = {stratum.split("/")[0] for stratum in chosen.strata()}
    assert {"daytime", "night", "dawn-dusk"} <= times_of
    assert sum(count for stratum, count in chosen.strata().items() if "night" in stratum) >= 2


def test_train_comes_before_val(tmp_path: Path) -> None:
    for split in ("val", "train"):
        write(tmp_path / "imgs" / split / f"{split}.png", 100)
    assert [frame.path.stem for frame in select_frames(tmp_path, 1).frames] == ["train"]
    assert [frame.path.stem for frame in select_frames(tmp_path, 1, split="val").frames] == ["val"]
    with pytest.raises(HnxError, match="no split 'test'") as caught:
        select_frames(tmp_path, 1, split="test")
    assert "train, val" in caught.value.why


def test_corrupt_frames_are_left_out_and_named(folder: Path) -> None:
    good = folder / "day00.png"
    (folder / "cut.png").write_bytes(good.read_bytes()[:100])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not a picture")
    chosen = select_frames(folder, 100)
    named = " ".join(error.what for error in chosen.left_out)
    assert all(name in named for name in ("cut.png", "empty.jpg", "text.jpg"))
    assert not {"cut", "empty", "text"} & {frame.path.stem for frame in chosen.frames}
    assert any("3 frame(s) could not be read" in note for note in chosen.notes)


def test_three_frames_are_warned_about_and_used(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / f"{index}.png", 100, index)
    chosen = select_frames(tmp_path)
    assert len(chosen) == 3
    assert not chosen.held_out
    assert any("clipped" in note and str(FEW_FRAMES) in note for note in chosen.notes)
    assert any("only 3 of 300" in note for note in chosen.notes)


def test_enough_frames_are_not_warned_about(folder: Path) -> None:
    assert select_frames(folder, FEW_FRAMES).notes == ()


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no")
    (tmp_path / "bad2.jpg").write_bytes(b"")
    with pytest.raises(HnxError, match="No frame of") as caught:
        select_frames(tmp_path)
    assert "bad" in caught.value.why
    with pytest.raises(HnxError):
        select_frames(tmp_path / "nowhere")
    with pytest.raises(HnxError) as caught:
        select_frames(tmp_path, 0)
    assert caught.value.code == ExitCode.USAGE


def test_frames_of_a_video_are_spread_over_it(road_video: Path) -> None:
    chosen = select_frames(road_video, 8, held_out=2)
    indices = [frame.index for frame in chosen.frames]
    assert len(indices) == 8
    assert indices == sorted(indices)
    assert max(filter(None, indices)) - min(i for i in indices if i is not None) > 38 // 2
    images = list(chosen.images())
    assert [image.shape for image in images] == [(720, 1280, 3)] * 8
    other = select_frames(road_video, 8, held_out=2, seed=5)
    assert other.digest() != chosen.digest()


def test_tensors_are_those_of_inference(folder: Path) -> None:
    chosen = select_frames(folder, 4)
    preprocess, reference = Preprocessor((128, 128)), Preprocessor((128, 128))
    for image, tensor in zip(chosen.images(), chosen.tensors(preprocess), strict=True):
        np.testing.assert_array_equal(tensor, reference(image)[0])


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    for index in range(60):
        write(tmp_path / f"{index}.png", 100, index)
    chosen = select_frames(tmp_path, 60)

    def peak(tensors: Iterator[object]) -> int:
        tracemalloc.start()
        for _ in tensors:
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    one_frame = 3 * 128 * 128 * 4
    assert peak(chosen.tensors(Preprocessor((128, 128)))) < 10 * one_frame
