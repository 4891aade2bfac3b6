"""Every way in which a data set can be broken, made on purpose in a set that is good."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hybridnets.dataset import open_split
from hybridnets.dataset.reader import SampleReader
from hybridnets.errors import HnxError
from hybridnets.project import Project, load_project
from tools.check import KINDS, CheckReport, check_dataset

SIZE = (72, 128)
PARITY = Path(__file__).parents[1] / "data" / "parity" / "dataset"
IMAGES, LABELS, ROADS, LANES = "imgs/val", "det_annot/val", "da_seg_annot/val", "ll_seg_annot/val"


def box(category: str = "car", x1: Any = 100, y1: Any = 100, x2: Any = 300, y2: Any = 300) -> dict[str, Any]:
    return {"category": category, "box2d": {"x1": x1, "y1": y1, "x2": x2, "y2": y2}}


def write_label(root: Path, *objects: Any, name: str = "b", **more: Any) -> None:
    data = {"name": name, "frames": [{"objects": list(objects)}], **more}
    (root / LABELS / f"{name}.json").write_text(json.dumps(data))


def write_mask(root: Path, folder: str, mask: NDArray[Any], name: str = "b") -> None:
    assert cv2.imwrite(str(root / folder / f"{name}.png"), mask)


def road() -> NDArray[np.uint8]:
    mask = np.zeros(SIZE, np.uint8)
    mask[40:, 20:100] = 255
    return mask


def lane() -> NDArray[np.uint8]:
    mask = np.zeros(SIZE, np.uint8)
    mask[40:, 60:62] = 255
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A good set: val with the samples a, b and c."""
    for folder in (IMAGES, LABELS, ROADS, LANES):
        (tmp_path / folder).mkdir(parents=True)
    for name in "abc":
        assert cv2.imwrite(str(tmp_path / IMAGES / f"{name}.jpg"), np.full((*SIZE, 3), 90, np.uint8))
        write_label(tmp_path, box(), box("bus", 600, 300, 660, 340), name=name)
        write_mask(tmp_path, ROADS, road(), name)
        write_mask(tmp_path, LANES, lane(), name)
    return tmp_path


def check(root: Path, project: Project | None = None, **options: Any) -> CheckReport:
    options = {"split": "val", "workers": 0, **options}
    return check_dataset(project or Project(), root, **options)


def found(report: CheckReport) -> list[tuple[str, str]]:
    return [(finding.kind, Path(finding.file).name) for finding in report.findings]


def test_a_good_set_and_its_figures(root: Path) -> None:
    report = check(root)
    assert report.findings == []
    (split,) = report.splits
    assert (split.samples, split.broken, split.without_boxes) == (3, 0, 0)
    assert split.boxes == {"car": 6}
    assert split.image_sizes == {(128, 72): 3}
    assert split.shares == [pytest.approx(road().mean() / 255), pytest.approx(lane().mean() / 255)]
    # 200x200 and 60x40 at 1280 wide are 100 and 24.5 on a side at 640
    assert {name: n for name, n in split.size_bins().items() if n} == {"16-32": 3, "64-128": 3}
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["ok"] is True
    assert data["splits"]["val"]["boxes"] == {"car": 6}


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (f"{IMAGES}/b.jpg", "image-missing"),
        (f"{ROADS}/b.png", "mask-missing"),
        (f"{LANES}/b.png", "mask-missing"),
    ],
)
def test_a_missing_file_is_named_in_either_direction(root: Path, file: str, kind: str) -> None:
    (root / file).unlink()
    report = check(root)
    assert [(f.kind, f.file, f.severity) for f in report.findings] == [(kind, str(root / file), "error")]
    assert report.splits[0].broken == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "link"])
@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (f"{IMAGES}/b.jpg", "image-damaged"),
        (f"{LABELS}/b.json", "label-damaged"),
        (f"{ROADS}/b.png", "mask-damaged"),
    ],
)
def test_a_damaged_file_is_named(root: Path, file: str, kind: str, damage: str) -> None:
    path = root / file
    content = path.read_bytes()
    path.unlink()
    if damage == "link":
        path.symlink_to("nowhere")
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) * 2 // 3], "noise": b"\x00\xff" * 500}[damage])
    report = check(root)
    assert found(report) == [(kind, path.name)]
    assert report.findings[0].what
    assert report.splits[0].broken == 1


