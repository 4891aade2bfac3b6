"""Project files: upstream's schema, and everything that can be wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import Project, load_project, parse_project, shipped_projects

UPSTREAM_LIKE = """
mean: [0.485, 0.456, 0.406]
std: [0.229, 0.224, 0.225]
anchors_scales: '[2**0, 2**0.70, 2**1.32]'
anchors_ratios: '[(0.62, 1.58), (1.0, 1.0), (1.58, 0.62)]'
obj_list: ['person', 'rider', 'car']
obj_combine: []
seg_list: ['road', 'lane']
seg_multilabel: true
dataset:
  color_rgb: false
  dataroot: d/imgs
  labelroot: d/det
  segroot: [d/da, d/ll]
  org_img_size: [720, 1280]
  rot_factor: 10
model:
  image_size: [640, 384]
"""


def test_the_shipped_project_is_the_default() -> None:
    assert shipped_projects() == ["bdd100k"]
    assert load_project() == Project()
    assert load_project().seg_mode == "multiclass"
    assert load_project().warnings == ()


def test_upstream_file() -> None:
    project = parse_project(UPSTREAM_LIKE, "x", "x.yml")
    assert project.classes == ("person", "rider", "car")
    assert project.seg_mode == "multilabel"
    assert project.dataset.segroot == ("d/da", "d/ll")
    assert project.anchors == Project().anchors
    assert project.warnings == ()


def test_one_segmentation_class_is_binary() -> None:
    assert parse_project("seg_list: [road]", "x", "x.yml").seg_mode == "binary"


def test_unknown_keys_get_a_suggestion() -> None:
    text = "obj_lst: [car]\ndataset: {flipr: 1.0, segroot: [a, b]}\nwhatever_else: 1\n"
    warnings = parse_project(text, "x", "x.yml").warnings
    assert len(warnings) == 3
    assert "'obj_list'" in warnings[0]
    assert "did you mean" not in warnings[1]
    assert "'fliplr'" in warnings[2]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("obj_list: car", "obj_list"),
        ("obj_list: []", "obj_list"),
        ("obj_list: [car, car]", "obj_list"),
        ("seg_multilabel: 'yes'", "seg_multilabel"),
        ("mean: [1, 2]", "mean"),
        ("std: [0.1, 0, 0.1]", "std"),
        ("anchors_scales: '__import__(\"os\").abort()'", "anchors_scales"),
        ("anchors_ratios: '[1, 2, 3]'", "anchors_ratios"),
        ("model: {image_size: [640]}", "image_size"),
        ("model: 5", "model"),
        ("dataset: {org_img_size: [-1, 5]}", "org_img_size"),
        ("dataset: {fliplr: .nan}", "fliplr"),
        (f"dataset: {{fliplr: 1{'0' * 400}}}", "fliplr"),
        (f"mean: [0x{'f' * 6000}, 1, 1]", "mean"),
        (f"anchors_scales: [0x{'f' * 6000}, 1, 1]", "anchors_scales"),
        ("std: [1.0e-300, 1, 1]", "mean and std"),
    ],
)
def test_a_wrong_value_names_its_key(text: str, key: str) -> None:
    with pytest.raises(HnxError, match=key):
        parse_project(text, "x", "x.yml")


@pytest.mark.parametrize("text", ["", "- a\n- b", "a: [", "!!python/object/apply:os.abort []", "\x00", "a: &x [*x]"])
def test_what_is_no_project(text: str) -> None:
    if text.startswith("a: &x"):
        assert parse_project(text, "x", "x.yml").warnings  # a list that holds itself is only an unknown key
        return
    with pytest.raises(HnxError, match=r"x\.yml"):
        parse_project(text, "x", "x.yml")


@pytest.mark.parametrize("key", ["obj_list", "anchors_scales", "mean"])
def test_aliases_do_not_grow_without_bound(key: str) -> None:
    """Nine levels of nine aliases stand for 400 million values: nobody may write them out, not even an error."""
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    with pytest.raises(HnxError, match=key) as caught:
        parse_project("\n".join([*lines, f"{key}: *i"]), "x", "x.yml")
    assert len(str(caught.value)) < 1000


def test_mask_folders_and_classes_must_match() -> None:
    with pytest.raises(HnxError, match="1 mask folders for 2 classes"):
        parse_project("dataset: {segroot: [a]}", "x", "x.yml")


def test_finding_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "projects").mkdir()
    (tmp_path / "projects" / "mine.yml").write_text("obj_list: [tram]")
    assert load_project("mine").classes == ("tram",)
    assert load_project("projects/mine.yml").name == "mine"
    with pytest.raises(HnxError, match="bdd10k") as caught:
        load_project("bdd10k")
    assert "did you mean 'bdd100k'" in caught.value.why
    assert caught.value.code == ExitCode.USAGE
    with pytest.raises(HnxError, match=r"absent\.yml"):
        load_project("absent.yml")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HnxError, match="UTF-8"):
        load_project("binary.yml")
    (tmp_path / "huge.yml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(HnxError, match="1 MiB"):
        load_project("huge.yml")
    (tmp_path / "folder.yml").mkdir()
    with pytest.raises(HnxError, match="folder"):
        load_project("folder.yml")
