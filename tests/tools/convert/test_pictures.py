from __future__ import annotations

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybridnets.errors import HnxError
from tests.tools.convert.builders import FIXTURES, image
from tools.convert.pictures import image_size, place_image


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".png", ".bmp"])
def test_sizes(tmp_path: Path, suffix: str) -> None:
    assert image_size(image(tmp_path / f"a{suffix}", (31, 57))) == (31, 57)


def test_sizes_of_progressive_and_real_pictures(road_image: Path, data: Path) -> None:
    for path in (road_image, data / "frames/solidWhiteCurve.jpg", next((FIXTURES / "images/100k/val").iterdir())):
        assert image_size(path) == cv2.imread(str(path)).shape[:2]


def test_damaged_pictures(tmp_path: Path, road_image: Path) -> None:
    whole = road_image.read_bytes()
    for data in (b"", b"hello", whole[: len(whole) // 2], whole[:-40], b"\xff\xd8\xff\xd9"):
        path = tmp_path / "a.jpg"
        path.write_bytes(data)
        with pytest.raises(HnxError, match="Cannot read image"):
            image_size(path)
    with pytest.raises(HnxError, match="Cannot read image"):
        image_size(tmp_path / "missing.jpg")


def test_a_png_called_jpg_is_decoded(tmp_path: Path) -> None:
    image(tmp_path / "a.png", (20, 30)).rename(tmp_path / "a.jpg")
    assert image_size(tmp_path / "a.jpg") == (20, 30)


def test_ways_into_the_target(tmp_path: Path) -> None:
    source = image(tmp_path / "a.jpg")
    for mode in ("hardlink", "copy", "link", "hardlink", "link", "copy"):  # each replaces the one before
        target = tmp_path / "out.jpg"
        assert place_image(source, target, mode) == mode
        assert target.is_symlink() == (mode == "link")
        assert (target.lstat().st_ino == source.stat().st_ino) == (mode == "hardlink")
        assert target.read_bytes() == source.read_bytes()
    assert source.stat().st_nlink == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "out.jpg"]


def test_links_to_links_point_to_the_picture(tmp_path: Path) -> None:
    source = image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    place_image(tmp_path / "b.jpg", tmp_path / "c.jpg", "link")
    assert (tmp_path / "c.jpg").readlink() == source
    place_image(tmp_path / "b.jpg", tmp_path / "d.jpg", "hardlink")
    assert not (tmp_path / "d.jpg").is_symlink()


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_hard_links_that_cannot_be_become_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(os, "link", refuse)
    source = image(tmp_path / "a.jpg")
    assert place_image(source, tmp_path / "out.jpg", "hardlink") == "copy"
    assert (tmp_path / "out.jpg").read_bytes() == source.read_bytes()


def test_a_full_disk_is_no_reason_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(HnxError, match="Cannot link") as caught:
        place_image(image(tmp_path / "a.jpg"), tmp_path / "out.jpg", "hardlink")
    assert "full" in caught.value.why


def test_other_formats_are_encoded(tmp_path: Path) -> None:
    assert place_image(image(tmp_path / "a.png"), tmp_path / "out.jpg", "link") == "encode"
    found = cv2.imread(str(tmp_path / "out.jpg"))
    assert found.shape == (72, 128, 3)
    assert np.abs(found.astype(int) - 90).max() < 3