@pytest.mark.parametrize("target", ["b.jpg", "pipe", "folder", "/dev/zero"])
@pytest.mark.parametrize(
    ("file", "kind"),
    [(f"{IMAGES}/b.jpg", "image-damaged"), (f"{LABELS}/b.json", "label-damaged"), (f"{ROADS}/b.png", "mask-damaged")],
)
def test_a_link_to_what_is_no_file_is_named(root: Path, file: str, kind: str, target: str) -> None:
    path = root / file
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    path.unlink()
    path.symlink_to(path.name if target == "b.jpg" else root / target)  # a circle, or elsewhere
    report = check(root)
    assert found(report) == [(kind, path.name)]
    assert report.splits[0].broken == 1
    with pytest.raises(HnxError, match=path.name):
        SampleReader(open_split(Project(), root, "val"), (128, 256)).read("b")


@pytest.mark.parametrize("folder", [IMAGES, LABELS, ROADS, LANES])
def test_a_missing_folder_is_one_finding(root: Path, folder: str) -> None:
    for path in (root / folder).iterdir():
        path.unlink()
    assert [(f.kind, f.file) for f in check(root).findings if f.severity == "error"] == [
        ("folder-empty", str(root / folder))
    ]
    (root / folder).rmdir()
    report = check(root)
    assert [(f.kind, f.file) for f in report.findings if f.severity == "error"] == [
        ("folder-missing", str(root / folder))
    ]
    assert report.splits[0].broken == 3
    (root / folder).write_text("a file")
    assert "it is a file" in check(root).findings[0].what


def test_an_unreadable_folder_is_one_finding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # tests may run as root, who may read everything
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if Path(path) == root / ROADS:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [(f.kind, f.what) for f in check(root).findings] == [("folder-unreadable", "Permission denied")]


def test_an_unreadable_file_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "b.json":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    report = check(root)
    assert found(report) == [("file-unreadable", "b.json")]
    assert "permission denied" in report.findings[0].what


def test_names(root: Path) -> None:
    (root / IMAGES / "a.png").write_bytes((root / ROADS / "a.png").read_bytes())
    (root / IMAGES / "b.jpg").rename(root / IMAGES / "b.JPG")
    (root / LANES / "c.png").rename(root / LANES / "c_drivable_id.png")
    (root / LABELS / "notes.txt").write_text("")
    (root / LABELS / "._a.json").write_text("")
    (root / LANES / "a.png").rename(root / LANES / "kept.png")
    (root / LANES / "a.png").mkdir()
    assert sorted(found(check(root))) == sorted(
        [
            ("duplicate", "a.jpg"),
            ("image-missing", "b.jpg"),
            ("stray", "b.JPG"),
            ("mask-missing", "c.png"),
            ("mask-name", "c_drivable_id.png"),
            ("stray", "notes.txt"),
            ("mask-missing", "a.png"),
            ("stray", "a.png"),
            ("label-missing", "kept.json"),
        ]
    )


def test_an_image_without_a_label_is_no_error(root: Path) -> None:
    # as BDD100K's own 137; nobody reads it, so it may be damaged, too
    (root / LABELS / "b.json").unlink()
    (root / IMAGES / "b.jpg").write_bytes(b"")
    report = check(root)
    assert [(f.kind, f.file, f.severity) for f in report.findings] == [
        ("label-missing", str(root / LABELS / "b.json"), "warning")
    ]
    assert report.findings[0].what == "no label, but image and road mask and lane mask"
    (split,) = report.splits
    assert (split.samples, split.unlabelled, split.broken) == (2, 1, 0)
    assert report.to_json()["splits"]["val"]["unlabelled"] == 1
    assert open_split(Project(), root, "val").names == ("a", "c")


def test_a_mask_of_another_size(root: Path) -> None:
    write_mask(root, LANES, np.zeros((36, 64), np.uint8))
    report = check(root)
    assert found(report) == [("mask-size", "b.png")]
    assert report.findings[0].what == "64x36 pixels, its image has 128x72"


def drivable_ids() -> NDArray[np.uint8]:
    mask = np.full(SIZE, 2, np.uint8)
    mask[40:, 20:60], mask[40:, 60:100] = 0, 1
    return mask


def lane_bits() -> NDArray[np.uint8]:
    mask = np.full(SIZE, 255, np.uint8)
    mask[40:, 60:62], mask[40:, 80:82] = 6, 4 + 16 + 32
    return mask


