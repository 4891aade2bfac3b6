from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hybridnets.errors import ExitCode, HnxError
from tests.tools.convert.builders import FIXTURES, unpack
from tools.convert import ConvertConfig
from tools.convert.layout import PACKAGES, find_sources, splits_with_images


def found(root: Path, split: str = "val", **options: object) -> dict[str, tuple[str, str]]:
    config = ConvertConfig(root, root / "out", **options)  # type: ignore[arg-type]
    sources = find_sources(config, split)
    return {role: (source.form, str(source.path.relative_to(root))) for role, source in sources.items()}


@pytest.mark.parametrize("base", ["", "bdd100k"])
def test_files_of_2020(tmp_path: Path, base: str) -> None:
    unpack(tmp_path, "v2020", base=base)
    prefix = f"{base}/" if base else ""
    assert found(tmp_path) == {
        "images": ("images", f"{prefix}images/100k/val"),
        "boxes": ("frames", f"{prefix}labels/det_20/det_val.json"),
        "drivable": ("masks", f"{prefix}labels/drivable/masks/val"),
        "lanes": ("frames", f"{prefix}labels/lane/polygons/lane_val.json"),
    }


def test_every_archive_in_its_own_folder(tmp_path: Path) -> None:
    parts = {
        "bdd100k_images_100k/100k": "images/100k",
        "bdd100k_det_20_labels_trainval/bdd100k/labels/det_20": "v2020/labels/det_20",
        "bdd100k_drivable_maps/labels": "v1/drivable_maps/labels",
        "bdd100k_labels/100k": "v0/labels/100k",
    }
    for place, source in parts.items():
        shutil.copytree(FIXTURES / source, tmp_path / place)
    assert found(tmp_path) == {
        "images": ("images", "bdd100k_images_100k/100k/val"),
        "boxes": ("frames", "bdd100k_det_20_labels_trainval/bdd100k/labels/det_20/det_val.json"),
        "drivable": ("masks", "bdd100k_drivable_maps/labels/val"),
        "lanes": ("folder", "bdd100k_labels/100k/val"),
    }


def test_labels_of_2018_serve_all_three(tmp_path: Path) -> None:
    unpack(tmp_path, "v1")
    shutil.rmtree(tmp_path / "bdd100k/drivable_maps")
    one = ("frames", "bdd100k/labels/bdd100k_labels_images_val.json")
    assert found(tmp_path) == {
        "images": ("images", "bdd100k/images/100k/val"),
        **dict.fromkeys(("boxes", "drivable", "lanes"), one),
    }
    other = unpack(tmp_path / "old", "v0", base="")
    assert set(found(other).values()) == {("images", "images/100k/val"), ("folder", "labels/100k/val")}


@pytest.mark.parametrize(
    ("wanted", "path"),
    [("rles", "rles/drivable_val.json"), ("polygons", "polygons/drivable_val.json"), ("masks", "masks/val")],
)
def test_a_form_can_be_chosen(tmp_path: Path, wanted: str, path: str) -> None:
    unpack(tmp_path, "v2020", base="")
    assert found(tmp_path, drivable_from=wanted)["drivable"][1] == f"labels/drivable/{path}"
    assert found(tmp_path, lanes_from="masks")["lanes"] == ("masks", "labels/lane/masks/val")


def test_missing_parts_name_their_downloads(tmp_path: Path) -> None:
    unpack(tmp_path, "v2020")
    shutil.rmtree(tmp_path / "bdd100k/labels/lane")
    shutil.rmtree(tmp_path / "bdd100k/labels/det_20")
    with pytest.raises(HnxError, match="val split lacks boxes and lanes") as caught:
        found(tmp_path)
    assert "labels/lane/polygons/lane_val.json" in caught.value.why
    assert (
        "'Lane Marking' (bdd100k_lane_labels_trainval.zip, 434 MB, md5 dfe74f9ed6800765a0047414d620a186)"
        in caught.value.fix
    )
    assert PACKAGES["det_20"].md5 in caught.value.fix
    assert PACKAGES["drivable"].md5 not in caught.value.fix
    assert "https://dl.cv.ethz.ch/bdd100k/data/" in caught.value.fix


def test_masks_may_be_absent_when_the_caller_says_so(tmp_path: Path) -> None:
    unpack(tmp_path, "v2020")
    shutil.rmtree(tmp_path / "bdd100k/labels/lane")
    assert sorted(found(tmp_path, empty_masks=True)) == ["boxes", "drivable", "images"]


def test_splits_are_those_with_images(tmp_path: Path) -> None:
    unpack(tmp_path, "v0")
    assert splits_with_images(ConvertConfig(tmp_path, tmp_path / "out")) == ("train", "val")
    shutil.rmtree(tmp_path / "bdd100k/images/100k/train")
    assert splits_with_images(ConvertConfig(tmp_path, tmp_path / "out")) == ("val",)
    shutil.rmtree(tmp_path / "bdd100k/images")
    with pytest.raises(HnxError, match="no images") as caught:
        splits_with_images(ConvertConfig(tmp_path, tmp_path / "out"))
    assert PACKAGES["images"].md5 in caught.value.fix
    assert splits_with_images(ConvertConfig(tmp_path, tmp_path / "out", splits=("val", "train"))) == ("train", "val")


def test_paths_of_the_user(tmp_path: Path) -> None:
    unpack(tmp_path, "v2020", base="")
    for name in ("train", "val"):
        shutil.copytree(tmp_path / "images/100k" / name, tmp_path / "mine" / name / "pictures")
    options = {
        "image_dir": str(tmp_path / "mine/{split}/pictures"),
        "boxes": str(tmp_path / "labels/det_20/det_{split}.json"),
        "drivable_from": str(tmp_path / "labels/drivable/masks"),
        "lanes_from": str(tmp_path / "labels/lane/masks/{split}"),
    }
    assert found(tmp_path, **options) == {
        "images": ("images", "mine/val/pictures"),
        "boxes": ("frames", "labels/det_20/det_val.json"),
        "drivable": ("masks", "labels/drivable/masks/val"),
        "lanes": ("masks", "labels/lane/masks/val"),
    }
    with pytest.raises(HnxError, match="one file for the splits train and val") as caught:
        found(tmp_path, boxes=str(tmp_path / "labels/det_20/det_val.json"))
    assert caught.value.code == ExitCode.USAGE
    assert found(tmp_path, boxes=str(tmp_path / "labels/det_20/det_val.json"), splits=("val",))
    with pytest.raises(HnxError, match="cannot be used"):
        found(tmp_path, lanes_from=str(tmp_path / "nothing"))
    with pytest.raises(HnxError, match="cannot be used") as caught:
        found(tmp_path, lanes_from=str(tmp_path / "images"))
    assert "holds no file" in caught.value.why
    with pytest.raises(HnxError, match="is a file"):
        found(tmp_path, image_dir=str(tmp_path / "labels/det_20/det_{split}.json"))


def test_the_target_is_no_download(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "images/100k", tmp_path / "out")
    with pytest.raises(HnxError, match="no images"):
        splits_with_images(ConvertConfig(tmp_path, tmp_path / "out"))
