"""Labels by a teacher."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hybridnets.dataset import SampleReader, open_split
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import Project
from tools.pseudo import OnnxTeacher, PseudoConfig, PseudoLabels, label_frames
from tools.pseudo.teacher import parse_outputs

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def bright_teacher(
    path: Path, *, shape: tuple[int, ...] = (1, 3, 36, 64), names: tuple[str, str] = ("da", "ll")
) -> Path:
    """Its road is where red is above one half, its lane where blue is."""
    from onnx import TensorProto, helper, numpy_helper

    weights, biases = [], []
    for channel in (0, 2):
        weight = np.zeros((2, 3, 1, 1), np.float32)
        weight[1, channel] = 100.0
        weights.append(weight)
        biases.append(np.array([0, -50], np.float32))
    nodes = [
        helper.make_node("Conv", ["images", f"w{i}", f"b{i}"], [name], kernel_shape=[1, 1])
        for i, name in enumerate(names)
    ]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2, *shape[2:])) for name in names],
        [
            numpy_helper.from_array(value, f"{kind}{i}")
            for i in range(2)
            for kind, value in (("w", weights[i]), ("b", biases[i]))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def picture() -> NDArray[np.uint8]:
    """Red below, a blue line in it."""
    image = np.zeros((180, 320, 3), np.uint8)
    image[90:, :, 2] = 255
    image[90:, 150:170] = (255, 0, 0)
    return image


class Finder:
    """A teacher with boxes."""

    name = "finder"
    classes = ("road", "lane")

    def label(self, frame: NDArray[np.uint8]) -> PseudoLabels:
        empty = np.zeros(frame.shape[:2], np.uint8)
        return PseudoLabels({"road": empty, "lane": empty}, ((16.0, 9.0, 32.0, 18.0, "car"),))


def config(folder: Path, *sources: Path, **options: Any) -> PseudoConfig:
    return PseudoConfig(tuple(map(str, sources)), folder, Project(), **options)


def label_of(folder: Path, name: str, split: str = "train") -> Any:
    return json.loads((folder / "det_annot" / split / f"{name}.json").read_text())


@pytest.mark.parametrize("mirror", [True, False])
def test_masks_are_what_the_teacher_sees(tmp_path: Path, mirror: bool) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    teacher = OnnxTeacher(bright_teacher(tmp_path / "t.onnx"), mirror=mirror)
    report = label_frames(config(tmp_path / "out", tmp_path / "a.png"), teacher)
    assert (report.written, report.boxes, report.problems) == (1, None, [])
    split = open_split(Project(), tmp_path / "out", "train")
    sample = SampleReader(split, (128, 128), frame_target=True).read("a")
    assert not sample.has_boxes
    assert (sample.frame == picture()).all()
    truth = np.zeros((180, 320), np.uint8)
    truth[90:] = 1
    truth[90:, 150:170] = 2
    assert sample.frame_target is not None
    assert (sample.frame_target != truth).mean() < 0.01  # edges of a teacher a fifth as large
    assert report.shares["road"] == pytest.approx(0.5 * 300 / 320, abs=0.01)
    assert label_of(tmp_path / "out", "a")["unlabelled"] == ["boxes"]


def test_pictures_are_copied_byte_by_byte(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), picture())
    label_frames(config(tmp_path / "out", tmp_path / "a.jpg"), Finder())
    assert (tmp_path / "out/imgs/train/a.jpg").read_bytes() == (tmp_path / "a.jpg").read_bytes()


def test_boxes_are_in_the_pixels_labels_refer_to(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.bmp"), picture())
    report = label_frames(config(tmp_path / "out", tmp_path / "a.bmp", split="val"), Finder())
    assert report.boxes == 1
    content = label_of(tmp_path / "out", "a", "val")
    assert "unlabelled" not in content
    box = content["frames"][0]["objects"][0]
    assert (box["category"], box["box2d"]) == ("car", {"x1": 64.0, "y1": 36.0, "x2": 128.0, "y2": 72.0})


def video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 180))
    for index in range(frames):
        writer.write(np.full((180, 320, 3), 20 * index, np.uint8))
    writer.release()
    return path


def test_frames_of_a_video(tmp_path: Path) -> None:
    source = video(tmp_path / "drive.avi", 7)
    report = label_frames(config(tmp_path / "out", source, every=3), Finder())
    assert report.written == 3
    names = open_split(Project(), tmp_path / "out", "train").names
    assert names == ("drive_000000", "drive_000003", "drive_000006")


def test_what_is_there_is_kept_unless_asked(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    first = config(tmp_path / "out", tmp_path / "a.png")
    label_frames(first, Finder())
    (tmp_path / "out/da_seg_annot/train/a.png").write_bytes(b"mine")
    assert label_frames(first, Finder()).kept == 1
    assert (tmp_path / "out/da_seg_annot/train/a.png").read_bytes() == b"mine"
    assert label_frames(config(tmp_path / "out", tmp_path / "a.png", overwrite=True), Finder()).written == 1
    assert (tmp_path / "out/da_seg_annot/train/a.png").read_bytes() != b"mine"


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), picture())
    both = (tmp_path / "x/a.png", tmp_path / "y/a.png")
    label_frames(config(tmp_path / "out", *both), Finder())
    assert open_split(Project(), tmp_path / "out", "train").names == ("a", "y_a")


def test_broken_pictures_are_listed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), picture())
    (tmp_path / "in/b.png").write_bytes(b"no picture")
    report = label_frames(config(tmp_path / "out", tmp_path / "in"), Finder())
    assert report.written == 1
    assert "b.png" in report.problems[0].what
    assert open_split(Project(), tmp_path / "out", "train").names == ("a",)


def test_a_teacher_without_a_class_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    teacher = OnnxTeacher(bright_teacher(tmp_path / "t.onnx"), {"da": "road"})
    with pytest.raises(HnxError, match="lane") as caught:
        label_frames(config(tmp_path / "out", tmp_path / "a.png"), teacher)
    assert caught.value.code == ExitCode.USAGE
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("teacher", "outputs", "message"),
    [
        ({"names": ("x", "y")}, None, "x, y"),
        ({}, {"road": "road"}, "no output 'road'"),
        ({"shape": (1, 3, 36, 64, 1)}, None, "float32 1x3xHxW"),
    ],
)
def test_teachers_of_another_form(
    tmp_path: Path, teacher: dict[str, Any], outputs: Mapping[str, str] | None, message: str
) -> None:
    if "shape" in teacher:
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            [helper.make_node("Identity", ["a"], ["da"])],
            "g",
            [helper.make_tensor_value_info("a", TensorProto.FLOAT, teacher["shape"])],
            [helper.make_tensor_value_info("da", TensorProto.FLOAT, teacher["shape"])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        onnx.save(model, tmp_path / "t.onnx")
    else:
        bright_teacher(tmp_path / "t.onnx", **teacher)
    with pytest.raises(HnxError) as caught:
        OnnxTeacher(tmp_path / "t.onnx", outputs)
    assert message in f"{caught.value.what} {caught.value.why}"


def test_files_that_are_no_network(tmp_path: Path) -> None:
    (tmp_path / "t.onnx").write_bytes(b"nothing")
    for name in ("t.onnx", "absent.onnx"):
        with pytest.raises(HnxError, match=name):
            OnnxTeacher(tmp_path / name)


def test_outputs_as_text() -> None:
    assert parse_outputs("da=road, ll = lane") == {"da": "road", "ll": "lane"}
    for text in ("da", "da=", "=road", "da=road,"):
        with pytest.raises(HnxError, match="Cannot read"):
            parse_outputs(text)


@pytest.mark.parametrize("options", [{"every": 0}, {"limit": 0}, {"split": "../x"}, {"split": ""}])
def test_values_out_of_range(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(HnxError) as caught:
        config(tmp_path, tmp_path, **options)
    assert caught.value.code == ExitCode.USAGE