@pytest.mark.parametrize(
    ("folder", "mask", "kind"),
    [
        (ROADS, drivable_ids(), "mask-drivable-ids"),
        (ROADS, np.full(SIZE, 2, np.uint8), "mask-drivable-ids"),
        (LANES, lane_bits(), "mask-lane-bits"),
        (LANES, 255 - lane(), "mask-everything"),
        (ROADS, 255 - road(), "mask-everything"),
        (ROADS, np.ones(SIZE, np.uint8), "mask-everything"),
        (LANES, road(), "masks-equal"),
        (LANES, np.roll(road(), -8, axis=0) | road(), "lane-share"),
        (ROADS, road() // 2 + lane() // 3, "mask-values"),
        (ROADS, cv2.merge([road()] * 3), "mask-channels"),
        (ROADS, cv2.merge([road(), lane(), road(), road()]), "mask-channels"),
        (ROADS, (road() > 0).astype(np.uint16), "mask-vanishes"),
        (ROADS, road().astype(np.uint16) * 257, "mask-depth"),
    ],
)
def test_masks_that_do_not_mean_what_they_should(root: Path, folder: str, mask: NDArray[Any], kind: str) -> None:
    write_mask(root, folder, mask)
    report = check(root)
    assert (kind, "b.png") in found(report)
    errors = {f.kind for f in report.findings if f.severity == "error"}
    assert errors == ({kind} if KINDS[kind].severity == "error" else set())
    assert report.splits[0].broken == len(errors)


@pytest.mark.parametrize(
    ("folder", "mask"),
    [
        (ROADS, (road() > 0).astype(np.uint8)),  # 1 for the class is as good as 255
        (ROADS, np.zeros(SIZE, np.uint8)),
        (LANES, np.zeros(SIZE, np.uint8)),
    ],
)
def test_masks_that_are_right(root: Path, folder: str, mask: NDArray[np.uint8]) -> None:
    write_mask(root, folder, mask)
    assert check(root).findings == []


def test_road_of_bdds_first_package_is_no_trap(root: Path) -> None:
    # there 0 is background, 1 direct, 2 alternative
    write_mask(root, ROADS, road() // 255 + (lane() > 0).astype(np.uint8))
    assert found(check(root)) == [("mask-values", "b.png")]


def test_a_class_without_a_pixel(root: Path) -> None:
    for name in "abc":
        write_mask(root, LANES, np.zeros(SIZE, np.uint8), name)
    report = check(root)
    assert [(f.kind, f.file) for f in report.findings] == [("mask-empty", str(root / LANES))]
    assert report.splits[0].masks_empty == [0, 3]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (box(x2=100), "box-area"),
        (box(x1=1300, x2=1400), "box-outside"),
        (box(x1=1200, x2=1400), "box-partly-outside"),
        (box(y1="1"), "label-damaged"),
        (box(y1=float("nan")), "label-damaged"),
        ("car", "label-damaged"),
    ],
)
def test_boxes(root: Path, bad: Any, kind: str) -> None:
    write_label(root, box(), bad)
    report = check(root)
    assert found(report) == [(kind, "b.json")]
    assert "object 1" in report.findings[0].what
    usable = kind == "box-partly-outside"
    assert report.splits[0].boxes == {"car": 5 + usable}


def test_a_box_one_pixel_beyond_the_border_is_nothing(root: Path) -> None:
    write_label(root, box(x1=-1, x2=1281))
    assert check(root).findings == []


def test_every_damaged_object_is_told(root: Path) -> None:
    write_label(root, box(x1="a"), box(), box(x2=None))
    assert [f.what[:8] for f in check(root).findings] == ["object 0", "object 2"]


@pytest.mark.parametrize(
    ("more", "kind"),
    [({"frames": [{"objects": []}, {"objects": []}]}, "label-frames"), ({"name": "c.jpg"}, "label-name")],
)
def test_label_headers(root: Path, more: dict[str, Any], kind: str) -> None:
    write_label(root, name="b")
    data = json.loads((root / LABELS / "b.json").read_text())
    (root / LABELS / "b.json").write_text(json.dumps({**data, **more}))
    assert found(check(root)) == [(kind, "b.json")]


def test_categories_that_are_left_out_are_counted(root: Path) -> None:
    write_label(root, box(), box("pedestrian"), box("pedestrian"), box("\ud800"))
    project = Project(classes=("car", "person"), combine=())
    report = check(root, project)
    assert report.splits[0].ignored == {"bus": 2, "pedestrian": 2, "\ud800": 1}
    assert found(report) == [("class-empty", "val")]
    assert "2 are called 'pedestrian'" in report.findings[0].what
    json.dumps(report.to_json(), ensure_ascii=False).encode()  # no half characters


def test_images_of_other_shapes(root: Path) -> None:
    for folder, image in ((IMAGES, np.zeros((96, 128, 3), np.uint8)), (ROADS, None), (LANES, None)):
        suffix = "jpg" if folder == IMAGES else "png"
        picture = np.zeros((96, 128), np.uint8) if image is None else image
        cv2.imwrite(str(root / folder / f"b.{suffix}"), picture)
    assert found(check(root)) == [("image-aspect", "b.jpg"), ("image-sizes", "val")]


def test_both_splits_unless_one_is_named(root: Path) -> None:
    report = check(root, split=None)
    assert found(report) == [("split-missing", "det_annot")]
    for folder in (IMAGES, LABELS, ROADS, LANES):  # as `hnx data synth --train 0` leaves them
        (root / folder).with_name("train").mkdir()
    assert found(check(root, split=None)) == [("split-missing", "det_annot")]
    assert {kind for kind, _ in found(check(root, split="train"))} == {"folder-empty"}
    assert report.errors == 0
    assert [split.samples for split in report.splits] == [0, 3]
    assert found(check(root, split="test"))[0][0] == "folder-missing"


def test_a_name_in_both_splits(root: Path) -> None:
    for folder in (IMAGES, LABELS, ROADS, LANES):
        shutil.copytree(root / folder, (root / folder).with_name("train"))
        for path in (root / folder).glob("[ab].*"):
            path.unlink()
    report = check(root, split=None)
    assert [(f.kind, f.file) for f in report.findings] == [("split-overlap", str(root / IMAGES / "c.jpg"))]
    assert [split.samples for split in report.splits] == [3, 1]


def test_nothing_there(tmp_path: Path) -> None:
    report = check(tmp_path, split=None)
    assert [kind for kind, _ in found(report)] == ["folder-missing"] * 4
    with pytest.raises(HnxError, match="no data set"):
        check(tmp_path / "nothing")


def test_processes_find_the_same(root: Path) -> None:
    (root / ROADS / "b.png").write_bytes(b"")
    progress: list[tuple[str, int, int]] = []
    parallel = check(root, workers=2, on_progress=lambda *state: progress.append(state))
    assert parallel.to_json() == check(root).to_json()
    assert progress == [("val", 1, 3), ("val", 2, 3), ("val", 3, 3)]


@pytest.mark.parametrize("project", ["nc1_binary", "nc1_multiclass", "nc10_multilabel"])
def test_the_parity_data_set_is_usable_and_odd(project: str) -> None:
    loaded = load_project(str(PARITY / f"project_{project}.yml"))
    report = check_dataset(loaded, PARITY, "val", workers=0)
    assert report.errors == 0
    assert ("mask-channels", "val_02.png") in found(report)
    split = open_split(loaded, PARITY)
    reader = SampleReader(split, (384, 640))
    assert sum(len(reader.read(name).boxes) for name in split.names) == report.splits[0].boxes.total()


def spoil_image(root: Path) -> None:
    (root / IMAGES / "b.jpg").write_bytes(b"x")


def spoil_label(root: Path) -> None:
    write_label(root, box(x1="x"))


def spoil_mask(root: Path) -> None:
    write_mask(root, ROADS, np.zeros((3, 3), np.uint8))


@pytest.mark.parametrize("spoil", [spoil_image, spoil_label, spoil_mask])
def test_what_the_check_refuses_the_reader_refuses_too(root: Path, spoil: Callable[[Path], None]) -> None:
    reader = SampleReader(open_split(Project(), root), (128, 256))
    reader.read("b")
    spoil(root)
    assert check(root).errors == 1
    with pytest.raises(HnxError, match="b"):
        reader.read("b")


def test_kinds_say_what_to_do() -> None:
    assert all(row.title and row.fix and row.severity in ("error", "warning") for row in KINDS.values())
